"""The sample of the settings is what docs/settings.md and the settings' types say."""

from __future__ import annotations

import re
import tomllib
from argparse import Namespace
from typing import TYPE_CHECKING

import legato.broadcaster.config
import legato.worker.config
from legato.protocol.apps import App, Webhook
from tests.sample import REQUIRED, SAMPLE, sample, tables

if TYPE_CHECKING:
    from pathlib import Path

TEXT = SAMPLE.read_text()
SECRETS = {"LEGATO_APP_ID": "7", "LEGATO_APP_KEY": "k", "LEGATO_APP_SECRET": "s"}
WORKER = {"REDIS_URL": "redis://127.0.0.1:1", "LEGATO_PROVIDER_NAME": "scripted"}


def everything() -> str:
    """The sample with every key in force. Prose has a space behind its #."""
    return re.sub(r"^#(?=[a-z\[])", "", TEXT, flags=re.MULTILINE)


def test_the_file_is_up_to_date() -> None:
    assert sample() == TEXT, "`make fmt` brings deploy/legato.sample.toml up to date"


def test_each_setting_has_a_line_of_its_own_after_what_it_means() -> None:
    for table, kind in tables():
        section = re.search(rf"^#?\[+{re.escape(table)}\]+\n(.*?)(?:\n\n|\Z)", TEXT, re.MULTILINE | re.DOTALL)
        assert section, table
        keys = re.findall(r"(?:^# .+\n)+^#([a-z_]+) = .+$", section[1], re.MULTILINE)
        expected = {name for name in kind.__struct_fields__ if f"{table}.{name}" != "apps.webhooks"}
        assert set(keys) == expected
        assert len(keys) == len(expected)


def test_as_it_is_it_changes_nothing(tmp_path: Path) -> None:
    args = Namespace(config=str(SAMPLE))
    none = Namespace(config=None)
    for module, environ in ((legato.broadcaster.config, SECRETS), (legato.worker.config, WORKER)):
        assert module.load(args, environ) == module.load(none, environ)


def test_every_value_is_the_default(tmp_path: Path) -> None:
    path = tmp_path / "legato.toml"
    path.write_text(everything())
    assert tomllib.loads(everything()).keys() == {table for table, _ in tables() if "." not in table}
    read = legato.broadcaster.config.load(Namespace(config=str(path)), {})
    app = App(**REQUIRED["apps"], webhooks=(Webhook(**REQUIRED["apps.webhooks"]),))
    assert read == legato.broadcaster.config.Settings(apps=(app,))
    environ = WORKER | {"LEGATO_REDIS_URL": WORKER["REDIS_URL"]}
    of_worker = legato.worker.config.load(Namespace(config=str(path)), environ)
    assert of_worker == legato.worker.config.load(Namespace(config=None), environ)
