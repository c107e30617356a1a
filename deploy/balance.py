"""How many worker processes each queue gets. Arithmetic only: who measures and who starts are elsewhere.

As in Laravel Horizon: a queue's share of the processes is its share of the waiting, and changes by a bounded
step at a time. Other than there, what waits is measured by age, not by an estimate of the work in it; and
processes that are busy with long replies are not taken away because nothing waits for the moment.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SETTLED: Final = 1.0
"""Seconds below which a job does not count as waiting: it is on its way to a worker."""


class Load(NamedTuple):
    """One queue.

    :ivar oldest: seconds that the oldest job waits, 0 when none does.
    :ivar running: replies that run in the processes of this queue.
    """

    oldest: float
    running: int


class Bounds(NamedTuple):
    """What balancing keeps to.

    :ivar least: processes that each queue has.
    :ivar most: processes of all queues together.
    :ivar shift: processes that a queue gains or loses in one step.
    :ivar concurrency: replies at once in one process.
    """

    least: int
    most: int
    shift: int
    concurrency: int


def evenly(queues: Sequence[str], processes: int) -> dict[str, int]:
    """``processes`` shared out; what is left over goes to the queues named first."""
    each, over = divmod(processes, len(queues))
    return {queue: each + (index < over) for index, queue in enumerate(queues)}


def wanted(loads: Mapping[str, Load], bounds: Bounds) -> dict[str, int]:
    """The processes each queue should have if they could be had at once; together they may be too many."""
    ages = {queue: load.oldest if load.oldest >= SETTLED else 0.0 for queue, load in loads.items()}
    total = sum(ages.values())
    most_of_one = bounds.most - bounds.least * (len(loads) - 1)
    found = {}
    for queue, load in loads.items():
        share = math.ceil(bounds.most * ages[queue] / total) if ages[queue] else 0
        busy = math.ceil(load.running / bounds.concurrency)
        found[queue] = min(most_of_one, max(bounds.least, share, busy))
    return found


def step(current: Mapping[str, int], loads: Mapping[str, Load], bounds: Bounds) -> dict[str, int]:
    """The processes each queue has after one step.

    Those that have too many give first, and what is free then goes to where jobs wait longest.
    """
    goal = wanted(loads, bounds)
    after = {queue: max(goal[queue], count - bounds.shift) for queue, count in current.items()}
    after = {queue: min(count, current[queue]) for queue, count in after.items()}
    for queue in sorted(goal, key=lambda queue: -loads[queue].oldest):
        free = bounds.most - sum(after.values())
        after[queue] += max(0, min(goal[queue] - current[queue], bounds.shift, free))
    return after
