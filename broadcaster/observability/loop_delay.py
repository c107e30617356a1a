"""Measures the delay of the event loop: how late a due callback runs because the loop is busy."""

from __future__ import annotations

import time
from bisect import bisect_left
from typing import TYPE_CHECKING, Final

from legato.broadcaster.limits import LOOP_DELAY_INTERVAL_SECONDS, LOOP_DELAY_MAX_MISSED

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

BOUNDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1)
"""Histogram bounds in seconds. uvloop's timers have a resolution of 1 ms: the first two mean no delay."""


class LoopDelay:
    """A periodic timer that measures how late it fires.

    It is due every :data:`LOOP_DELAY_INTERVAL_SECONDS`. Every period that passes during a stall counts, each
    with its own delay. Otherwise one long stall would be a single sample among many short ones.

    :param call_later: the loop's.
    :param clock: a clock in seconds. Not the loop's: uvloop updates its clock only once per turn.
    :ivar counts: the number of delays up to each of :data:`BOUNDS`, and above the last.
    :ivar sum: the sum of all delays in seconds.
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
        """Start measuring."""
        self._due = self._clock() + LOOP_DELAY_INTERVAL_SECONDS
        self._timer = self._call_later(LOOP_DELAY_INTERVAL_SECONDS, self._measure)

    def close(self) -> None:
        """Stop measuring. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _measure(self) -> None:
        now = self._clock()
        self._due = max(self._due, now - LOOP_DELAY_MAX_MISSED * LOOP_DELAY_INTERVAL_SECONDS)
        self._count(max(now - self._due, 0.0))  # a timer may be early by a fraction of its resolution
        self._due += LOOP_DELAY_INTERVAL_SECONDS
        while self._due <= now:
            self._count(now - self._due)
            self._due += LOOP_DELAY_INTERVAL_SECONDS
        self._timer = self._call_later(self._due - now, self._measure)

    def _count(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.sum += seconds
