"""Everything of redis-py that Legato uses beyond its documented interface. No other module uses any.

redis-py may change these with any release. ``tests/protocol/redis/test_internals.py`` asks for each by
:func:`missing` and names what is gone. The names of redis-py start with an underscore here and nowhere else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from redis._parsers.hiredis import NOT_ENOUGH_DATA
from redis.asyncio import BlockingConnectionPool
from redis.asyncio.client import Pipeline
from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    DefaultParser,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.exceptions import ConnectionError as LostError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator, Mapping

    import hiredis

__all__ = ["NOT_ENOUGH_DATA", "ConnectionInternals", "Parser", "missing", "reader_of", "streams_of"]

USED: Final[Mapping[type, tuple[str, ...]]] = {
    AbstractConnection: (
        *("_connect", "_parser", "_reader", "_send_packed_command", "_writer"),
        *(
            "can_read",
            "check_health",
            "connect",
            "disconnect",
            "mark_for_reconnect",
            "on_connect_check_health",
        ),
        *("pack_command", "pack_commands", "read_response", "send_command", "send_packed_command"),
        *("is_connected", "should_reconnect"),
    ),
    Connection: ("_connect",),
    SSLConnection: ("_connect",),
    UnixDomainSocketConnection: ("_connect",),
    BlockingConnectionPool: ("make_connection",),
    DefaultParser: ("EXCEPTION_CLASSES", "_reader"),
    Pipeline: ("execute", "execute_command", "raise_first_error"),
}
"""Class -> attributes. Those with an underscore are private, the others are undocumented."""

OF_A_CONNECTION: Final = ("host", "port", "retry", "socket_timeout")
"""Attributes of each connection, which its class need not have."""

OF_A_PIPELINE: Final = (
    *("command_stack", "explicit_transaction", "is_transaction", "response_callbacks", "scripts", "watching"),
)
"""Attributes of each pipeline, which its class need not have."""


class Parser(DefaultParser):  # type: ignore[misc, valid-type] # which one it is depends on hiredis
    """redis-py's parser, for subclasses with further ``EXCEPTION_CLASSES``."""


class ConnectionInternals(AbstractConnection):
    """Access to what a connection hides. To be combined with one of redis-py's classes of connections."""

    write = AbstractConnection._send_packed_command  # noqa: SLF001
    """Coroutine: send packed commands, without the timer and the task of ``send_packed_command``."""

    async def locate(self) -> None:
        """Called before each attempt to connect, so that ``host`` and ``port`` can be set."""

    async def _connect(self) -> None:
        await self.locate()
        await super()._connect()  # type: ignore[no-untyped-call, safe-super] # beside a connection

    def is_cut(self) -> bool:
        """Whether the transport is closed or about to be."""
        return self._writer is None or self._writer.transport.is_closing()

    def buffered(self) -> Iterator[Any]:
        """The replies that were read together with the last one, errors as they are."""
        gets = reader_of(self).gets
        while (reply := gets()) is not NOT_ENOUGH_DATA:
            yield reply


def reader_of(connection: AbstractConnection) -> hiredis.Reader:
    """The parser of a connected connection."""
    reader: hiredis.Reader = cast("Any", connection)._parser._reader  # noqa: SLF001
    return reader


def streams_of(connection: AbstractConnection) -> tuple[asyncio.StreamReader, asyncio.Transport]:
    """The stream that a connected connection reads, and the transport below it.

    :raises LostError: it is not connected.
    """
    reader, writer = connection._reader, connection._writer  # noqa: SLF001
    if reader is None or writer is None:
        raise LostError("the connection is closed")
    return reader, cast("asyncio.Transport", writer.transport)


def missing(used: Mapping[type, tuple[str, ...]] = USED) -> list[str]:
    """The attributes that this redis-py lacks, as ``Class.attribute``."""
    things: list[tuple[str, object, tuple[str, ...]]] = [
        *((kind.__name__, kind, names) for kind, names in used.items()),
        ("Connection", Connection(), OF_A_CONNECTION),
        ("Pipeline", Pipeline(None, {}, False, None), OF_A_PIPELINE),  # type: ignore[arg-type]
    ]
    return [f"{kind}.{name}" for kind, thing, names in things for name in names if not hasattr(thing, name)]
