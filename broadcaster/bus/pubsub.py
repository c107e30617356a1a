"""Hears everything that a server of Redis says on one connection, as soon as it is read.

redis-py hands replies out one by one: each batch would go through a stream's buffer, a future, a turn of the
loop and half a dozen coroutines. Here it goes from the transport to the parser to who listens.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, cast

from redis.exceptions import ConnectionError as LostError

from legato.protocol.redis.internals import NOT_ENOUGH_DATA, reader_of, streams_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import hiredis
    from redis.asyncio.connection import AbstractConnection

    Gets = Callable[[], Any]

__all__ = ["NOT_ENOUGH_DATA", "listen"]

LARGE: Final = 131_072
"""Bytes of one read, behind which the rest of the loop has its turn before the next read."""


async def listen(connection: AbstractConnection, hear: Callable[[Gets], None]) -> None:
    """For as long as it stands; raises why it does no more.

    :param connection: connected, with no command under way. From now on nothing else can be read from it.
    :param hear: called with a function that gives the next reply, errors as they are, and
        :data:`NOT_ENOUGH_DATA` behind the last one.
    """
    stream, transport = streams_of(connection)
    if stream.at_eof() or transport.is_closing():  # it would not be told again
        raise LostError("the server has closed the connection")
    ear = _Ear(transport, reader_of(connection), hear)
    transport.set_protocol(ear)
    await ear.ended


class _Ear(asyncio.Protocol):
    """Takes the place of the stream's protocol, which is still told what concerns writing.

    :ivar ended: fails with the reason.
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
        """Pass on all replies that are whole."""
        if self.ended.done():
            return
        try:
            self._feed(data)
            self._hear(self._gets)
        except Exception as error:  # noqa: BLE001 - whoever waits for the end is told
            self._end(error)
        if len(data) >= LARGE:
            self._transport.pause_reading()
            self._loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def eof_received(self) -> bool | None:
        """The server says nothing more."""
        self._end(LostError("the server has closed the connection"))
        return self._writing.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed, by whomever."""
        self._end(LostError(f"the connection is closed{f': {exc}' if exc else ''}"))
        self._writing.connection_lost(exc)

    def pause_writing(self) -> None:
        """Whoever writes has to wait."""
        self._writing.pause_writing()

    def resume_writing(self) -> None:
        """It need not any more."""
        self._writing.resume_writing()

    def _end(self, error: Exception) -> None:
        if not self.ended.done():
            self.ended.set_exception(error)
