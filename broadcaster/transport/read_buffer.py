"""The received but unparsed bytes of an HTTP connection, and when they are parsed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from legato.broadcaster.limits import READ_SLICE_BYTES, READ_SLICE_MESSAGES

from .framing import FramingRefusal, take_head

if TYPE_CHECKING:
    import asyncio

    from .budget import Budget


class Requests(Protocol):
    """Reads requests from the unread bytes of an :class:`ReadBuffer`."""

    transport: asyncio.Transport

    def step(self) -> bool:
        """Parse one head, or a part of a body. Whether there was anything to parse.

        :raises FramingRefusal: it is not valid, or too large.
        """

    def blocked(self) -> bool:
        """Whether parsing is blocked."""

    def refuse(self, status: int, reason: str) -> None:
        """Answer with an error, and close."""

    def expect(self) -> None:
        """Wait for more bytes."""


class ReadBuffer:
    """The unparsed bytes, parsed in slices of the loop's time. Satisfies :class:`~.budget.Reader`.

    While bytes are unparsed the transport does not read, so at most one of its reads is kept.

    :ivar unread: received and not parsed.
    :ivar closed: nothing is parsed any more.
    """

    closed = False
    _searched = 0
    _queued = False
    _reading = False
    _paused = False

    def __init__(self, requests: Requests, budget: Budget) -> None:
        self._requests = requests
        self._budget = budget
        self.unread = bytearray()

    @property
    def paused(self) -> bool:
        """Whether the transport is paused because bytes are unparsed."""
        return self._paused

    def receive(self, data: bytes) -> None:
        """Parse one slice at once if the budget allows; queue the rest."""
        if not self._queued and self._budget.spend(len(data)):
            self.read(data)
        else:
            self.read_later(data)

    def read(self, data: bytes) -> None:
        """Parse one slice at once; queue the rest."""
        self.unread += data
        if self._read_slice():
            self.read_later()
        else:
            self._settle()

    def read_later(self, data: bytes = b"") -> None:
        """Queue the bytes for the next turn."""
        self.unread += data
        if self.closed:
            return
        self._pause()
        self._queued = True
        self._budget.put(self)

    def proceed(self) -> None:
        """Resume parsing if nothing blocks it."""
        if (self.unread or self._paused) and not self._reading and not self._queued:
            self.read_later()

    def take_head(self) -> bytes | None:
        """Remove and return the next head; None if it is incomplete.

        :raises FramingRefusal: it is too large.
        """
        data = take_head(self.unread, self._searched)
        self._searched = len(self.unread) if data is None else 0
        return data

    def close(self) -> bytes:
        """Parse nothing more. Returns the unparsed bytes. Idempotent."""
        self.closed = True
        unread = bytes(self.unread)
        self.unread.clear()
        return unread

    def resume(self) -> None:
        """Let the transport read again."""
        if self._paused:
            self._paused = False
            self._requests.transport.resume_reading()

    def _pause(self) -> None:
        if not self._paused:
            self._paused = True
            self._requests.transport.pause_reading()

    def _read_slice(self) -> bool:
        """Parse one slice. Whether more may be parsed at once."""
        unread, reading, step = self.unread, self._reading, self._requests.step
        until = len(unread) - READ_SLICE_BYTES
        self._reading = True
        try:
            for _ in range(READ_SLICE_MESSAGES):
                if not step() or self.closed:
                    return False
                if len(unread) <= until:
                    break
            return bool(unread)
        except FramingRefusal as refused:
            self._requests.refuse(refused.status, str(refused))
            return False
        finally:
            self._reading = reading

    def _settle(self) -> None:
        """Nothing more can be parsed: let the transport read, unless parsing is blocked."""
        if self.closed:
            return
        if self.unread and self._requests.blocked():
            self._pause()
            return
        self.resume()
        self._requests.expect()

    # --- as a Reader

    def go_on(self) -> bool:
        """See :class:`~legato.broadcaster.transport.budget.Reader`."""
        self._queued = False
        if self.closed or self._requests.transport.is_closing():
            return False
        if self._read_slice():
            self._queued = True
            return True
        self._settle()
        return False

    def abort(self) -> None:
        """See :class:`~legato.broadcaster.transport.budget.Reader`."""
        self._requests.transport.abort()
