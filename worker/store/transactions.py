"""Runs transactions: one function each, over a synchronous connection.

SQLAlchemy's asynchronous SQLite driver hands every statement to a thread and back. That costs more than the
statements, so here the whole transaction runs in one thread of the process. The other drivers are
asynchronous by nature, and SQLAlchemy runs the same function over them.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from . import database

if TYPE_CHECKING:
    from collections.abc import Callable

    import sqlalchemy as sa
    from sqlalchemy.ext.asyncio import AsyncEngine

T = TypeVar("T")


class Transactions(Protocol):
    """The transactions of one database."""

    async def run(self, work: Callable[[sa.Connection], T]) -> T:
        """Run ``work`` in a transaction: committed when it returns, rolled back when it raises.

        If the caller is cancelled, the transaction may be committed all the same.

        :raises FAULTS: one of :data:`legato.worker.store.database.FAULTS`.
        """

    async def aclose(self) -> None:
        """Close all connections."""


def of(engine: AsyncEngine) -> Transactions:
    """The transactions of the database that ``engine`` is for."""
    return SqliteTransactions(engine) if engine.dialect.name == "sqlite" else ServerTransactions(engine)


class ServerTransactions:
    """Of a database server."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def run(self, work: Callable[[sa.Connection], T]) -> T:
        """See :meth:`Transactions.run`."""
        async with self._engine.begin() as connection:
            return await connection.run_sync(work)

    async def aclose(self) -> None:
        """See :meth:`Transactions.aclose`."""
        await self._engine.dispose()


class SqliteTransactions:
    """Of a file, one after the other: SQLite has one writer at a time anyway."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._asynchronous = engine
        self._engine = database.connect_sqlite(engine.url)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="legato-sqlite")

    async def run(self, work: Callable[[sa.Connection], T]) -> T:
        """See :meth:`Transactions.run`."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._run, work)

    def _run(self, work: Callable[[sa.Connection], Any]) -> Any:
        with self._engine.begin() as connection:
            return work(connection)

    async def aclose(self) -> None:
        """See :meth:`Transactions.aclose`."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._engine.dispose)
        self._thread.shutdown(wait=False)
        await self._asynchronous.dispose()
