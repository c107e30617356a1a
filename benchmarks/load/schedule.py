"""Send times fixed beforehand, so that a server that stalls does not delay further requests."""

from __future__ import annotations

import asyncio
import ctypes
import heapq
import os
import sys
import time
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

MICRO: Final = 1_000_000


def now() -> int:
    """Microseconds of the monotonic clock, which all processes of a machine share."""
    return time.monotonic_ns() // 1000


class Pace(NamedTuple):
    """A steady rate.

    :ivar begin: microseconds.
    :ivar rate: per second, above 0.
    :ivar offset: of the first, in intervals, so that processes that share a rate take turns.
    """

    begin: int
    rate: float
    offset: float = 0.0

    def due(self, number: int) -> int:
        """Send time of number ``number``, from 0. Computed from the start, so that errors do not add up."""
        return self.begin + round((number + self.offset) * MICRO / self.rate)

    def until(self, end: int) -> Iterator[int]:
        """All send times before ``end``."""
        number = 0
        while (moment := self.due(number)) < end:
            yield moment
            number += 1


class Alarm:
    """Wakes tasks at a given time, to about 0.1 ms. Timers of an event loop have whole milliseconds.

    Uses ``timerfd`` on Linux, and the loop's timers elsewhere.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._count = 0
        self._libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
        self._file = -1
        if self._libc is not None:
            self._file = self._libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._file >= 0:
            self._loop.add_reader(self._file, self._ring)

    async def until(self, moment: int) -> None:
        """Wait until a time. Yields to other tasks even if it has passed."""
        wait = moment - now()
        if wait <= 0 or self._file < 0:
            await asyncio.sleep(max(0, wait) / MICRO)
            return
        future: asyncio.Future[None] = self._loop.create_future()
        self._count += 1
        heapq.heappush(self._waiting, (moment, self._count, future))
        if self._waiting[0][2] is future:
            self._set(moment)
        await future

    def _ring(self) -> None:
        try:
            os.read(self._file, 8)
        except BlockingIOError:
            return
        passed = now()
        while self._waiting and self._waiting[0][0] <= passed:
            future = heapq.heappop(self._waiting)[2]
            if not future.done():
                future.set_result(None)
        if self._waiting:
            self._set(self._waiting[0][0])

    def _set(self, moment: int) -> None:
        """``struct itimerspec``: no repetition, then seconds and nanoseconds; 1 is ``TFD_TIMER_ABSTIME``."""
        seconds, rest = divmod(moment, MICRO)
        value = (ctypes.c_long * 4)(0, 0, seconds, rest * 1000)
        if self._libc is not None:
            self._libc.timerfd_settime(self._file, 1, value, None)

    def close(self) -> None:
        """Close the timer."""
        if self._file >= 0:
            self._loop.remove_reader(self._file)
            os.close(self._file)
            self._file = -1
