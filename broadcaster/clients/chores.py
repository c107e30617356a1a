"""Work that comes in heaps is done in small steps, so that everything else has its turn too.

A heap is what one loss brings: a client with thousands of subscriptions leaves, or thousands of clients are
closed for one reason. Each is an iterator; what it does between two of its items is one step.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

logger: Final = logging.getLogger("legato.node")

MOST: Final = 64
"""Steps of one turn of the loop that are done at once. A step takes some 0.05 ms."""

LOW: Final = MOST // 2
"""With fewer of them left the count begins anew in the next turn; each beginning is a turn of its own."""

SECONDS: Final = 0.003
"""How long the heaps that wait may hold the loop in one turn."""

SHARE: Final = 16
"""Steps of one heap before another has its turn."""


class Chores:
    """Does what it is given: at once while that is little, and otherwise some of it in each turn.

    :param call_soon: runs a function in the next turn of the loop.
    :param clock: seconds. Not the loop's: uvloop's stands still in a turn.
    """

    def __init__(
        self,
        call_soon: Callable[[Callable[[], None]], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._call_soon = call_soon
        self._clock = clock
        self._heaps: deque[Iterator[None]] = deque()
        self._left = MOST
        self._scheduled = False
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        return len(self._heaps)

    def take(self, steps: int) -> bool:
        """Whether this turn has so many steps left for what the caller does itself, now."""
        left = self._left - steps
        if left < LOW:
            self._schedule()
            if left < 0:
                return False
        self._left = left
        return True

    def put(self, heap: Iterator[None]) -> bool:
        """Whether it is done already; otherwise its steps go on by and by."""
        done = self._work(heap, MOST)
        if not done:
            self._left = 0  # who comes later waits, too
            self._heaps.append(heap)
            self._idle.clear()
        if self._left < LOW or not done:
            self._schedule()
        return done

    async def done(self) -> None:
        """Wait until nothing is left to do."""
        await self._idle.wait()

    def _work(self, heap: Iterator[None], steps: int) -> bool:
        """Whether nothing is left of it after at most so many steps, and what this turn has left."""
        try:
            while self._left > 0 and steps > 0:
                self._left -= 1
                steps -= 1
                next(heap)
        except StopIteration:
            return True
        except Exception:  # a fault with one heap must not keep the others waiting for ever
            logger.exception("work that was put off broke off")
            return True
        return False

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._call_soon(self._turn)

    def _turn(self) -> None:
        """What is put meanwhile, by a step, waits at the end."""
        self._scheduled = False
        until = self._clock() + SECONDS
        while self._heaps:
            self._left = SHARE
            heap = self._heaps.popleft()
            if not self._work(heap, SHARE):
                self._heaps.append(heap)
            if self._clock() >= until:
                break
        if self._heaps:
            self._left = 0
            self._schedule()
        else:
            self._left = MOST
            self._idle.set()
