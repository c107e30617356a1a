"""Passes the replies on one Redis connection to a callback as soon as they are read.

redis-py returns replies one by one: each batch would go through a stream's buffer, a future, a turn of the
loop and half a dozen coroutines. Here it goes straight from the transport to the parser and the callback.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

from redis.exceptions import ConnectionError as LostError

from legato.broadcaster.limits import PUBSUB_READ_PAUSE_BYTES
from legato.protocol.redis.internals import NOT_ENOUGH_DATA, reader_of, streams_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import hiredis
    from redis.asyncio.connection import AbstractConnection

    Gets = Callable[[], Any]

__all__ = ["NOT_ENOUGH_DATA", "listen"]


async def listen(connection: AbstractConnection, hear: Callable[[Gets], None]) -> None:
    """Read until the connection is lost, and raise the reason.

    :param connection: connected, with no command in flight. Nothing else can read from it afterwards.
    :param hear: called with a function that returns the next reply (an error is returned, not raised), and
        :data:`NOT_ENOUGH_DATA` after the last one.
    """
    stream, transport = streams_of(connection)
    if stream.at_eof() or transport.is_closing():  # the transport does not report this again
        raise LostError("the server has closed the connection")
    reading = _ReplyReader(transport, reader_of(connection), hear)
    transport.set_protocol(reading)
    await reading.ended


class _ReplyReader(asyncio.Protocol):
    """Replaces the stream's protocol for reading. Events of writing are passed on to the stream's protocol.

    :ivar ended: a future that fails with the reason why the connection ended.
    """

    def __init__(
        self, transport: asyncio.Transport, reader: hiredis.Reader, hear: Callable[[Gets], None]
    ) -> None:
        self._transport = transport
        self._writing = cast("asyncio.Protocol", transport.get_protocol())
        self._feed = reader.feed
        self._gets = reader.gets
        self._hear = hear
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self._loop.create_future()

    def data_received(self, data: bytes) -> None:
        """Parse the data, and pass on all complete replies."""
        if self.ended.done():
            return
        try:
            self._feed(data)
            self._hear(self._gets)
        except Exception as error:  # noqa: BLE001 - raised to the caller of listen
            self._end(error)
        if len(data) >= PUBSUB_READ_PAUSE_BYTES:
            self._transport.pause_reading()
            self._loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def eof_received(self) -> bool | None:
        """The server has closed its side of the connection."""
        self._end(LostError("the server has closed the connection"))
        return self._writing.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed, by either side."""
        self._end(LostError(f"the connection is closed{f': {exc}' if exc else ''}"))
        self._writing.connection_lost(exc)

    def pause_writing(self) -> None:
        """The write buffer is full."""
        self._writing.pause_writing()

    def resume_writing(self) -> None:
        """The write buffer has drained."""
        self._writing.resume_writing()

    def _end(self, error: Exception) -> None:
        if not self.ended.done():
            self.ended.set_exception(error)
