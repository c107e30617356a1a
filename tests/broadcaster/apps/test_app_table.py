"""Properties of the database table: columns, types, URL, and errors of drivers."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import subprocess
import sys
import uuid
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy.exc import OperationalError

from legato.broadcaster.apps import sql as app_table
from legato.broadcaster.apps.source import UnreadableError
from legato.broadcaster.apps.sql import JSON_COLUMNS, AppTable
from legato.broadcaster.composition import StartError, running
from legato.broadcaster.config import AppSource, Settings
from legato.protocol.apps import App, Webhook
from legato.protocol.settings import SettingsError
from tests.broadcaster.apps.app_tables import STATEMENTS, TABLE, create, put_row
from tests.broadcaster.conftest import local_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

PASSWORD = "hush-hush"


@pytest.fixture
def path(tmp_path) -> Path:
    create(tmp_path / "apps.db")
    return tmp_path / "apps.db"


@pytest.fixture
async def table(path) -> AsyncIterator[AppTable]:
    opened = AppTable(AppSource(database_url=f"sqlite:///{path}"))
    yield opened
    await opened.close()


def run(path: Path, script: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)


async def apps(table: AppTable) -> list[App]:
    return [table.app(content) for _, content in await table.read()]


def app(table: AppTable, **row: Any) -> App:
    values = {"id": "7", "key": "k7", "secret": "s7"} | row
    return table.app((tuple(values), tuple(values.values())))


async def test_the_documented_table_holds_the_documented_application(tmp_path):
    run(tmp_path / "x.db", STATEMENTS[0])
    table = AppTable(AppSource(database_url=f"sqlite:///{tmp_path / 'x.db'}"))
    assert await apps(table) == [App(id="7", key="k7", secret="s7", max_connections=100)]
    await table.close()


async def test_each_setting_may_be_a_column(path, table):
    webhook = {"url": "https://example.com/hook", "events": ["channel_occupied"]}
    scalars = {"max_event_bytes": 1, "client_events": 0, "watchlist": 0, "activity_timeout": 7}
    for name in scalars:
        run(path, f"ALTER TABLE {TABLE} ADD COLUMN {name} INTEGER")
    lists = {"allowed_origins": ["a.test"], "webhooks": [webhook], "old_keys": {"k6": "s6"}}
    put_row(path, id="7", key="k7", secret="s7", enabled=0, max_connections=3, **lists, **scalars)
    assert await apps(table) == [
        App(
            id="7",
            key="k7",
            secret="s7",
            enabled=False,
            max_connections=3,
            max_event_bytes=1,
            client_events=False,
            watchlist=False,
            activity_timeout=7,
            allowed_origins=("a.test",),
            webhooks=(Webhook(url="https://example.com/hook", events=("channel_occupied",)),),
            old_keys={"k6": "s6"},
        )
    ]


def test_the_columns_of_json_are_those_that_the_documents_name():
    assert {"allowed_origins", "webhooks", "old_keys"} == JSON_COLUMNS


async def test_types_that_other_databases_have(table):
    """Native JSON, booleans and arrays, an id that is a number or a UUID, JSON as bytes, numbers as text."""
    number = uuid.uuid4()
    assert app(table, id=7) == app(table)
    assert app(table, id=number).id == str(number)
    assert app(table, enabled=False) == app(table, enabled=0) == app(table, enabled="false")
    assert app(table, max_connections="5").max_connections == 5
    assert app(table, allowed_origins=["a"]) == app(table, allowed_origins=b'["a"]')
    assert app(table, old_keys={"a": "b"}) == app(table, old_keys='{"a": "b"}')
    assert app(table, webhooks=None, max_connections=None, old_keys=None) == app(table)


MISTAKES = [
    ({"key": None}, "missing required field `key`"),
    ({"secret": ""}, r"length >= 1 - at `\$.secret`"),
    ({"key": "k 7"}, r"matching regex .* at `\$.key`"),
    ({"max_connections": -1}, r">= 0 - at `\$.max_connections`"),
    ({"max_connections": "many"}, r"Expected `int`.* at `\$.max_connections`"),
    ({"webhooks": "{"}, "webhooks: Input data was truncated"),
    ({"webhooks": b"\xff"}, "webhooks: "),
    ({"webhooks": '[{"url": "ftp://:hush-hush@x"}]'}, "url: expected http://"),
    ({"allowed_origins": '"a"'}, r"Expected `array`.* at `\$.allowed_origins`"),
    ({"old_keys": '{"a": ""}'}, r"length >= 1 - at `\$.old_keys"),
    ({"secret": b"hush-hush"}, r"Expected `str`, got `bytes` - at `\$.secret`"),
]


@pytest.mark.parametrize(("row", "reason"), MISTAKES)
async def test_an_invalid_row_says_why(table, row, reason):
    with pytest.raises(ValueError, match=reason) as caught:
        app(table, **({"secret": "hush-hush"} | row))
    assert PASSWORD not in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_unknown_columns_are_ignored_and_logged_once(path, table, caplog):
    caplog.set_level(logging.INFO, "legato.apps")
    put_row(path, id="7", key="k7", secret="s7")
    run(path, f"ALTER TABLE {TABLE} ADD COLUMN max_conections INTEGER DEFAULT 5")
    before = await table.read()
    run(path, f"UPDATE {TABLE} SET created_at = '2020-01-01'")
    assert await table.read() == before  # no reason to look at the row again
    assert await apps(table) == [App(id="7", key="k7", secret="s7")]
    assert (
        caplog.text.count("legato_apps: ignored columns without a setting: created_at, max_conections") == 1
    )


async def test_a_column_that_comes_later_counts_from_then_on(path, table):
    put_row(path, id="7", key="k7", secret="s7")
    await table.read()
    run(path, f"ALTER TABLE {TABLE} ADD COLUMN pong_timeout INTEGER DEFAULT 5")
    assert (await apps(table))[0].pong_timeout == 5


async def test_a_table_without_a_required_column(path, table):
    run(path, f"ALTER TABLE {TABLE} RENAME COLUMN secret TO token")
    with pytest.raises(UnreadableError, match="there is no column 'secret'"):
        await table.read()


async def test_too_many_rows_are_refused(path, table, monkeypatch):
    monkeypatch.setattr(app_table, "APP_TABLE_MAX_ROWS", 1)
    table = AppTable(AppSource(database_url=f"sqlite:///{path}"))
    put_row(path, id="7", key="k7", secret="s7")
    assert len(await table.read()) == 1
    put_row(path, id="8", key="k8", secret="s8")
    with pytest.raises(UnreadableError, match="more than 1 rows"):
        await table.read()
    await table.close()


@pytest.mark.parametrize("name", ["Order", "main.Order", "main.my-apps"])
async def test_the_table_has_any_name(path, name):
    run(path, f'ALTER TABLE {TABLE} RENAME TO "{name.rpartition(".")[2]}"')
    table = AppTable(AppSource(database_url=f"sqlite:///{path}", database_table=name))
    assert await table.read() == []
    await table.close()


async def test_a_table_of_another_schema_is_another_table(path):
    table = AppTable(AppSource(database_url=f"sqlite:///{path}", database_table=f"temp.{TABLE}"))
    with pytest.raises(UnreadableError, match=f"no such table: temp.{TABLE}"):
        await table.read()
    await table.close()


async def test_a_database_in_wal_mode_that_another_process_writes_to(path, table):
    put_row(path, id="7", key="k7", secret="s7")
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("BEGIN IMMEDIATE")
        writer.execute(f"UPDATE {TABLE} SET key = 'new'")
        assert [app.key for app in await apps(table)] == ["k7"]
        writer.execute("COMMIT")
        assert [app.key for app in await apps(table)] == ["new"]


async def test_a_file_that_is_replaced_is_read(path, table, tmp_path):
    assert await table.read() == []
    create(tmp_path / "next.db")
    put_row(tmp_path / "next.db", id="7", key="k7", secret="s7")
    (tmp_path / "next.db").replace(path)
    assert len(await table.read()) == 1


async def test_a_missing_file_stops_the_start_and_is_not_created(tmp_path, capfd):
    source = AppSource(database_url=f"sqlite:///{tmp_path}/a typo.db")
    with pytest.raises(StartError, match="the applications in legato_apps cannot be read: unable to open"):
        async with running(local_settings(app_source=source)):
            pass
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr().err == ""


async def test_a_file_that_is_no_database(tmp_path):
    (tmp_path / "x.db").write_text("hush-hush " * 200)
    table = AppTable(AppSource(database_url=f"sqlite:///{tmp_path}/x.db"))
    with pytest.raises(UnreadableError, match=r"^file is not a database$"):
        await table.read()
    await table.close()


async def test_a_database_that_does_not_answer_in_time_is_given_up(path, monkeypatch):
    """The loop keeps running meanwhile."""
    monkeypatch.setattr(app_table, "APP_TABLE_READ_SECONDS", 0.2)
    table = AppTable(AppSource(database_url=f"sqlite:///{path}?timeout=0.5"))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        reading = asyncio.create_task(table.read())
        turns = 0
        while not reading.done():
            await asyncio.sleep(0.01)
            turns += 1
        with pytest.raises(UnreadableError, match=r"no answer within 0\.2 s"):
            await reading
        assert turns > 3
        other.execute("ROLLBACK")
    monkeypatch.setattr(app_table, "APP_TABLE_READ_SECONDS", 10)
    assert await table.read() == []
    await table.close()


async def test_an_unresponsive_database_does_not_delay_the_stop(table, monkeypatch):
    async def dispose() -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(app_table, "APP_TABLE_CLOSE_SECONDS", 0.1)
    with monkeypatch.context() as patched:
        patched.setattr(table._engine.__class__, "dispose", lambda _self: dispose())
        async with asyncio.timeout(30):
            await table.close()


async def test_whatever_a_driver_raises_is_one_line(table, monkeypatch):
    class OddError(Exception):
        """Like errors of asyncpg while connecting, which are no SQLAlchemyError."""

    errors = [OddError("first\n second"), OSError(), OperationalError("SELECT x", {}, OddError("down"))]
    for error, reason in zip(errors, ("^first second$", "^OSError$", "^down$"), strict=True):

        def fail(error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(table, "_fetched", fail)
        with pytest.raises(UnreadableError, match=reason):
            await table.read()


ADDRESSES = [
    ("legato.db", "expected sqlite:///FILE"),
    ("redis://:hush-hush@x", "expected sqlite:///FILE"),
    ("postgresql://u:hush-hush@h:x/n", "expected sqlite:///FILE"),
    ("sqlite+pysqlite:///legato.db", "expected sqlite:///FILE"),
    ("sqlite+nothing:///n?key=hush-hush", "expected sqlite:///FILE"),
    ("postgresql+pg8000://u:hush-hush@h/n", "expected sqlite:///FILE|pip install pg8000"),
]


@pytest.mark.parametrize(("url", "reason"), ADDRESSES)
async def test_an_invalid_database_url_stops_the_start_in_one_line(url, reason, caplog):
    source = AppSource(database_url=url)
    with pytest.raises(SettingsError, match=f"^app_source.database_url: .*({reason})") as caught:
        async with running(local_settings(app_source=source)):
            pass
    assert PASSWORD not in f"{caught.value}{caught.value.__cause__}{source}{caplog.text}"


def test_a_driver_that_is_not_installed_says_what_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    with pytest.raises(SettingsError, match=r"asyncpg is not installed: pip install 'legato\[postgres\]'"):
        AppTable(AppSource(database_url="postgresql://u:hush-hush@h/n"))


def test_the_database_url_is_in_no_text_of_the_settings():
    settings = Settings(app_source=AppSource(database_url="postgresql://u:hush-hush@h/n"))
    assert PASSWORD not in repr(settings)


def test_a_broadcaster_without_a_table_does_without_sqlalchemy():
    code = "import sys, legato.broadcaster.composition; sys.exit('sqlalchemy' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
