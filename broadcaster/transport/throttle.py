"""Starts at most eight connections per turn of the loop, so that a crowd does not block it."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from legato.broadcaster.limits import CONNECTION_STARTS_PER_TURN

if TYPE_CHECKING:
    from collections.abc import Callable


class StartThrottle:
    """Limits how many calls start per turn of the loop, and queues the others in order.

    The count is reset only when half of it is used up, since each reset costs a callback of the loop.

    :param call_soon: runs a function in the next turn of the loop.
    """

    def __init__(self, call_soon: Callable[[Callable[[], None]], object]) -> None:
        self._call_soon = call_soon
        self._waiting: deque[Callable[[], None]] = deque()
        self._left = CONNECTION_STARTS_PER_TURN
        self._scheduled = False

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, begin: Callable[[], None]) -> bool:
        """Returns whether the caller may start now. Otherwise ``begin`` is called in a later turn."""
        if self._left <= CONNECTION_STARTS_PER_TURN // 2 and not self._scheduled:
            self._schedule()
        if self._left > 0:  # then none waits: waiting ones use up the count
            self._left -= 1
            return True
        self._waiting.append(begin)
        return False

    def _schedule(self) -> None:
        self._scheduled = True
        self._call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        self._left = CONNECTION_STARTS_PER_TURN
        if self._waiting:
            self._schedule()  # first: an error must not leave the others waiting
        while self._waiting and self._left > 0:
            self._left -= 1
            self._waiting.popleft()()
