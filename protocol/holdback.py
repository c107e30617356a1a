"""Holds back the webhooks of departures, in case the client returns (protocol section 11.4).

After a disconnect, ``member_removed`` and ``channel_vacated`` wait for a while. If the user or a subscriber
returns by then, neither the departure nor the return is reported. Departures are reported in the order
``member_removed``, ``channel_vacated``. ``now`` is in seconds of any monotonic clock.
"""

from __future__ import annotations

from collections import defaultdict
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from .channels import Key

HOLD_SECONDS: Final = 3.0

MAX_HELD: Final = 100_000
"""Bound on held departures; beyond it, the oldest are reported early."""


class Gone(NamedTuple):
    """A departure: ``member_removed`` of a user, or ``channel_vacated`` without one."""

    key: Key
    user_id: str | None


class HoldBack:
    """The held departures. Each waits for ``seconds``, which may be changed."""

    def __init__(self, seconds: float = HOLD_SECONDS, limit: int = MAX_HELD) -> None:
        self.seconds = seconds
        self._limit = limit
        # When a departure is due, and its number. Entries of clients that returned stay in the queue until
        # due; this holds the valid ones.
        self._held: dict[Key, dict[str | None, tuple[float, int]]] = defaultdict(dict)
        self._queue: list[tuple[float, int, Gone]] = []
        self._order = 0

    def back(self, key: Key, user_id: str | None = None) -> bool:
        """Whether a return (of a user, or of a first subscriber) cancels a departure: then report neither."""
        held = self._held.get(key)
        if held is None or held.pop(user_id, None) is None:
            return False
        if not held:
            del self._held[key]
        return True

    def gone(self, key: Key, user_id: str | None, now: float, *, disconnect: bool) -> bool:
        """Hold a departure of a user, or of a channel's last subscriber; True if it is to be reported now."""
        # A channel is not vacated before its last members are removed.
        members = [due for due, _ in self._held.get(key, {}).values()] if user_id is None else []
        if not disconnect and not members:
            self.back(key, user_id)
            return True
        due = max([now + self.seconds if disconnect else now, *members])
        self._order += 1
        self._held[key][user_id] = (due, self._order)
        heappush(self._queue, (due, self._order, Gone(key, user_id)))
        return False

    def due(self, now: float) -> list[Gone]:
        """The departures to report now, in order: those that waited long enough or exceed the bound."""
        told = []
        while self._queue and (self._queue[0][0] <= now or len(self._queue) > self._limit):
            told += self._pop()
        return told

    @property
    def next_due(self) -> float | None:
        """When to call :meth:`due` again."""
        return self._queue[0][0] if self._queue else None

    def _pop(self) -> list[Gone]:
        due, number, gone = heappop(self._queue)
        if self._held.get(gone.key, {}).get(gone.user_id) != (due, number):
            return []  # returned, and may have left again since
        self.back(gone.key, gone.user_id)
        return [gone]
