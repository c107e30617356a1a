"""The timer of the webhooks fires once, at the earliest time it was set to."""

from __future__ import annotations

import asyncio

from legato.broadcaster.webhooks.timer import Timer
from tests.waiting import until

NEVER = 3_600.0


class Fired:
    """A timer that counts how often it has fired."""

    def __init__(self) -> None:
        self.times = 0
        self.timer = Timer(self._fire)

    def _fire(self) -> None:
        self.times += 1

    def set_in(self, seconds: float) -> None:
        self.timer.set(asyncio.get_running_loop().time() + seconds)


async def test_the_earliest_time_counts_whenever_it_was_set():
    fired = Fired()
    fired.set_in(NEVER)
    fired.set_in(0.01)
    fired.set_in(NEVER)
    await until(lambda: fired.times)


async def test_it_fires_once_until_it_is_set_again():
    fired, after = Fired(), Fired()
    fired.set_in(0.02)
    fired.set_in(0.01)
    after.set_in(0.05)
    await until(lambda: after.times)
    assert fired.times == 1
    fired.set_in(NEVER)
    fired.set_in(0.01)
    await until(lambda: fired.times == 2)


async def test_none_changes_nothing_and_a_cancelled_timer_does_not_fire():
    unset, kept, cancelled, after = Fired(), Fired(), Fired(), Fired()
    unset.timer.set(None)
    kept.set_in(0.01)
    kept.timer.set(None)
    cancelled.set_in(0.01)
    cancelled.timer.cancel()
    after.set_in(0.05)
    await until(lambda: kept.times and after.times)
    assert (unset.times, cancelled.times) == (0, 0)
    cancelled.set_in(0.01)
    await until(lambda: cancelled.times)
