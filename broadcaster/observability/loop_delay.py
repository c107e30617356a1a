"""How long what is due in the event loop waits, because something else holds it."""

from __future__ import annotations

import time
from bisect import bisect_left
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

PERIOD: Final = 0.02

BOUNDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1)
"""Seconds. uvloop's timers are exact to a millisecond: the first two say that there was nothing to see."""

MOST: Final = 5_000
"""What one look may count: a process that was stopped for longer than 100 s need not say how long."""


class LoopDelay:
    """A timer that looks how late it is.

    It is due every :data:`PERIOD` seconds, by schedule: all times at which it was due while the loop was held
    count, each with the time that it has waited. Otherwise one long stall would hide behind many short waits.

    :param call_later: the loop's.
    :param clock: seconds. Not the loop's: uvloop's stands still in a turn.
    :ivar counts: how many waits there were up to each of :data:`BOUNDS`, and beyond the last.
    :ivar sum: of all waits, in seconds.
    """

    def __init__(
        self,
        call_later: Callable[[float, Callable[[], None]], asyncio.TimerHandle],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.sum = 0.0
        self._call_later = call_later
        self._clock = clock
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Look from now on."""
        self._due = self._clock() + PERIOD
        self._timer = self._call_later(PERIOD, self._look)

    def close(self) -> None:
        """Look no more. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        now = self._clock()
        self._due = max(self._due, now - MOST * PERIOD)
        self._count(max(now - self._due, 0.0))  # a timer may be early by a fraction of its resolution
        self._due += PERIOD
        while self._due <= now:
            self._count(now - self._due)
            self._due += PERIOD
        self._timer = self._call_later(self._due - now, self._look)

    def _count(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.sum += seconds
