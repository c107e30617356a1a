"""Determines the highest rate of events that a server sustains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from legato.benchmarks.load.result import Phase

RATES: Final = (20, 30, 40, 50, 60, 70, 80, 100)
"""Events per second to try, to 1,000 subscribers each. One core of soketi sustains some of them."""

LONGER: Final = 1.05
"""Longest duration of a phase: a factor of its schedule, and :data:`SLACK` seconds for the last events."""

SLACK: Final = 0.5
LONGEST_P99: Final = 1000.0
"""Longest p99 in milliseconds; a longer one means a growing queue."""


def sustained(phase: Phase) -> bool:
    """Whether all events arrived, on schedule and with a short delay."""
    return (
        phase.delivery is not None
        and not phase.faults
        and phase.delivery.received > 0
        and phase.seconds <= phase.sizes["seconds"] * LONGER + SLACK
        and phase.figures["latency_p99_ms"] < LONGEST_P99
    )


def best(phases: Iterable[Phase]) -> float | None:
    """The highest sustained rate; None without one."""
    return max((phase.sizes["rate"] for phase in phases if sustained(phase)), default=None)
