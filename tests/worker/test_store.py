"""Turns are kept once, wherever the database is, and nothing of its address leaks."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import traceback
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from protocol.settings import SettingsError
from protocol.stream import Usage
from worker import store as module
from worker.reply import Decision
from worker.store import RefusedError, Store, UnavailableError

from .support import make_job

if TYPE_CHECKING:
    from pathlib import Path

DONE = Decision("end_turn", Usage(1, 2, 3, 4), "claude-x")


def rows(directory: Path) -> list[dict[str, Any]]:
    connection = sqlite3.connect(directory / "turns.db")
    connection.row_factory = sqlite3.Row
    found = [dict(row) for row in connection.execute("SELECT * FROM messages ORDER BY id")]
    connection.close()
    return found


def refuse_users(directory: Path) -> None:
    """What a strict database does with too long an id, which SQLite takes."""
    connection = sqlite3.connect(directory / "turns.db")
    connection.execute(
        "CREATE TRIGGER strict BEFORE INSERT ON messages WHEN length(new.user_id) > 100"
        " BEGIN SELECT raise(abort, 'value too long'); END"
    )
    connection.close()


async def test_both_turns_are_kept(store: Store, tmp_path: Path) -> None:
    await store.save(make_job("Hi", session_id="s1"), "Hello!", DONE)
    user, assistant = rows(tmp_path)
    common = {"message_id": "m1", "user_id": "7", "session_id": "s1", "status": "complete"}
    assert common.items() <= user.items()
    assert common.items() <= assistant.items()
    assert (user["role"], user["content"], user["model"]) == ("user", "Hi", None)
    assert (assistant["role"], assistant["content"], assistant["model"]) == (
        "assistant",
        "Hello!",
        "claude-x",
    )
    assert assistant["stop_reason"] == "end_turn"
    assert [assistant[f"{name}_tokens"] for name in ("input", "output", "cache_read", "cache_write")] == [
        *(1, 2, 3, 4)
    ]
    assert user["created_at"].startswith("2023-11-14 22:13:20")
    assert user["created_at"] < assistant["created_at"]


async def test_second_write_of_a_turn_is_ignored(store: Store, tmp_path: Path) -> None:
    await store.save(make_job(), "first", DONE)
    before = rows(tmp_path)
    await store.save(make_job(), "second", DONE)
    assert rows(tmp_path) == before
    assert len(before) == 2


async def test_session_is_the_message_where_there_is_none(store: Store, tmp_path: Path) -> None:
    await store.save(make_job(), "x", DONE)
    assert {row["session_id"] for row in rows(tmp_path)} == {"m1"}


@pytest.mark.parametrize("state", ["failed", "cancelled"])
async def test_turn_that_did_not_end_well_says_so(store: Store, tmp_path: Path, state: Any) -> None:
    await store.save(make_job(), "par", Decision(state=state))
    assert [row["status"] for row in rows(tmp_path)] == ["complete", state]


async def test_texts_that_databases_choke_on(store: Store, tmp_path: Path) -> None:
    await store.save(make_job("a\0b", queued_at=2**60), "😀" * 100_000, DONE)
    user, assistant = rows(tmp_path)
    assert user["content"] == "ab"
    assert user["created_at"].startswith("9999-12-31")
    assert len(assistant["content"]) == 100_000


async def test_time_beyond_any_calendar_is_its_end(store: Store, tmp_path: Path) -> None:
    await store.save(make_job(queued_at=10**400), "x", DONE)
    assert rows(tmp_path)[0]["created_at"].startswith("9999-12-31")


async def test_database_that_is_locked_is_unavailable(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BUSY_SECONDS", 0.05)
    connection = sqlite3.connect(tmp_path / "turns.db", isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    patient = Store(f"sqlite:///{tmp_path}/turns.db")
    with pytest.raises(UnavailableError, match=r"^database is locked$"):
        await patient.save(make_job(), "geheim", DONE)
    connection.execute("ROLLBACK")
    connection.close()
    await patient.save(make_job(), "geheim", DONE)
    await patient.aclose()
    assert len(rows(tmp_path)) == 2


async def test_row_that_the_database_does_not_take_is_refused_without_telling_it(
    store: Store, tmp_path: Path
) -> None:
    refuse_users(tmp_path)
    text = "gehe" + "im"  # in two, for a traceback shows these lines too
    with pytest.raises(RefusedError, match=r"^value too long$") as caught:
        await store.save(make_job(user_id="x" * 128), text, DONE)
    assert text not in "".join(traceback.format_exception(caught.value))


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
    assert module._is_down(error) is down


async def test_readers_and_writers_do_not_wait_for_each_other(store: Store, tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "turns.db")
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.execute("BEGIN")
    connection.execute("SELECT * FROM messages").fetchall()
    await store.save(make_job(), "x", DONE)
    connection.close()


def test_processes_that_start_at_once_on_one_new_file_all_succeed(tmp_path: Path, database: str) -> None:
    code = f"""
import asyncio, sys
from worker.reply import Decision
from worker.store import Store
from tests.worker.support import make_job
async def main():
    print("set", flush=True)
    sys.stdin.read()
    store = Store({database!r})
    await store.prepare()
    for number in range(20):
        await store.save(make_job(message_id=sys.argv[1] + str(number)), "x", Decision("end_turn"))
    await store.aclose()
asyncio.run(main())
"""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in "abc"
    ]
    for process in started:
        assert process.stdout
        assert process.stdout.readline() == "set\n"
    for process in started:  # all at once
        assert process.stdin
        process.stdin.close()
        process.stdin = None
    for process in started:
        _, complaint = process.communicate(timeout=60)
        assert (process.returncode, complaint) == (0, "")
    assert len(rows(tmp_path)) == 120


async def test_directory_that_is_not_there_is_a_database_error_with_a_reason(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/none/turns.db")
    with pytest.raises(module.FAULTS) as caught:
        await store.prepare()
    await store.aclose()
    assert module.reason(caught.value) == "unable to open database file"


@pytest.mark.parametrize(
    ("url", "extra"),
    [
        ("postgres://ann:geheim@db/x", "postgres"),
        ("postgresql://ann:geheim@db/x", "postgres"),
        ("mysql://ann:geheim@db/x", "mysql"),
    ],
)
def test_missing_driver_is_one_line_that_names_the_extra(
    url: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for driver in ("asyncpg", "asyncmy"):
        monkeypatch.setitem(sys.modules, driver, None)
    with pytest.raises(SettingsError) as caught:
        Store(url)
    assert f"pip install 'legato[{extra}]'" in str(caught.value)
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["", "turns.db", "oracle://ann:geheim@db/x", "postgresql://ann:geheim@db:port/x", "sqlite+pysqlite:///x"],
)
def test_address_that_is_none_is_one_line_without_it(url: str) -> None:
    with pytest.raises(SettingsError, match=r"^database\.url: expected sqlite:///FILE") as caught:
        Store(url)
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize(
    ("dialect", "expected"),
    [
        ("sqlite", "ON CONFLICT DO NOTHING"),
        ("postgresql", "ON CONFLICT DO NOTHING"),
        ("mysql", "INSERT IGNORE INTO"),
    ],
)
def test_insert_once_in_every_dialect(dialect: str, expected: str) -> None:
    loaded = sa.create_mock_engine(f"{dialect}+{_SYNC[dialect]}://", lambda *_: None).dialect
    assert expected in str(module._INSERT_ONCE[dialect]().compile(dialect=loaded))


_SYNC = {"sqlite": "pysqlite", "postgresql": "asyncpg", "mysql": "asyncmy"}
