"""A setting or a metric that is not in the documents fails here; commands are in tests/deploy."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

import legato.broadcaster.config
import legato.worker.config
import legato.worker.observability.metrics
from legato.broadcaster.observability import metrics
from legato.protocol.apps import App, Webhook

DOCS = Path(__file__).parents[1] / "docs"


def rows(name: str) -> dict[str, str]:
    """First column -> second column of every table row whose first column is code."""
    text = (DOCS / name).read_text()
    return dict(re.findall(r"^\| `([^`]+)` \| ([^|]+?) \|", text, re.MULTILINE))


def settings() -> dict[str, str]:
    """Every setting of both programs -> its default as the documents write it."""
    found = {}
    tables: list[tuple[str, Any]] = [("apps", App), ("apps.webhooks", Webhook)]
    for kind in (legato.broadcaster.config.Settings, legato.worker.config.Settings):
        tables += [(field.name, type(field.default)) for field in msgspec.structs.fields(kind)]
    for table, kind in tables:
        if issubclass(kind, msgspec.Struct):
            for field in msgspec.structs.fields(kind):
                found[f"{table}.{field.name}"] = documented_default(field)
    return found


def documented_default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "required"
    if field.default_factory is not msgspec.NODEFAULT:
        return f"`{as_toml(field.default_factory())}`"
    return f"`{as_toml(field.default)}`"


def as_toml(value: Any) -> str:
    return json.dumps(value)


@pytest.mark.parametrize(("name", "default"), settings().items())
def test_each_setting_is_documented_with_its_default(name, default):
    assert rows("settings.md").get(name) == default


def test_no_document_speaks_of_a_setting_that_does_not_exist():
    assert {name for name in rows("settings.md") if "." in name} == set(settings())
    assert len(settings()) > 50


def test_each_environment_alias_is_documented():
    pages = ("settings.md", "migrate-from-reverb.md", "migrate-from-soketi.md")
    text = "".join((DOCS / page).read_text() for page in pages)
    for name in (*legato.broadcaster.config.ALIASES, *legato.worker.config.ALIASES):
        assert f"`{name}`" in text


def test_each_metric_is_documented_and_no_other():
    documented = {name.removesuffix("_total") for name in rows("metrics.md")}
    assert documented == set(metrics.NAMES) | set(legato.worker.observability.metrics.NAMES)
