"""The end of a connection whose peer is still sending when it has had its last answer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .http11 import HttpProtocol

SECONDS: Final = 2.0
BYTES: Final = 4_194_304
"""How long, and how much, the peer may go on to send."""


class Farewell(asyncio.Protocol):
    """Throws away what comes, for a while, and then closes.

    A connection that is closed with unread bytes is reset, and then the peer may never see the answer.

    :param before: whose connection it was; it is told of everything but bytes.
    """

    __slots__ = ("_before", "_left", "_timer", "_transport")

    def __init__(self, before: HttpProtocol, transport: asyncio.Transport) -> None:
        self._before = before
        self._transport = transport
        self._left = BYTES
        self._timer = asyncio.get_running_loop().call_later(SECONDS, before.close)
        if transport.can_write_eof():
            transport.write_eof()

    def data_received(self, data: bytes) -> None:
        """Nobody wants it."""
        self._left -= len(data)
        if self._left < 0 and not self._transport.is_closing():
            self._before.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The peer has gone, or its time is over."""
        self._timer.cancel()
        self._before.connection_lost(exc)

    def pause_writing(self) -> None:
        """The peer does not read its answer."""
        self._before.pause_writing()

    def resume_writing(self) -> None:
        """It does."""
        self._before.resume_writing()
