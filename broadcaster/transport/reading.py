"""Reads messages from a WebSocket, within the read budget (:mod:`.budget`).

Complete text frames, nearly everything that clients send, are parsed here. The library ``websockets`` handles
everything else: fragments, control frames, invalid frames, the close handshake. It is created on first use.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from typing import TYPE_CHECKING, Final

from websockets.frames import Opcode

from legato.broadcaster.clients.client import Client
from legato.broadcaster.clients.ends import NO_CODE
from legato.broadcaster.limits import READ_SLICE_BYTES, READ_SLICE_MESSAGES
from legato.protocol import refusals

from .budget import COST_SHIFT
from .frames import goodbye, is_utf8, plain_text
from .library import Library

if TYPE_CHECKING:
    from websockets.frames import Frame

    from legato.broadcaster.clients.client import ClientContext

GOODBYE: Final = 8
"""Length of the longest close frame that is handled without the library."""


class ReadingHalf(Client, asyncio.Protocol):
    """The reading half of a connection. Satisfies :class:`legato.broadcaster.transport.budget.Reader`."""

    __slots__ = ("_at", "_library", "_transport", "_unread")

    _transport: asyncio.Transport
    _at: int
    """Where the next message begins in the unread bytes, if there are any."""

    def __init__(self, context: ClientContext) -> None:
        super().__init__(context)
        self._library: Library | None = None
        self._unread = b""

    # --- implemented by the writing half

    @abstractmethod
    def write_last(self, data: bytes) -> None:
        """Write a close frame, and drop everything that waits to be written."""

    @abstractmethod
    def hang_up(self, code: int) -> None:
        """Close the connection after its last frame.

        :param code: of the peer's close frame.
        """

    @abstractmethod
    def await_close(self) -> None:
        """Limit the time until the connection ends: a close frame was received or sent."""

    # --- from the transport, within the budget

    def data_received(self, data: bytes) -> None:
        """Read one slice at once, if the budget allows, and the rest in later turns.

        Optimised for a single plain message, the usual case.
        """
        budget = self.context.budget
        budget.left -= 1 + (len(data) >> COST_SHIFT)
        if self.paused or (budget.left < 0 and not budget.refill()):
            self._postpone(data)
            return
        if self._library is None:
            found = plain_text(data, 0, self.context.server.max_message_bytes)
            if found is None:
                at = self._other(data, 0, READ_SLICE_MESSAGES)
            elif found[1] == len(data) and found[0].isascii():
                self.receive(found[0])
                return
            else:
                at = self._slice(data, 0)
        else:
            at = self._by_library(self._library, data, 0, READ_SLICE_MESSAGES)
        if at < len(data):
            self._postpone(data[at:])

    def _postpone(self, data: bytes) -> None:
        self._unread = self._unread[self._at :] + data if self._unread else data
        self._at = 0
        self.hold_up()
        if not self.held:
            self.context.budget.put(self)

    def hold_up(self) -> None:
        """Pause reading on the transport."""
        if not self.paused:
            self.paused = True
            if not self._transport.is_closing():
                self._transport.pause_reading()

    def read_on(self) -> None:
        """Resume reading, with the bytes that have arrived meanwhile first."""
        if self._transport.is_closing():
            return
        if self._unread:
            self.context.budget.put(self)
        else:
            self.paused = False
            self._transport.resume_reading()

    def go_on(self) -> bool:
        """Read one slice of the unread bytes."""
        if self._transport.is_closing():
            self.forget_unread()
            return False
        if self.held:
            return False
        self._at = self._slice(self._unread, self._at)
        if self._at < len(self._unread):
            return not self.held
        self.forget_unread()
        self.relieve()
        return False

    def forget_unread(self) -> None:
        """Drop the unread bytes."""
        self._unread = b""

    def eof_received(self) -> None:
        """The peer has closed its side. The transport closes, too."""
        if self._library is not None:
            self._library.end()

    # --- from bytes to messages

    def _slice(self, data: bytes, at: int) -> int:
        """Read up to one slice of messages, from ``at`` on. Returns where the next one begins."""
        end, left, until = len(data), READ_SLICE_MESSAGES, at + READ_SLICE_BYTES
        limit = self.context.server.max_message_bytes
        while self._library is None:
            found = plain_text(data, at, limit)
            if found is None:
                return self._other(data, at, left)
            text, at = found
            self._take(text)
            left -= 1
            if self._transport.is_closing():
                return end
            if at >= end or at >= until or not left or self.held:
                return at
        return self._by_library(self._library, data, at, left)

    def _take(self, text: bytes) -> None:
        """Take a complete message. Invalid UTF-8 must not be relayed to others."""
        if is_utf8(text):
            self.receive(text)
        else:
            self._fail(1007, "text that is not UTF-8")

    def _other(self, data: bytes, at: int, left: int) -> int:
        """Read anything but a plain message."""
        answer = goodbye(data[at:]) if len(data) - at <= GOODBYE else None
        if answer is None:
            return self._by_library(self.library(), data, at, left)
        self.write_last(answer)
        self.hang_up(int.from_bytes(answer[2:4]) or NO_CODE)
        return len(data)

    def _by_library(self, library: Library, data: bytes, at: int, left: int) -> int:
        if self.session is not None:
            self.session.seen(self.context.now())
        until = min(len(data), at + READ_SLICE_BYTES)
        while at < until and left and not self.held:
            at = library.read(data, at)
            left -= 1
            for frame in library.frames():
                self._frame(library, frame)
            self.write_answers(library)
            if self._transport.is_closing():
                return len(data)
        return at

    def library(self) -> Library:
        """Return the library, which reads all further data once it is created."""
        if self._library is None:
            self._library = Library(self.context.server.max_message_bytes)
        return self._library

    def _frame(self, library: Library, frame: Frame) -> None:
        if frame.opcode in (Opcode.TEXT, Opcode.CONT):
            library.fragments += frame.data
            if frame.fin:
                text = bytes(library.fragments)
                library.fragments.clear()
                self._take(text)
        elif frame.opcode is Opcode.BINARY:
            # Not part of the protocol (section 1.4): closed, since fragments of one would look like text.
            self._fail(1003, "binary frames are not supported")
        elif frame.opcode is Opcode.CLOSE:
            self.await_close()

    def _fail(self, code: int, reason: str) -> None:
        """Close the connection because of invalid input."""
        library = self.library()
        library.fail(code, reason)
        self.refused(refusals.BAD_FRAME, code=code, detail=reason)
        self.leave(code, reason)
        self.write_answers(library)

    def _refuse_fault(self, library: Library) -> None:
        """Take note of a frame for which the library closes the connection."""
        if self.session is not None and (fault := library.fault) is not None:
            self.refused(refusals.BAD_FRAME, code=fault[0], detail=fault[1])

    def write_answers(self, library: Library) -> None:
        """Write the library's pending answers."""
        for data in library.answers():
            if not data:
                self._refuse_fault(library)
                self.hang_up(library.close_code)
            elif library.is_open:
                self.write(data)
            else:
                self.write_last(data)
