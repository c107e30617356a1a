"""Bytes of an HTTP connection that are not read yet, and when they are read."""

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
        """Read one head, or a part of a body. Whether there was anything to read.

        :raises FramingRefusal: it is not valid, or too large.
        """

    def blocked(self) -> bool:
        """Whether what is unread has to wait, for an answer or for the peer."""

    def refuse(self, status: int, reason: str) -> None:
        """Answer with an error, and close."""

    def expect(self) -> None:
        """Everything that can be read is read, and the connection reads on."""


class ReadBuffer:
    """The unread bytes, read in slices of the loop's time. It is a :class:`~.budget.Reader`.

    While bytes are unread the transport does not read, so at most one of its reads is kept.

    :ivar unread: what has come and is not read.
    :ivar closed: nothing is read from here any more.
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
        """Whether the transport does not read, since something is unread."""
        return self._paused

    def receive(self, data: bytes) -> None:
        """Read one slice at once if there is time for it; the rest in its turn."""
        if not self._queued and self._budget.spend(len(data)):
            self.read(data)
        else:
            self.read_later(data)

    def read(self, data: bytes) -> None:
        """Read one slice at once, and the rest in its turn."""
        self.unread += data
        if self._read_slice():
            self.read_later()
        else:
            self._settle()

    def read_later(self, data: bytes = b"") -> None:
        """Read it in its turn."""
        self.unread += data
        if self.closed:
            return
        self._pause()
        self._queued = True
        self._budget.put(self)

    def proceed(self) -> None:
        """Go on: what blocked may be over."""
        if (self.unread or self._paused) and not self._reading and not self._queued:
            self.read_later()

    def take_head(self) -> bytes | None:
        """The next head, removed from what is unread; None if it is not complete.

        :raises FramingRefusal: it is too large.
        """
        data = take_head(self.unread, self._searched)
        self._searched = len(self.unread) if data is None else 0
        return data

    def close(self) -> bytes:
        """Read nothing more. What was unread. Idempotent."""
        self.closed = True
        unread = bytes(self.unread)
        self.unread.clear()
        return unread

    def resume(self) -> None:
        """Let the transport read."""
        if self._paused:
            self._paused = False
            self._requests.transport.resume_reading()

    def _pause(self) -> None:
        if not self._paused:
            self._paused = True
            self._requests.transport.pause_reading()

    def _read_slice(self) -> bool:
        """Read one slice. Whether there may be more that can be read at once."""
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
        """Everything that can be read is read: let the transport read, unless something blocks."""
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
