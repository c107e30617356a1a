"""The last events of cache channels, for one process without Redis."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from legato.broadcaster.channels.subscriber import Key

DROPS: Final = 8
"""Expired events removed with each new one; more than one, so they never accumulate."""


class Cached(NamedTuple):
    """The last event of a cache channel; ``ttl`` in whole seconds. ``version`` grows with each event."""

    event: str
    data: str
    ttl: int
    version: int = 0


class EventCache:
    """Keeps one event per channel until it expires. Each call takes constant or logarithmic time.

    :param clock: seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._events: dict[Key, tuple[str, str, float, int]] = {}
        self._ages: list[tuple[float, Key]] = []  # a heap, one item per channel; its time may be too early
        self._version = 0

    def __len__(self) -> int:
        return len(self._events)

    def remember(self, key: Key, event: str, data: str, seconds: int) -> int:
        """Keep the last event. Returns its version."""
        now = self._clock()
        self._drop_some(now)
        until = now + seconds
        if key not in self._events:
            heapq.heappush(self._ages, (until, key))
        self._version += 1
        self._events[key] = (event, data, until, self._version)
        return self._version

    def _drop_some(self, now: float) -> None:
        for _ in range(DROPS):
            if not self._ages or self._ages[0][0] > now:
                return
            key = self._ages[0][1]
            until = self._events[key][2]
            if until <= now:
                heapq.heappop(self._ages)
                del self._events[key]
            else:  # a newer event has come since
                heapq.heapreplace(self._ages, (until, key))

    def recall(self, key: Key) -> Cached | None:
        """The last event, unless it has expired."""
        event, data, until, version = self._events.get(key, ("", "", 0.0, 0))
        left = until - self._clock()
        return Cached(event, data, int(left), version) if left > 0 else None
