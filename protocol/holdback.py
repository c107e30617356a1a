"""Webhooks that wait whether somebody comes back (protocol section 11.4).

After a disconnect, that a channel is vacated or a member removed is told only after a while. Whoever is back
by then has never been away: neither the departure nor the return is told. Departures come out in the order
``member_removed``, ``channel_vacated``. ``now`` is any clock that does not go back, in seconds.
"""

from __future__ import annotations

from collections import defaultdict
from heapq import heappop, heappush
from typing import Final, NamedTuple

HOLD_SECONDS: Final = 3.0

MAX_HELD: Final = 100_000
"""Departures that may wait; beyond, the oldest are told early."""


class Place(NamedTuple):
    """A channel of an application."""

    app_id: str
    channel: str


class Gone(NamedTuple):
    """A departure to tell: ``member_removed`` of a user, or with None ``channel_vacated``."""

    place: Place
    user_id: str | None


class HoldBack:
    """The departures that wait, each for ``seconds``, which may be changed."""

    def __init__(self, seconds: float = HOLD_SECONDS, limit: int = MAX_HELD) -> None:
        self.seconds = seconds
        self._limit = limit
        # When a departure is due, and its number. Entries of those who came back stay in the queue until they
        # are due; those that count are here.
        self._held: dict[Place, dict[str | None, tuple[float, int]]] = defaultdict(dict)
        self._queue: list[tuple[float, int, Gone]] = []
        self._order = 0

    def back(self, place: Place, user_id: str | None = None) -> bool:
        """Whether a return (of a user, or the first to a channel) undoes a departure: then tell neither."""
        held = self._held.get(place)
        if held is None or held.pop(user_id, None) is None:
            return False
        if not held:
            del self._held[place]
        return True

    def gone(self, place: Place, user_id: str | None, now: float, *, disconnect: bool) -> bool:
        """A user, or with None a channel's last subscriber, has gone: whether to tell it at once."""
        # A channel is not vacated before its last members are removed.
        members = [due for due, _ in self._held.get(place, {}).values()] if user_id is None else []
        if not disconnect and not members:
            self.back(place, user_id)
            return True
        due = max([now + self.seconds if disconnect else now, *members])
        self._order += 1
        self._held[place][user_id] = (due, self._order)
        heappush(self._queue, (due, self._order, Gone(place, user_id)))
        return False

    def due(self, now: float) -> list[Gone]:
        """What has waited long enough, or is over the bound, in the order to tell it."""
        told = []
        while self._queue and (self._queue[0][0] <= now or len(self._queue) > self._limit):
            told += self._pop()
        return told

    @property
    def next_due(self) -> float | None:
        """When to ask :meth:`due` again."""
        return self._queue[0][0] if self._queue else None

    def _pop(self) -> list[Gone]:
        due, number, gone = heappop(self._queue)
        if self._held.get(gone.place, {}).get(gone.user_id) != (due, number):
            return []  # came back, and may have gone again since
        self.back(gone.place, gone.user_id)
        return [gone]
