"""Closes a connection whose peer is still sending after its last answer (lingering close)."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Protocol

from legato.broadcaster.limits import LINGERING_CLOSE_BYTES, LINGERING_CLOSE_SECONDS


class ConnectionOwner(Protocol):
    """The protocol that owned the connection."""

    def close(self) -> None:
        """Close it, and cut it if the peer does not read what is still to be written."""

    def connection_lost(self, exc: Exception | None) -> None:
        """See :class:`asyncio.Protocol`."""

    def pause_writing(self) -> None:
        """See :class:`asyncio.Protocol`."""

    def resume_writing(self) -> None:
        """See :class:`asyncio.Protocol`."""


class LingeringClose(asyncio.Protocol):
    """Discards incoming data for a while, then closes.

    Closing a socket with unread bytes resets the connection, and then the peer may never see the answer.

    :param owner: gets all events but incoming data.
    """

    __slots__ = ("_left", "_owner", "_timer", "_transport")

    def __init__(self, owner: ConnectionOwner, transport: asyncio.Transport) -> None:
        self._owner = owner
        self._transport = transport
        self._left = LINGERING_CLOSE_BYTES
        self._timer = asyncio.get_running_loop().call_later(LINGERING_CLOSE_SECONDS, owner.close)
        if transport.can_write_eof():
            with suppress(OSError):  # the peer has just reset the connection
                transport.write_eof()

    def data_received(self, data: bytes) -> None:
        """Discard the data, and close if there is too much of it."""
        self._left -= len(data)
        if self._left < 0 and not self._transport.is_closing():
            self._owner.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass the event on to the owner."""
        self._timer.cancel()
        self._owner.connection_lost(exc)

    def pause_writing(self) -> None:
        """Pass the event on to the owner."""
        self._owner.pause_writing()

    def resume_writing(self) -> None:
        """Pass the event on to the owner."""
        self._owner.resume_writing()
