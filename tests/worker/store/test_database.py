"""Addresses of databases, and what their errors mean; nothing of an address leaks."""

from __future__ import annotations

import sqlite3
import sys
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from legato.protocol import databases
from legato.protocol.settings import SettingsError
from legato.worker.store import database as module
from legato.worker.store.conversations import DatabaseUnavailableError, Store
from tests.worker.store.test_store import DONE, rows
from tests.worker.support import make_job

if TYPE_CHECKING:
    from pathlib import Path


async def test_database_that_is_locked_is_unavailable(
    store: Store, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SQLITE_BUSY_SECONDS", 0.05)
    connection = sqlite3.connect(tmp_path / "turns.db", isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    patient = Store(database)
    with pytest.raises(DatabaseUnavailableError, match=r"^database is locked$"):
        await patient.save(make_job(), "geheim", DONE)
    connection.execute("ROLLBACK")
    connection.close()
    await patient.save(make_job(), "geheim", DONE)
    await patient.aclose()
    assert len(await rows(database)) == 2


class PostgresError(Exception):
    """As asyncpg's errors come: the class of SQLSTATE tells them apart."""

    def __init__(self, sqlstate: str | None) -> None:
        super().__init__("said the server")
        self.sqlstate = sqlstate


def wrapped(kind: type[sa.exc.DBAPIError], sqlstate: str | None, cause: Exception | None = None) -> Exception:
    original = PostgresError(sqlstate)
    original.__cause__ = cause
    return kind("INSERT", {}, original)


@pytest.mark.parametrize(
    ("error", "down"),
    [
        (wrapped(sa.exc.OperationalError, None), True),
        (wrapped(sa.exc.InterfaceError, None), True),
        (sa.exc.TimeoutError("the pool"), True),
        (ConnectionRefusedError(), True),
        (wrapped(sa.exc.DBAPIError, "57P01"), True),
        (wrapped(sa.exc.DBAPIError, "40001"), True),
        (wrapped(sa.exc.DBAPIError, "22001"), False),
        (wrapped(sa.exc.IntegrityError, "23502"), False),
        (wrapped(sa.exc.DataError, None), False),
        (wrapped(sa.exc.InterfaceError, None, ValueError("value out of int32 range")), False),
        (sa.exc.DBAPIError("INSERT", {}, PostgresError("22001"), connection_invalidated=True), True),
    ],
)
def test_what_may_succeed_later_is_told_from_what_never_will(error: Exception, down: bool) -> None:
    assert module.is_down(error) is down


async def test_readers_and_writers_do_not_wait_for_each_other(store: Store, tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "turns.db")
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.execute("BEGIN")
    connection.execute("SELECT * FROM messages").fetchall()
    await store.save(make_job(), "x", DONE)
    connection.close()


async def test_directory_that_is_not_there_is_a_database_error_with_a_reason(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/none/turns.db")
    with pytest.raises(module.FAULTS) as caught:
        await store.prepare()
    await store.aclose()
    assert databases.reason(caught.value) == "unable to open database file"


@pytest.mark.parametrize(
    ("url", "driver", "extra"),
    [
        ("postgres://ann:geheim@db/x", "asyncpg", "postgres"),
        ("postgresql://ann:geheim@db/x", "asyncpg", "postgres"),
        ("mysql://ann:geheim@db/x", "asyncmy", "mysql"),
    ],
)
def test_missing_driver_is_one_line_that_names_the_extra(
    url: str, driver: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, driver, None)
    with pytest.raises(SettingsError) as caught:
        Store(url)
    expected = f"the driver {driver} is not installed: pip install 'legato[{extra}]'"
    assert str(caught.value) == f"database.url: {expected}"


@pytest.mark.parametrize(
    "url",
    ["", "turns.db", "oracle://ann:geheim@db/x", "postgresql://ann:geheim@db:port/x", "sqlite+pysqlite:///x"],
)
def test_address_that_is_none_is_one_line_without_it(url: str) -> None:
    with pytest.raises(SettingsError, match=r"^database\.url: expected sqlite:///FILE") as caught:
        Store(url)
    assert "geheim" not in str(caught.value)
