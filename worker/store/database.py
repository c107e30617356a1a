"""The database connection: URL, dialect options, and classification of errors."""

from __future__ import annotations

import logging
import sqlite3
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    InterfaceError,
    InvalidRequestError,
    NoSuchModuleError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from legato.protocol import databases
from legato.protocol.settings import SettingsError
from legato.worker.limits import SQLITE_BUSY_SECONDS

if TYPE_CHECKING:
    from collections.abc import Mapping


class SchemaError(Exception):
    """The database does not have the required tables. One line for the user."""


FAULTS: Final = (SQLAlchemyError, sqlite3.Error, OSError, SchemaError)
"""Everything that database calls raise."""

_DOWN: Final = (OperationalError, InterfaceError, PoolTimeoutError, sqlite3.OperationalError, OSError)
_DOWN_STATES: Final = frozenset({"08", "25", "28", "40", "53", "55", "57", "58"})
"""SQLSTATE classes of errors that the row did not cause. asyncpg distinguishes most errors only by these.

https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

_OPTIONS: Final[Mapping[str, Mapping[str, Any]]] = {
    "sqlite": {},
    "postgresql": {"pool_pre_ping": True},
    # The default isolation level takes gap locks, on which concurrent inserts deadlock.
    "mysql": {"pool_pre_ping": True, "isolation_level": "READ COMMITTED"},
}


def connect(url: str, *, read_only: bool = False) -> AsyncEngine:
    """An engine for ``url``, which opens nothing yet.

    :param read_only: never change a file of SQLite: neither create it nor set its journal mode.
    :raises SettingsError: ``url`` is not an address, or its driver is not installed. The text never holds it.
    """
    try:
        address = sa.make_url(databases.with_driver(url))
        dialect = address.get_backend_name()
        keeps = read_only and bool(sqlite_file(address))
        engine = create_async_engine(_read_only(address) if keeps else address, **_OPTIONS[dialect])
    except ModuleNotFoundError as error:
        raise SettingsError(f"database.url: {databases.not_installed(str(error.name))}") from None
    except (ArgumentError, InvalidRequestError, NoSuchModuleError, ValueError):
        raise SettingsError(f"database.url: {databases.EXPECTED}") from None
    logging.getLogger("asyncmy").setLevel(logging.ERROR)  # the server's warnings may contain row data
    if dialect == "sqlite" and not keeps:
        _listen_to_sqlite(engine.sync_engine)
    return engine


def sqlite_file(address: sa.URL) -> str:
    """The path of SQLite's file; empty for another database, one in memory, and an address as a URI."""
    name = address.database or ""
    return "" if address.get_backend_name() != "sqlite" or name.startswith((":", "file:")) else name


def _read_only(address: sa.URL) -> sa.URL:
    """See https://www.sqlite.org/uri.html."""
    return address.set(database=f"file:{quote(address.database or '')}", query={"mode": "ro", "uri": "true"})


def connect_sqlite(address: sa.URL) -> sa.Engine:
    """A synchronous engine for SQLite's file, which opens nothing yet."""
    engine = sa.create_engine(address.set(drivername="sqlite"), **_OPTIONS["sqlite"])
    _listen_to_sqlite(engine)
    return engine


def _listen_to_sqlite(engine: sa.Engine) -> None:
    sa.event.listen(engine, "connect", _prepare_sqlite)
    sa.event.listen(engine, "begin", _begin_sqlite)


def probe(engine: AsyncEngine) -> None:
    """Open SQLite's file once without aiosqlite, whose thread writes to stderr after a failed open.

    It blocks.

    :raises sqlite3.Error: it cannot be opened.
    """
    if engine.dialect.name == "sqlite":
        query = "?mode=ro" if "mode" in engine.url.query else ""
        sqlite3.connect(f"{engine.url.database or ''}{query}", uri=bool(query)).close()


def is_down(error: Exception) -> bool:
    """Whether the same statement may succeed later; otherwise the statement or its row is at fault."""
    original = getattr(error, "orig", None)
    if isinstance(original and original.__cause__, ValueError):  # asyncpg calls a bad value InterfaceError
        return False
    state = str(getattr(original, "sqlstate", None))
    invalidated = isinstance(error, DBAPIError) and error.connection_invalidated
    return invalidated or isinstance(error, _DOWN) or state[:2] in _DOWN_STATES


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    """Set WAL, with which readers never wait. The timeout comes first: the switch to WAL may wait, too."""
    connection.isolation_level = None  # the driver's implicit BEGIN comes late, and never before DDL
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={round(SQLITE_BUSY_SECONDS * 1000)}")
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _begin_sqlite(connection: sa.Connection) -> None:
    """Take the write lock at once: a transaction that reads first cannot wait for it later."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")
