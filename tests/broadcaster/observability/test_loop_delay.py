"""The loop delay, with a clock that the test controls."""

from __future__ import annotations

import asyncio

import pytest

from legato.broadcaster.observability import loop_delay
from legato.broadcaster.observability.loop_delay import BOUNDS, LoopDelay
from tests.waiting import until


class Timer:
    """A loop with one timer, as its own handle."""

    def __init__(self) -> None:
        self.now = 100.0
        self.waits: list[float] = []
        self.look = None
        self.probe = LoopDelay(self.call_later, lambda: self.now)
        self.probe.start()

    def call_later(self, seconds: float, look) -> Timer:
        self.waits.append(seconds)
        self.look = look
        return self

    def cancel(self) -> None:
        self.look = None

    def late(self, seconds: float) -> None:
        """Fire the timer this long after it was due."""
        self.now += self.waits[-1] + seconds
        self.look()


@pytest.mark.parametrize(
    ("late", "waits"),
    [
        (0.0001, [0.0001]),
        (-0.0009, [0.0]),
        (0.0007, [0.0007]),
        (0.004, [0.004]),
        (0.0199, [0.0199]),
        (0.073, [0.073, 0.053, 0.033, 0.013]),  # it was due four times while the loop was held
        (1.593, [1.593 - 0.02 * time for time in range(80)]),
    ],
)
def test_a_busy_loop_shows_in_the_right_buckets(late, waits):
    timer = Timer()
    timer.late(late)
    beyond = [sum(wait > bound for wait in waits) for bound in BOUNDS]
    assert sum(timer.probe.counts) == len(waits)
    assert [sum(timer.probe.counts[place:]) for place in range(1, len(BOUNDS) + 1)] == beyond
    assert timer.probe.sum == pytest.approx(sum(waits), abs=1e-9)


def test_it_measures_periodically():
    timer = Timer()
    for late in (0.0, 0.005, 0.045, -0.0005):
        timer.late(late)
    assert timer.waits == pytest.approx([0.02, 0.02, 0.015, 0.015, 0.0205])


def test_a_process_that_was_stopped_for_long_does_not_count_for_long():
    timer = Timer()
    timer.late(1_000_000)
    counted = sum(timer.probe.counts)
    assert counted == pytest.approx(loop_delay.LOOP_DELAY_MAX_MISSED, abs=1)
    timer.late(0)
    assert sum(timer.probe.counts) == counted + 1


def test_it_ends():
    timer = Timer()
    timer.probe.close()
    timer.probe.close()
    assert timer.look is None


async def test_it_measures_a_real_loop():
    """The loop is busy for as long as the test's clock says, however slow the machine is."""
    ahead = 0.0
    loop = asyncio.get_running_loop()
    probe = LoopDelay(loop.call_later, lambda: loop.time() + ahead)
    probe.start()
    await until(lambda: sum(probe.counts) >= 3)
    ahead = 10.0
    await until(lambda: probe.counts[-1])
    probe.close()
