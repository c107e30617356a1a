"""The end of a connection whose peer is still sending when it has had its last answer."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final, Protocol

SECONDS: Final = 2.0
BYTES: Final = 4_194_304
"""How long, and how much, the peer may go on to send."""


class Owner(Protocol):
    """Whose connection it was."""

    def close(self) -> None:
        """Close it, and cut it off if the peer does not take what is still to be written."""

    def connection_lost(self, exc: Exception | None) -> None:
        """See :class:`asyncio.Protocol`."""

    def pause_writing(self) -> None:
        """See :class:`asyncio.Protocol`."""

    def resume_writing(self) -> None:
        """See :class:`asyncio.Protocol`."""


class Farewell(asyncio.Protocol):
    """Throws away what comes, for a while, and then closes.

    A connection that is closed with unread bytes is reset, and then the peer may never see the answer.

    :param owner: is told of everything but bytes.
    """

    __slots__ = ("_left", "_owner", "_timer", "_transport")

    def __init__(self, owner: Owner, transport: asyncio.Transport) -> None:
        self._owner = owner
        self._transport = transport
        self._left = BYTES
        self._timer = asyncio.get_running_loop().call_later(SECONDS, owner.close)
        if transport.can_write_eof():
            with suppress(OSError):  # the peer has just reset the connection
                transport.write_eof()

    def data_received(self, data: bytes) -> None:
        """Nobody wants it."""
        self._left -= len(data)
        if self._left < 0 and not self._transport.is_closing():
            self._owner.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The peer has gone, or its time is over."""
        self._timer.cancel()
        self._owner.connection_lost(exc)

    def pause_writing(self) -> None:
        """The peer does not read its answer."""
        self._owner.pause_writing()

    def resume_writing(self) -> None:
        """It does."""
        self._owner.resume_writing()
