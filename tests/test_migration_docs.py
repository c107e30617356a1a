"""The pages for those who come from another server name settings that exist, and keep what they promise."""

from __future__ import annotations

import json
import re
import tomllib
from argparse import Namespace
from typing import TYPE_CHECKING

import pytest

import legato.broadcaster.config
from legato.broadcaster.foreign.names import RULES, Elsewhere, Honoured, UnsupportedSetting
from tests.test_docs import DOCS, settings

if TYPE_CHECKING:
    from pathlib import Path

PAGES = ("migrate-from-reverb.md", "migrate-from-soketi.md", "compatibility.md")
TABLES = "|".join(sorted({name.partition(".")[0] for name in settings()}))


def named(page: str) -> set[str]:
    """The settings that a page names, also as `table.key = value`."""
    return set(re.findall(rf"`((?:{TABLES})\.[a-z_.]+)(?: = [^`]*)?`", (DOCS / page).read_text()))


def block(page: str, language: str) -> str:
    """The first example in a language."""
    found = re.search(rf"```{language}\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    assert found, f"{page} has no example in {language}"
    return found[1]


@pytest.mark.parametrize("page", PAGES)
def test_each_setting_that_is_named_exists(page: str) -> None:
    assert named(page)
    assert named(page) <= set(settings())


@pytest.mark.parametrize("page", PAGES[:2])
def test_the_example_is_a_configuration(page: str, tmp_path: Path) -> None:
    file = tmp_path / "legato.toml"
    file.write_text(block(page, "toml"))
    loaded = legato.broadcaster.config.load(Namespace(config=str(file)), {})
    assert [app.key for app in loaded.apps] == ["app-key"]


def test_the_example_of_soketi_becomes_the_one_of_legato() -> None:
    soketi = json.loads(block("migrate-from-soketi.md", "json"))
    legato = tomllib.loads(block("migrate-from-soketi.md", "toml"))
    (theirs,), (ours,) = soketi["appManager.array.apps"], legato["apps"]
    assert legato["server"] == {"host": soketi["host"], "port": soketi["port"]}
    assert {name: theirs[name] for name in ("id", "key", "secret")} == {
        name: ours[name] for name in ("id", "key", "secret")
    }


@pytest.mark.parametrize(
    ("page", "prefix"), [("migrate-from-reverb.md", "REVERB_"), ("migrate-from-soketi.md", "SOKETI_")]
)
def test_what_keeps_its_name_does_and_what_stops_the_start_is_said(page: str, prefix: str) -> None:
    text = (DOCS / page).read_text()
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", text, re.MULTILINE)
    honoured = {
        name for name, rule in RULES.items() if isinstance(rule, Honoured) and name.startswith(prefix)
    }
    kept = {name for cell, here in rows if "the same name" in here for name in variables(cell, prefix)}
    assert honoured <= kept
    assert all(isinstance(RULES[name], Honoured | Elsewhere) for name in kept)
    refused = {
        name
        for name, rule in RULES.items()
        if isinstance(rule, UnsupportedSetting) and name.startswith(prefix)
    }
    said = {name for row in rows if "stop" in row[1] for name in variables("".join(row), prefix)}
    assert refused <= said
    assert variables(text, prefix) <= set(RULES)


def variables(text: str, prefix: str) -> set[str]:
    return set(re.findall(rf"`({prefix}[A-Z_]+)`", text))
