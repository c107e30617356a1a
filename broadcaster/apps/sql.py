"""Reads applications from a database table: one row per application, one column per field.

The table belongs to the user: it is only read, and may have further columns.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, get_origin
from urllib.parse import quote

import msgspec
import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, InvalidRequestError, NoSuchModuleError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from legato.broadcaster.database_limits import (
    APP_TABLE_CLOSE_SECONDS,
    APP_TABLE_MAX_ROWS,
    APP_TABLE_READ_SECONDS,
)
from legato.broadcaster.limits import APP_CHECKS_PER_TURN
from legato.protocol import databases
from legato.protocol.apps import App
from legato.protocol.databases import DatabaseUrlError
from legato.protocol.settings import SettingsError

from .source import UnreadableError

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy.ext.asyncio import AsyncEngine

    from legato.broadcaster.config import AppSource

    Row = tuple[tuple[str, ...], tuple[Any, ...]]
    """Column names, the required ones first, and their values."""

logger: Final = logging.getLogger("legato.apps")

REQUIRED: Final = ("id", "key", "secret")

JSON_COLUMNS: Final = frozenset(
    field.name for field in msgspec.structs.fields(App) if get_origin(field.type) in (tuple, dict)
)
"""Fields whose values are JSON in SQL."""

_FIELDS: Final = frozenset(field.encode_name for field in msgspec.structs.fields(App))

# PostgreSQL: a cached statement would fail after a column is added; JSON is decoded only if it has changed.
_OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "sqlite": {"poolclass": NullPool},  # reopened per poll: the file may be replaced
    "postgresql": {"connect_args": {"prepared_statement_cache_size": 0}, "json_deserializer": str},
}
_POOLED: Final = {"pool_size": 1, "max_overflow": 0, "pool_pre_ping": True, "pool_recycle": 1800}


class AppTable:
    """The table ``app_source.database_table`` as a :class:`~legato.broadcaster.apps.source.AppStore`.

    :raises SettingsError: the URL is invalid, or its driver is not installed. The text omits the URL.
    """

    def __init__(self, source: AppSource) -> None:
        self.name = source.database_table
        self._engine = _engine(source.database_url)
        schema, _, table = self.name.rpartition(".")
        self._query: sa.Select[Any] = (
            sa.select(sa.literal_column("*"))
            .select_from(sa.table(table, schema=schema or None))
            .limit(APP_TABLE_MAX_ROWS + 1)
        )
        self._ignored: frozenset[str] = frozenset()

    async def read(self) -> list[tuple[str, Row]]:
        """See :class:`~legato.broadcaster.apps.source.AppStore`."""
        try:
            async with asyncio.timeout(APP_TABLE_READ_SECONDS):
                rows = await self._fetched()
        except UnreadableError:
            raise
        except TimeoutError:
            raise UnreadableError(f"no answer within {APP_TABLE_READ_SECONDS:g} s") from None
        except Exception as error:  # noqa: BLE001 - drivers raise errors of their own
            raise UnreadableError(databases.reason(error)) from None  # the cause may contain the URL
        if len(rows) > APP_TABLE_MAX_ROWS:
            raise UnreadableError(f"more than {APP_TABLE_MAX_ROWS} rows")
        return [(str(row[1][0]), row) for row in rows]

    async def _fetched(self) -> list[Row]:
        """Read the rows in parts, and let the event loop run in between."""
        if self._engine.dialect.name == "sqlite":
            await asyncio.to_thread(_probe_sqlite, self._engine.url.database or "")
        rows: list[Row] = []
        async with self._engine.connect() as connection, connection.stream(self._query) as result:
            columns = list(result.keys())
            self._check_columns(columns)
            used = (*REQUIRED, *sorted(_FIELDS.intersection(columns).difference(REQUIRED)))
            values = itemgetter(*map(columns.index, used))
            async for part in result.partitions(APP_CHECKS_PER_TURN):
                rows += [(used, values(row)) for row in part]
        return rows

    def _check_columns(self, columns: Collection[str]) -> None:
        """Check the required columns. Log unknown ones once: they may be misspelt."""
        for name in REQUIRED:
            if name not in columns:
                raise UnreadableError(f"there is no column {name!r}")
        ignored = frozenset(columns) - _FIELDS
        if ignored - self._ignored:
            logger.info("%s: ignored columns without a setting: %s", self.name, ", ".join(sorted(ignored)))
        self._ignored = ignored

    def app(self, content: Row) -> App:
        """See :class:`~legato.broadcaster.apps.source.AppStore`. NULL means the default."""
        columns = zip(*content, strict=True)
        values = {name: _value(name, value) for name, value in columns if value is not None}
        return msgspec.convert(values, App, strict=False)  # MySQL and SQLite have 0 and 1 for booleans

    async def close(self) -> None:
        """See :class:`~legato.broadcaster.apps.source.AppStore`."""
        logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)  # a failed close is harmless
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(APP_TABLE_CLOSE_SECONDS):
                await self._engine.dispose()


def _value(name: str, value: Any) -> Any:
    """Convert a column's value: decode JSON, and turn an id that is a number or a UUID into text."""
    if name in JSON_COLUMNS and isinstance(value, (str, bytes)):
        try:
            return msgspec.json.decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{name}: {error}") from error
    if name in REQUIRED and not isinstance(value, (str, bytes)):
        return str(value)
    return value


def _engine(url: str) -> AsyncEngine:
    try:
        address = sa.make_url(databases.with_driver(url))
        options = _OPTIONS.get(address.get_backend_name(), {})
        if "poolclass" not in options:
            options = options | _POOLED
        return create_async_engine(address, **options)
    except ModuleNotFoundError as error:
        reason = databases.not_installed(error.name or "of the address")
    except DatabaseUrlError as error:
        reason = str(error)
    except (ArgumentError, InvalidRequestError, NoSuchModuleError, ValueError):
        reason = databases.EXPECTED
    raise SettingsError(f"app_source.database_url: {reason}")


def _probe_sqlite(path: str) -> None:
    """Test that the file exists: aiosqlite would create it, or its thread log errors to stderr."""
    if not path.startswith("file:"):
        path = f"file:{quote(path)}?mode=rw"
    sqlite3.connect(path, uri=True).close()
