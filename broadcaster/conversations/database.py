"""The connections to the database of conversations: few, opened when they are needed, with time limits."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, InvalidRequestError, NoSuchModuleError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from legato.broadcaster.database_limits import (
    CONVERSATIONS_CLOSE_SECONDS,
    CONVERSATIONS_CONNECTIONS,
    CONVERSATIONS_SECONDS,
)
from legato.protocol import databases
from legato.protocol.settings import SettingsError

from .records import DatabaseDownError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy.ext.asyncio import AsyncEngine

T = TypeVar("T")

logger: Final = logging.getLogger("legato.chat")

_POOL: Final = {
    "pool_size": CONVERSATIONS_CONNECTIONS,
    "max_overflow": 0,
    "pool_pre_ping": True,
    "pool_recycle": 1800,
}
_OPTIONS: Final[Mapping[str, Mapping[str, Any]]] = {
    # A file is opened for each request: it may be replaced, and an idle thread for each costs more.
    "sqlite": {"poolclass": NullPool, "connect_args": {"timeout": CONVERSATIONS_SECONDS}},
    "postgresql": _POOL,
    # The default isolation level takes gap locks, on which a worker that stores a turn could deadlock.
    "mysql": {**_POOL, "isolation_level": "READ COMMITTED"},
}


class ConversationDatabase:
    """A database that need not be there: every call may fail, and the next one tries again.

    :raises SettingsError: the URL is invalid, or its driver is not installed. The text omits the URL.
    """

    def __init__(self, url: str) -> None:
        self._engine = _engine(url)
        self._places = asyncio.Semaphore(CONVERSATIONS_CONNECTIONS)

    async def run(self, work: Callable[[sa.Connection], T]) -> T:
        """Run ``work`` in a transaction: committed when it returns, rolled back when it raises.

        :raises DatabaseDownError: it has failed, or takes too long.
        """
        try:
            async with asyncio.timeout(CONVERSATIONS_SECONDS), self._places:
                return await self._run(work)
        except TimeoutError:
            reason = f"no answer within {CONVERSATIONS_SECONDS:g} s"
        except Exception as error:  # noqa: BLE001 - drivers raise errors of their own
            reason = databases.reason(error)
        logger.warning("the database of conversations cannot be used: %s", reason)
        raise DatabaseDownError from None  # the cause may contain the URL, or what people wrote

    async def _run(self, work: Callable[[sa.Connection], T]) -> T:
        if self._engine.dialect.name == "sqlite":
            await asyncio.to_thread(_probe_sqlite, self._engine.url.database or "")
        async with self._engine.begin() as connection:
            return await connection.run_sync(work)

    async def close(self) -> None:
        """Close all connections."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CONVERSATIONS_CLOSE_SECONDS):
                await self._engine.dispose()


def _engine(url: str) -> AsyncEngine:
    try:
        address = sa.make_url(databases.with_driver(url))
        engine = create_async_engine(address, **_OPTIONS[address.get_backend_name()])
    except ModuleNotFoundError as error:
        reason = databases.not_installed(error.name or "of the address")
    except (ArgumentError, InvalidRequestError, NoSuchModuleError, ValueError):
        reason = databases.EXPECTED
    else:
        logging.getLogger("asyncmy").setLevel(logging.ERROR)  # the server's warnings may contain row data
        return engine
    raise SettingsError(f"chat.database_url: {reason}")


def _probe_sqlite(path: str) -> None:
    """Test that the file exists: aiosqlite would create it, or its thread log errors to stderr."""
    if not path.startswith("file:"):
        path = f"file:{quote(path)}?mode=rw"
    sqlite3.connect(path, uri=True).close()
