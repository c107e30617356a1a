"""Databases of every age and kind become what this version needs, without losing a row."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.dialects import mysql
from sqlalchemy.exc import OperationalError
from sqlalchemy.util import await_only

from legato.worker.replies.reply import Decision
from legato.worker.store import database as databases
from legato.worker.store import revisions
from legato.worker.store.conversations import Store
from legato.worker.store.database import SchemaError
from legato.worker.store.tables import conversations, metadata
from tests.waiting import until
from tests.worker.store.test_store import rows
from tests.worker.support import make_job

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncEngine

OLD = sa.MetaData()
OLD_MESSAGES = sa.Table(  # as 0.1.0 made it, without revisions
    "messages",
    OLD,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True),
    sa.Column("message_id", sa.String(64), nullable=False),
    sa.Column("user_id", sa.String(128), nullable=False),
    sa.Column("session_id", sa.String(64), nullable=False),
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("content", sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql"), nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("stop_reason", sa.String(64)),
    sa.Column("model", sa.String(200)),
    sa.Column("input_tokens", sa.Integer),
    sa.Column("output_tokens", sa.Integer),
    sa.Column("cache_read_tokens", sa.Integer),
    sa.Column("cache_write_tokens", sa.Integer),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    sa.UniqueConstraint("message_id", "role", name="uq_messages_message_role"),
    sa.Index("ix_messages_user_session", "user_id", "session_id", "created_at"),
    mysql_charset="utf8mb4",
)


def old_turn(number: int, user: str, session: str, role: str = "user") -> dict[str, Any]:
    return {
        "message_id": f"m{number}",
        "user_id": user,
        "session_id": session,
        "role": role,
        "content": f"text {number} 😀",
        "status": "complete",
        "model": "claude-x",
        "input_tokens": number,
        "created_at": datetime(2025, 1, 1 + number, tzinfo=UTC),
    }


OLD_TURNS = [
    old_turn(0, "7", "s1"),
    old_turn(1, "7", "s2"),
    old_turn(2, "ann", "s1"),
    old_turn(3, "7", "s1"),
    old_turn(3, "7", "s1", "assistant"),
    old_turn(4, "Ann", "s1"),
]


@pytest.fixture
async def engine(any_database: str) -> AsyncIterator[AsyncEngine]:
    opened = databases.connect(any_database)
    yield opened
    await opened.dispose()


async def make_old(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.run_sync(OLD.create_all)
        await connection.execute(OLD_MESSAGES.insert(), OLD_TURNS)


@pytest.fixture
async def old(any_database: str, engine: AsyncEngine) -> str:
    """A database that a worker without revisions has filled."""
    await make_old(engine)
    return any_database


async def prepare(url: str, *, migrate: bool = True) -> None:
    store = Store(url, migrate=migrate)
    try:
        await store.prepare()
    finally:
        await store.aclose()


async def differences(engine: AsyncEngine) -> list[Any]:
    """Between the database's tables and those that this version uses."""
    # Of a reference that came with its column, SQLAlchemy cannot read what a removal does.
    unseen = {"remove_fk", "add_fk"} if engine.dialect.name == "sqlite" else set()

    def compare(connection: sa.Connection) -> list[Any]:
        options = {"include_name": lambda name, *_: name != revisions.VERSION_TABLE}
        found = compare_metadata(MigrationContext.configure(connection, opts=options), metadata)
        return [change for change in found if change[0] not in unseen]

    async with engine.connect() as connection:
        return await connection.run_sync(compare)


async def assert_upgraded(url: str, engine: AsyncEngine) -> None:
    assert await differences(engine) == []
    turns = await rows(url)
    assert [{name: turn[name] for name in OLD_TURNS[0]} for turn in turns] == [
        {**turn, "created_at": there["created_at"]} for turn, there in zip(OLD_TURNS, turns, strict=True)
    ]
    found = await rows(url, conversations)
    names = {row["id"]: (row["user_id"], row["session_id"]) for row in found}
    assert sorted(names.values()) == [("7", "s1"), ("7", "s2"), ("Ann", "s1"), ("ann", "s1")]
    assert [names[turn["conversation_id"]] for turn in turns] == [
        (turn["user_id"], turn["session_id"]) for turn in OLD_TURNS
    ]
    assert [turn["position"] for turn in turns] == [0, 0, 0, 1, 2, 0]
    (first,) = [row for row in found if names[row["id"]] == ("7", "s1")]
    times = [str(first[name]).removesuffix("+00:00") for name in ("created_at", "updated_at")]
    assert times == ["2025-01-01 00:00:00", "2025-01-04 00:00:00"]


async def test_new_database_has_the_tables_that_are_used(any_database: str, engine: AsyncEngine) -> None:
    await prepare(any_database)
    assert await differences(engine) == []
    assert await revisions.revision(engine) == revisions.REVISIONS[-1]
    async with engine.begin() as connection:
        await connection.execute(sa.text("CREATE INDEX spoilt ON messages (status)"))
    assert await differences(engine)


async def test_old_database_is_upgraded_without_loss(old: str, engine: AsyncEngine) -> None:
    await prepare(old)
    await assert_upgraded(old, engine)


async def test_old_session_goes_on_after_the_upgrade(old: str) -> None:
    store = Store(old)
    await store.prepare()
    await store.save(make_job("further", "m9", session_id="s1"), "x", Decision("end_turn"))
    await store.aclose()
    assert [(row["message_id"], row["position"]) for row in (await rows(old))[-2:]] == [("m9", 3), ("m9", 4)]


async def test_worker_of_the_version_before_goes_on_after_the_upgrade(old: str, engine: AsyncEngine) -> None:
    await prepare(old)
    async with engine.begin() as connection:
        await connection.execute(OLD_MESSAGES.insert(), [old_turn(5, "7", "s1")])
    turn = (await rows(old))[-1]
    assert (turn["message_id"], turn["conversation_id"], turn["position"]) == ("m5", None, None)
    await prepare(old)


async def test_several_that_upgrade_at_once_do_it_once(
    old: str, engine: AsyncEngine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await asyncio.gather(*(prepare(old) for _ in range(4)))
    await assert_upgraded(old, engine)
    said = [record.getMessage() for record in caplog.records if "upgraded" in record.getMessage()]
    assert said == ["database: upgraded from revision none to 0003"]


LOCK_IS_FREE = {
    "sqlite": "SELECT 1",  # it is the transaction that cannot begin
    "postgresql": "SELECT pg_try_advisory_xact_lock(7811887)",
    "mysql": "SELECT IS_FREE_LOCK(CONCAT('legato ', MD5(DATABASE())))",
}


async def may_upgrade(url: str) -> bool:
    """Whether no upgrade keeps another process from beginning one."""
    engine = databases.connect(url)
    try:
        async with engine.connect() as connection:
            return bool(await connection.scalar(sa.text(LOCK_IS_FREE[engine.dialect.name])))
    except OperationalError as error:
        if "database is locked" not in str(error):
            raise
        return False
    finally:
        await engine.dispose()


async def test_upgrade_is_committed_before_another_process_may_begin(
    old: str, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the other does not see the new revision yet, and upgrades once more."""
    monkeypatch.setattr(databases, "SQLITE_BUSY_SECONDS", 0)
    writes = tuple(f"{verb} {revisions.VERSION_TABLE}" for verb in ("INSERT INTO", "UPDATE"))
    upgraded, others_may = False, []

    def note(*arguments: Any) -> None:
        nonlocal upgraded
        upgraded = upgraded or arguments[2].startswith(writes)

    def ask(_: sa.Connection) -> None:
        if upgraded:
            others_may.append(await_only(may_upgrade(old)))

    sa.event.listen(engine.sync_engine, "before_cursor_execute", note)
    sa.event.listen(engine.sync_engine, "commit", ask)
    await revisions.upgrade(engine)
    assert others_may[:1] == [False]
    assert await may_upgrade(old)


BRANCHES_ADDED = (
    "DROP INDEX ix_conversations_listed{of_conversations}",
    "ALTER TABLE conversations DROP COLUMN title",
    "ALTER TABLE messages DROP COLUMN parent_id",
    "UPDATE legato_version SET version_num = '0002'",
)
"""Leads back to the revision before branches."""


async def test_database_from_before_branches_goes_on_as_a_chain(
    any_database: str, engine: AsyncEngine
) -> None:
    store = Store(any_database)
    await store.prepare()
    for number in range(2):
        job = make_job(f"ask {number}", f"m{number}", conversation_id="c1")
        await store.save(job, f"answer {number}", Decision("end_turn"))
    async with engine.begin() as connection:
        of_it = " ON conversations" if engine.dialect.name == "mysql" else ""
        for statement in BRANCHES_ADDED:
            await connection.execute(sa.text(statement.format(of_conversations=of_it)))
    assert await differences(engine)
    await store.prepare()
    assert await differences(engine) == []
    assert {row["parent_id"] for row in await rows(any_database)} == {None}
    job = make_job("and?", "m2", conversation_id="c1")
    told = (await store.with_history(job)).history
    assert [turn.content for turn in told] == ["ask 0", "answer 0", "ask 1", "answer 1"]
    await store.save(job, "x", Decision("end_turn"))
    assert [row["parent_id"] for row in (await rows(any_database))[-2:]] == ["m1", "m2"]
    assert [row["title"] for row in await rows(any_database, conversations)] == ["ask 0"]
    await store.aclose()


class CrashError(Exception):
    pass


async def test_upgrade_that_broke_off_anywhere_is_completed_by_the_next(
    old: str, engine: AsyncEngine
) -> None:
    """MySQL cannot take back what it did before the crash; the others do."""
    crashes, survived = 0, False
    while not survived:
        crashes += 1
        left = crashes

        def crash(*arguments: Any) -> None:
            nonlocal left
            if arguments[2].lstrip().startswith(("ALTER", "CREATE", "INSERT", "UPDATE")):
                left -= 1
            if not left:
                raise CrashError

        sa.event.listen(engine.sync_engine, "before_cursor_execute", crash)
        try:
            await revisions.upgrade(engine)
            survived = True
        except CrashError:
            pass
        sa.event.remove(engine.sync_engine, "before_cursor_execute", crash)
        await engine.dispose()
    assert crashes > 5
    await assert_upgraded(old, engine)


async def test_not_allowed_to_change_tables_it_says_what_to_run(any_database: str) -> None:
    with pytest.raises(SchemaError, match=r"^it has no tables of Legato, .* run `legato migrate`$"):
        await prepare(any_database, migrate=False)
    await prepare(any_database)
    await prepare(any_database, migrate=False)


async def test_not_allowed_to_change_tables_it_names_the_revision(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await prepare(database)
    monkeypatch.setattr(revisions, "REVISIONS", (*revisions.REVISIONS, "0004"))
    with pytest.raises(SchemaError, match=r"^it is at revision 0003, revision 0004 is needed"):
        await prepare(database, migrate=False)


async def test_database_of_a_newer_version_is_used_as_it_is(
    any_database: str, engine: AsyncEngine, caplog: pytest.LogCaptureFixture
) -> None:
    await prepare(any_database)
    async with engine.begin() as connection:
        await connection.execute(sa.text("UPDATE legato_version SET version_num = '9999'"))
    await prepare(any_database)
    await prepare(any_database, migrate=False)
    assert "newer version of Legato (revision 9999)" in caplog.text
    assert await revisions.revision(engine) == "9999"


@pytest.mark.parametrize("name", ["messages", "conversations"])
async def test_tables_of_somebody_else_are_left_alone(
    any_database: str, engine: AsyncEngine, name: str
) -> None:
    async with engine.begin() as connection:
        await connection.execute(sa.text(f"CREATE TABLE {name} (id INTEGER, body VARCHAR(9))"))
    reason = f"^it has a table {name} that is not Legato's: give Legato a database of its own$"
    with pytest.raises(SchemaError, match=reason):
        await prepare(any_database)
    async with engine.connect() as connection:
        columns = await connection.run_sync(lambda sync: sa.inspect(sync).get_columns(name))
    assert [column["name"] for column in columns] == ["id", "body"]


async def test_long_upgrade_by_another_process_is_waited_for(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(databases, "SQLITE_BUSY_SECONDS", 0.05)
    monkeypatch.setattr(revisions, "SQLITE_UPGRADE_ATTEMPTS", 10**6)
    other = sqlite3.connect(tmp_path / "turns.db", isolation_level=None)
    other.execute("PRAGMA journal_mode=WAL")
    other.execute("BEGIN IMMEDIATE")
    begun, begin = [], databases._begin_sqlite

    def note(connection: sa.Connection) -> None:
        begun.append(connection)
        begin(connection)

    monkeypatch.setattr(databases, "_begin_sqlite", note)
    engine = databases.connect(database)
    task = asyncio.create_task(revisions.upgrade(engine))
    await until(lambda: len(begun) >= 3)
    other.execute("ROLLBACK")
    other.close()
    await task
    assert await revisions.revision(engine) == revisions.REVISIONS[-1]
    await engine.dispose()


async def test_waiting_for_another_process_ends(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(databases, "SQLITE_BUSY_SECONDS", 0.01)
    monkeypatch.setattr(revisions, "SQLITE_UPGRADE_ATTEMPTS", 2)
    other = sqlite3.connect(tmp_path / "turns.db", isolation_level=None)
    other.execute("PRAGMA journal_mode=WAL")
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(OperationalError, match="database is locked"):
        await prepare(database)
    other.execute("ROLLBACK")
    other.close()


def test_revisions_are_those_that_there_are() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(revisions.__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    script = ScriptDirectory.from_config(config)
    assert [step.revision for step in script.walk_revisions()][::-1] == [*revisions.REVISIONS]


def test_database_that_is_up_to_date_needs_no_alembic(database: str) -> None:
    asyncio.run(prepare(database))
    code = f"""
import asyncio, sys
from legato.worker.store.conversations import Store
asyncio.run(Store({database!r}).prepare())
print("alembic" in sys.modules, "sqlalchemy" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False True\n"
