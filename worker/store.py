"""Finished turns in a database: SQLite by default, PostgreSQL or MySQL by URL.

A turn is written once: its message id and role are unique, and a second write of the same turn is ignored.
"""

from __future__ import annotations

import asyncio
import sqlite3
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql, sqlite
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

from protocol.settings import SettingsError
from protocol.stream import Usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from protocol.stream import Job

    from .reply import Decision

BUSY_SECONDS: Final = 5.0
"""How long SQLite waits for another process's write."""

FAULTS: Final = (SQLAlchemyError, sqlite3.Error, OSError)
"""What a database raises, whatever is wrong."""

_DOWN: Final = (OperationalError, InterfaceError, PoolTimeoutError, sqlite3.OperationalError, OSError)
_DOWN_STATES: Final = frozenset({"08", "25", "28", "40", "53", "55", "57", "58"})
"""Classes of SQLSTATE that are not about the row. asyncpg tells most of its errors apart by nothing else.

https://www.postgresql.org/docs/current/errcodes-appendix.html
"""


class UnavailableError(Exception):
    """The database cannot be used now. One line, without the statement and its values."""


class RefusedError(Exception):
    """The database will never take these turns. One line, as in :class:`UnavailableError`."""


metadata: Final = sa.MetaData()

# MySQL's TEXT ends at 64 KB, and its default character set may not know emoji.
_LONG_TEXT: Final = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql")

messages: Final = sa.Table(
    "messages",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True),
    sa.Column("message_id", sa.String(64), nullable=False),
    sa.Column("user_id", sa.String(128), nullable=False),
    sa.Column("session_id", sa.String(64), nullable=False),
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("content", _LONG_TEXT, nullable=False),
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
"""One row per turn. ``role`` is user or assistant; ``status`` is complete, failed or cancelled."""

_INSERT_ONCE: Final[dict[str, Callable[[], Any]]] = {
    "sqlite": lambda: sqlite.insert(messages).on_conflict_do_nothing(),
    "postgresql": lambda: postgresql.insert(messages).on_conflict_do_nothing(),
    "mysql": lambda: mysql.insert(messages).prefix_with("IGNORE"),
}

_DRIVERS: Final = {
    "sqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "mysql": "mysql+asyncmy",
    "mariadb": "mysql+asyncmy",
}
_EXTRAS: Final = {"postgresql": "postgres", "mysql": "mysql"}


class Store:
    """The database of one process.

    :raises SettingsError: ``url`` is not one, or its driver is not installed. The text never holds ``url``.
    """

    def __init__(self, url: str) -> None:
        self._engine = _engine(url)
        self._insert = _INSERT_ONCE[self._engine.dialect.name]

    async def prepare(self) -> None:
        """Create what is missing. Several processes may do so at once.

        :raises FAULTS: one of these when the database cannot be used.
        """
        if self._engine.dialect.name == "sqlite":
            await asyncio.to_thread(_probe_sqlite, self._engine.url.database or "")
        for tries_left in (4, 3, 2, 1, 0):
            try:
                async with self._engine.begin() as connection:
                    await connection.run_sync(metadata.create_all)
            except (
                SQLAlchemyError
            ):  # may be another process that was faster: then the next look finds all there
                if not tries_left:
                    raise
                await asyncio.sleep(0.1)
            else:
                return

    async def save(self, job: Job, text: str, decision: Decision) -> None:
        """Keep both turns of a message, in one transaction; nothing happens to those that are there.

        :raises UnavailableError: try again later.
        :raises RefusedError: do not.
        """
        rows = [_user_turn(job), _assistant_turn(job, text, decision)]
        try:
            async with self._engine.begin() as connection:
                await connection.execute(self._insert(), rows)
        except FAULTS as error:
            kind = UnavailableError if _is_down(error) else RefusedError
            raise kind(reason(error)) from None  # the cause's text holds what people wrote

    async def aclose(self) -> None:
        """Close all connections."""
        await self._engine.dispose()


def reason(error: BaseException) -> str:
    """Why the database cannot be used, in one line, without the statement and its values."""
    cause = getattr(error, "orig", None) or error
    return " ".join(str(cause).split()) or type(cause).__name__


def _is_down(error: Exception) -> bool:
    """Whether the same statement may succeed later; otherwise it is at fault itself."""
    original = getattr(error, "orig", None)
    if isinstance(original and original.__cause__, ValueError):  # asyncpg calls a bad value InterfaceError
        return False
    state = str(getattr(original, "sqlstate", None))
    invalidated = isinstance(error, DBAPIError) and error.connection_invalidated
    return invalidated or isinstance(error, _DOWN) or state[:2] in _DOWN_STATES


def _user_turn(job: Job) -> dict[str, Any]:
    return {
        **_turn(job, "user", job.message),
        **_no_model,
        "status": "complete",
        "created_at": datetime.fromtimestamp(min(job.queued_at, _LAST_MS) / 1000, UTC),
    }


def _assistant_turn(job: Job, text: str, decision: Decision) -> dict[str, Any]:
    usage = decision.usage or Usage()
    return {
        **_turn(job, "assistant", text),
        "status": decision.state,
        "stop_reason": decision.stop_reason,
        "model": decision.model,
        "input_tokens": usage.input,
        "output_tokens": usage.output,
        "cache_read_tokens": usage.cache_read,
        "cache_write_tokens": usage.cache_write,
        "created_at": datetime.now(UTC),
    }


def _turn(job: Job, role: str, content: str) -> dict[str, Any]:
    return {
        "message_id": job.message_id,
        "user_id": str(job.user_id),
        "session_id": job.session_id or job.message_id,
        "role": role,
        "content": content.replace("\0", ""),  # PostgreSQL's text cannot hold it
    }


_LAST_MS: Final = 253_402_300_799_000  # of the year 9999: other programs may put any number into a job
_no_model: Final = dict.fromkeys(
    ("stop_reason", "model", "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
)


def _engine(url: str) -> AsyncEngine:
    scheme, separator, rest = url.partition("://")
    try:
        address = sa.make_url(f"{_DRIVERS.get(scheme, scheme)}{separator}{rest}")
        dialect = address.get_backend_name()
        if dialect not in _INSERT_ONCE:
            raise NoSuchModuleError  # noqa: TRY301 - answered like any other address that is none
        engine = create_async_engine(address, pool_pre_ping=dialect != "sqlite")
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get(dialect, dialect)
        reason = f"the driver {error.name} is not installed: pip install 'legato[{extra}]'"
        raise SettingsError(f"database.url: {reason}") from None
    except (ArgumentError, InvalidRequestError, NoSuchModuleError, ValueError):
        expected = "sqlite:///FILE, postgresql://USER:PASSWORD@HOST/NAME or mysql://..."
        raise SettingsError(f"database.url: expected {expected}") from None
    if dialect == "sqlite":
        sa.event.listen(engine.sync_engine, "connect", _prepare_sqlite)
    return engine


def _probe_sqlite(path: str) -> None:
    """Open the file once without aiosqlite, whose thread complains on stderr after a failed open."""
    sqlite3.connect(path).close()


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    """Writers wait for each other (first, for the switch to WAL may have to wait too), readers for nobody."""
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={round(BUSY_SECONDS * 1000)}")
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.close()
