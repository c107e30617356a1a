"""Computes how many worker processes each queue gets. No I/O.

As in Laravel Horizon, a queue's share of the processes follows its share of the waiting, and changes by a
bounded step. Unlike Horizon, waiting is measured by the age of the oldest job, not by an estimate of the
work; and a queue keeps the processes that its running replies need, even if no job waits at the moment.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SETTLED: Final = 1.0
"""Age in seconds below which a job does not count as waiting."""


class Load(NamedTuple):
    """The load of one queue.

    :ivar oldest: age of the oldest waiting job in seconds, 0 without any.
    :ivar running: running replies in the processes of this queue.
    """

    oldest: float
    running: int


class Bounds(NamedTuple):
    """The limits of balancing.

    :ivar least: smallest number of processes per queue.
    :ivar most: largest number of processes of all queues together.
    :ivar shift: processes that a queue gains or loses in one step.
    :ivar concurrency: concurrent replies in one process.
    """

    least: int
    most: int
    shift: int
    concurrency: int


def evenly(queues: Sequence[str], processes: int) -> dict[str, int]:
    """Divide ``processes`` evenly; the first queues get the remainder."""
    each, over = divmod(processes, len(queues))
    return {queue: each + (index < over) for index, queue in enumerate(queues)}


def wanted(loads: Mapping[str, Load], bounds: Bounds) -> dict[str, int]:
    """The number of processes that each queue should have. The sum may exceed ``most``."""
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
    """The number of processes of each queue after one step.

    Queues with too many give up processes first; the queues with the longest waits get them.
    """
    goal = wanted(loads, bounds)
    after = {queue: max(goal[queue], count - bounds.shift) for queue, count in current.items()}
    after = {queue: min(count, current[queue]) for queue, count in after.items()}
    for queue in sorted(goal, key=lambda queue: -loads[queue].oldest):
        free = bounds.most - sum(after.values())
        after[queue] += max(0, min(goal[queue] - current[queue], bounds.shift, free))
    return after
