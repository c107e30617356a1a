"""Those who come in crowds begin a few at a time, so that everything else has its turn too."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

MOST: Final = 8
"""How many begin in one turn of the loop. Each costs it some 0.3 ms, from the request to the subscription."""


class Turns:
    """Begins what it is given, in its order: at once, until as many have begun in this turn as may.

    While few come, a turn is only counted anew when half of it is used up: each count is a turn of its own.

    :param call_soon: runs a function in the next turn of the loop.
    """

    def __init__(self, call_soon: Callable[[Callable[[], None]], object]) -> None:
        self._call_soon = call_soon
        self._waiting: deque[Callable[[], None]] = deque()
        self._left = MOST
        self._scheduled = False

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, begin: Callable[[], None]) -> bool:
        """Whether it may begin now; otherwise ``begin`` is called later."""
        if self._left <= MOST // 2 and not self._scheduled:
            self._schedule()
        if self._left > 0:  # nobody waits then: those who wait use up what there is
            self._left -= 1
            return True
        self._waiting.append(begin)
        return False

    def _schedule(self) -> None:
        self._scheduled = True
        self._call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        self._left = MOST
        if self._waiting:
            self._schedule()  # first: what breaks off must not keep the others waiting for ever
        while self._waiting and self._left > 0:
            self._left -= 1
            self._waiting.popleft()()
