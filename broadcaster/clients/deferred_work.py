"""Does large batches of work in small steps, so that they do not block the event loop.

A batch is the work after one loss: a client with thousands of subscriptions leaves, or thousands of clients
are closed for one reason. A batch is an iterator; each ``next`` does one step.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from legato.broadcaster.limits import DEFERRED_STEPS_PER_BATCH, DEFERRED_STEPS_PER_TURN, DEFERRED_TURN_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

logger: Final = logging.getLogger("legato.node")

LOW: Final = DEFERRED_STEPS_PER_TURN // 2
"""With fewer steps left, the count is reset in the next turn. Each reset costs a callback of the loop."""


class DeferredWork:
    """Does work at once while there is little of it, else a part in each turn of the loop.

    :param call_soon: runs a function in the next turn of the loop.
    :param clock: a clock in seconds. Not the loop's: uvloop updates its clock only once per turn.
    """

    def __init__(
        self,
        call_soon: Callable[[Callable[[], None]], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._call_soon = call_soon
        self._clock = clock
        self._batches: deque[Iterator[None]] = deque()
        self._left = DEFERRED_STEPS_PER_TURN
        self._scheduled = False
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        return len(self._batches)

    def take(self, steps: int) -> bool:
        """Reserve steps for work that the caller does itself. Returns whether this turn has enough left."""
        left = self._left - steps
        if left < LOW:
            self._schedule()
            if left < 0:
                return False
        self._left = left
        return True

    def put(self, batch: Iterator[None]) -> bool:
        """Start a batch. Returns whether it is done already; else the following turns go on with it."""
        done = self._work(batch, DEFERRED_STEPS_PER_TURN)
        if not done:
            self._left = 0  # later work waits, too
            self._batches.append(batch)
            self._idle.clear()
        if self._left < LOW or not done:
            self._schedule()
        return done

    async def done(self) -> None:
        """Wait until no batch is left."""
        await self._idle.wait()

    def _work(self, batch: Iterator[None], steps: int) -> bool:
        """Do up to ``steps`` steps, within what this turn has left. Returns whether the batch is done."""
        try:
            while self._left > 0 and steps > 0:
                self._left -= 1
                steps -= 1
                next(batch)
        except StopIteration:
            return True
        except Exception:  # an error in one batch must not stop the others
            logger.exception("deferred work failed")
            return True
        return False

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._call_soon(self._turn)

    def _turn(self) -> None:
        """Go on with the batches, in rotation. A batch that a step adds is queued at the end."""
        self._scheduled = False
        until = self._clock() + DEFERRED_TURN_SECONDS
        while self._batches:
            self._left = DEFERRED_STEPS_PER_BATCH
            batch = self._batches.popleft()
            if not self._work(batch, DEFERRED_STEPS_PER_BATCH):
                self._batches.append(batch)
            if self._clock() >= until:
                break
        if self._batches:
            self._left = 0
            self._schedule()
        else:
            self._left = DEFERRED_STEPS_PER_TURN
            self._idle.set()
