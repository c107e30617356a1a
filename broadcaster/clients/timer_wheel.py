"""One timer for all connections: a wheel of one-second buckets."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio


class Timed(Protocol):
    """An entry of the wheel. Hashable by identity."""

    def check_at(self, now: float) -> float | None:
        """Do what is due at ``now``. Returns the time of the next call, or None for none."""


class Wheel:
    """Calls each entry within about a second after the time it asked for.

    :param loop: provides the clock and the timer.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._buckets: dict[int, set[Timed]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, entry: Timed, when: float) -> None:
        """Check ``entry`` at the loop time ``when``, in seconds."""
        second = math.ceil(when)
        bucket = self._buckets.get(second)
        if bucket is None:
            bucket = self._buckets[second] = set()
        bucket.add(entry)
        if self._timer is None:
            self._timer = self._loop.call_later(1, self._turn)

    def close(self) -> None:
        """Stop the timer, and drop all entries."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._buckets.clear()

    def _turn(self) -> None:
        self._timer = None
        now = self._loop.time()
        for second in sorted(second for second in self._buckets if second <= now):
            for entry in self._buckets.pop(second):
                when = entry.check_at(now)
                if when is not None:
                    self.add(entry, max(when, now))
        if self._buckets and self._timer is None:
            self._timer = self._loop.call_later(1, self._turn)
