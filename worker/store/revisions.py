"""Upgrades the tables of a database to those in :mod:`.tables`. Safe to run in several processes at once.

A revision only adds, so that workers of the previous version continue while those of the next one start.
"""

from __future__ import annotations

import logging
import sqlite3
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from legato.worker.limits import SQLITE_UPGRADE_ATTEMPTS

from .database import SchemaError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

log: Final = logging.getLogger("legato.worker")

T = TypeVar("T")

REVISIONS: Final = ("0001", "0002", "0003")
"""All revisions, oldest first. Listed here so that a check does not import Alembic."""

VERSION_TABLE: Final = "legato_version"

# MySQL's lock is one of the whole server; its name has 64 characters at most.
_LOCKS: Final = {
    "postgresql": ("SELECT pg_advisory_xact_lock(7811887)", ""),
    "mysql": (
        "SELECT GET_LOCK(CONCAT('legato ', MD5(DATABASE())), 3600)",
        "SELECT RELEASE_LOCK(CONCAT('legato ', MD5(DATABASE())))",
    ),
}
"""Statements that acquire a lock across processes, and release it after the commit.

PostgreSQL's lock ends with the transaction; SQLite needs none, because its transaction is one.
"""

_version: Final = sa.table(VERSION_TABLE, sa.column("version_num", sa.String))


async def revision(engine: AsyncEngine) -> str:
    """The database's revision, empty for none.

    :raises FAULTS: one of :data:`legato.worker.store.database.FAULTS`.
    """
    return await _with_retries(engine.begin, _revision)


async def check(engine: AsyncEngine) -> None:
    """Check that the tables are up to date.

    :raises FAULTS: :class:`SchemaError` if they are not, or another of :data:`.database.FAULTS`.
    """
    found = await revision(engine)
    if _is_outdated(found):
        there = f"is at revision {found}" if found else "has no tables of Legato"
        raise SchemaError(f"it {there}, revision {REVISIONS[-1]} is needed: run `legato migrate`")


async def upgrade(engine: AsyncEngine) -> None:
    """Run the missing revisions. Several processes may do so at once.

    :raises FAULTS: as :func:`check`; :class:`SchemaError` for foreign tables of the same names.
    """
    if _is_outdated(await revision(engine)):
        await _with_retries(partial(_locked, engine), _upgrade)


async def _with_retries(
    begin: Callable[[], AbstractAsyncContextManager[AsyncConnection]],
    work: Callable[[AsyncConnection], Awaitable[T]],
) -> T:
    for tries_left in reversed(range(SQLITE_UPGRADE_ATTEMPTS)):
        try:
            async with begin() as connection:
                return await work(connection)
        except OperationalError as error:
            if getattr(error.orig, "sqlite_errorcode", None) != sqlite3.SQLITE_BUSY or not tries_left:
                raise
    raise AssertionError("the last try answers or raises")


async def _revision(connection: AsyncConnection) -> str:
    if not await connection.run_sync(lambda sync: sa.inspect(sync).has_table(VERSION_TABLE)):
        return ""
    return await connection.scalar(sa.select(_version.c.version_num)) or ""


def _is_outdated(found: str) -> bool:
    if found and found not in REVISIONS:
        log.warning("the database is of a newer version of Legato (revision %s)", found)
        return False
    return found != REVISIONS[-1]


async def _upgrade(connection: AsyncConnection) -> None:
    found = await _revision(connection)
    if _is_outdated(found):
        await connection.run_sync(_run_revisions)
        log.info("database: upgraded from revision %s to %s", found or "none", REVISIONS[-1])


@asynccontextmanager
async def _locked(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A transaction during which no other process upgrades.

    MySQL's lock is released after the commit. Otherwise the next process would not see the new revision yet,
    and would run it again.
    """
    acquire, release = _LOCKS.get(engine.dialect.name, ("", ""))
    async with engine.connect() as connection:
        try:
            async with connection.begin():
                if acquire:
                    await connection.execute(sa.text(acquire))
                yield connection
        finally:
            if release:
                await connection.execute(sa.text(release))


def _run_revisions(connection: sa.Connection) -> None:
    logging.getLogger("alembic").setLevel(logging.WARNING)  # it logs its import and every start
    from alembic import command  # noqa: PLC0415 - it is needed once in a database's life
    from alembic.config import Config  # noqa: PLC0415
    from alembic.util import CommandError  # noqa: PLC0415

    config = Config(attributes={"connection": connection, "version_table": VERSION_TABLE})
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise SchemaError(str(error)) from None
