"""The read and write timeouts of an HTTP connection."""

from __future__ import annotations

import asyncio
from typing import Protocol

from legato.broadcaster.limits import BODY_PROGRESS_BYTES, WRITE_STALL_SECONDS


class HasDeadline(Protocol):
    """The connection whose peer has deadlines."""

    transport: asyncio.Transport

    @property
    def busy(self) -> bool:
        """Whether the peer waits for the server, and not the server for the peer."""

    def expire(self) -> None:
        """Refuse the request: it timed out."""


class Deadlines:
    """One timer for all read deadlines of a connection. A request that arrives whole does not move it.

    :param keep_alive: how long a connection may be idle between two requests, in seconds.
    :param seconds: for a head, and for each :data:`BODY_PROGRESS_BYTES` of a body.
    :ivar idle_since: when the last answer was complete, or the peer connected, in the loop's time.
    :ivar due: when more of an incomplete request has to have arrived; None without one.
    """

    due: float | None = None
    _progress = 0
    _look_at = 0.0
    _timer: asyncio.TimerHandle | None = None
    _stall: asyncio.TimerHandle | None = None

    def __init__(self, connection: HasDeadline, keep_alive: float, seconds: float, since: float) -> None:
        self._connection = connection
        self._keep_alive = keep_alive
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self.idle_since = since

    def start(self) -> None:
        """Start waiting for the first request."""
        self._look_by(self.idle_since + self._keep_alive)

    def stop(self) -> None:
        """Stop the read deadlines. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- an incomplete request

    def renew(self) -> None:
        """Start the deadline of the next part of the request."""
        self._progress = 0
        self.due = self._loop.time() + self._seconds
        if self.due < self._look_at:
            self._look_by(self.due)

    def received(self, size: int) -> None:
        """Count bytes of the body; enough of them renew the deadline."""
        self._progress += size
        if self._progress >= BODY_PROGRESS_BYTES:
            self.renew()

    def _look_by(self, deadline: float) -> None:
        self.stop()
        self._look_at = deadline
        self._timer = self._loop.call_at(deadline, self.look)

    def look(self) -> None:
        """Close a connection that is idle for too long, and refuse a request that takes too long."""
        self._timer = None
        connection, now = self._connection, self._loop.time()
        if connection.transport.is_closing():
            self._flush()
            return
        if connection.busy:
            self.idle_since = now
            self.due = None if self.due is None else now + self._seconds
        deadline = self.idle_since + self._keep_alive if self.due is None else self.due
        if deadline > now:
            self._look_by(deadline)
        elif self.due is None:
            self.close()
        else:
            connection.expire()

    # --- a peer that does not read

    def close(self) -> None:
        """Close the transport. Written data is still sent, as long as the peer reads."""
        self._connection.transport.close()
        self._flush()

    def _flush(self, before: int = 0) -> None:
        """Abort if the peer has read nothing since the last check: the transport would wait forever.

        :param before: bytes that were in the write buffer then.
        """
        self.stop()
        left = self._connection.transport.get_write_buffer_size()
        if left and left == before:
            self._connection.transport.abort()
        elif left:
            self._timer = self._loop.call_later(WRITE_STALL_SECONDS, self._flush, left)

    @property
    def stalled(self) -> bool:
        """Whether the write-stall timer runs."""
        return self._stall is not None

    def stall(self) -> None:
        """Start the write-stall timer: the write buffer is full."""
        self._stall = self._loop.call_later(WRITE_STALL_SECONDS, self._connection.transport.abort)

    def unstall(self) -> None:
        """Stop the write-stall timer: the peer reads, or has gone. Idempotent."""
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
