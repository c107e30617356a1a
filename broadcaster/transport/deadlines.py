"""How long an HTTP connection waits for its peer to send, and to read."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

STALLED_SECONDS: Final = 30.0
"""Write-stall timeout: how long a peer may read nothing of an answer before the connection is cut."""

PROGRESS_BYTES: Final = 32_768
"""How much of a body has to come in ``request_seconds``, if it is not complete by then."""


class Waiting(Protocol):
    """The connection."""

    transport: asyncio.Transport

    @property
    def busy(self) -> bool:
        """Whether it is the peer that waits, for us."""

    def expire(self) -> None:
        """The request has not come in time."""


class Deadlines:
    """One timer looks after the deadlines for reading; no request moves it that comes whole.

    :param keep_alive: seconds between two requests.
    :param seconds: for a head, and for each :data:`PROGRESS_BYTES` of a body.
    :ivar idle_since: when the last request was answered, or the peer connected, in the loop's time.
    :ivar due: when more has to have come of a request that is not complete; None without one.
    """

    __slots__ = (
        "_connection",
        "_keep_alive",
        "_look_at",
        "_loop",
        "_progress",
        "_seconds",
        "_stalled",
        "_timer",
        "due",
        "idle_since",
    )

    def __init__(self, connection: Waiting, keep_alive: float, seconds: float, since: float) -> None:
        self._connection = connection
        self._keep_alive = keep_alive
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._progress = 0
        self._look_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        self.idle_since = since
        self.due: float | None = None

    def start(self) -> None:
        """Look after the time until the first request."""
        self._look_by(self.idle_since + self._keep_alive)

    def stop(self) -> None:
        """Nothing more is read."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def renew(self) -> None:
        """More of the request has come, or its first bytes."""
        self._progress = 0
        self.due = self._loop.time() + self._seconds
        if self.due < self._look_at:
            self._look_by(self.due)

    def came(self, size: int) -> None:
        """So many bytes of a body."""
        self._progress += size
        if self._progress >= PROGRESS_BYTES:
            self.renew()

    def _look_by(self, deadline: float) -> None:
        self.stop()
        self._look_at = deadline
        self._timer = self._loop.call_at(deadline, self.look)

    def look(self) -> None:
        """Close the connection of a peer that has to say something and does not."""
        self._timer = None
        connection = self._connection
        if connection.transport.is_closing():
            return
        now = self._loop.time()
        if connection.busy:
            self.idle_since = now
            self.due = None if self.due is None else now + self._seconds
        deadline = self.idle_since + self._keep_alive if self.due is None else self.due
        if deadline > now:
            self._look_by(deadline)
        elif self.due is None:
            connection.transport.close()
        else:
            connection.expire()

    # --- while the peer does not read

    @property
    def stalled(self) -> bool:
        """Whether the peer has to read on soon."""
        return self._stalled is not None

    def stall(self) -> None:
        """The peer does not read."""
        self._stalled = self._loop.call_later(STALLED_SECONDS, self._connection.transport.abort)

    def read_on(self) -> None:
        """It does, or has gone. Idempotent."""
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
