"""Determines the highest rate of events that a server sustains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from legato.benchmarks.load.result import Phase

RATES: Final = (20, 30, 40, 50, 60, 70, 80, 100)
"""Events per second, to 1,000 subscribers each: what one core of soketi's can nearly do is among them."""

LONGER: Final = 1.05
"""Times its schedule that a phase may take, and :data:`SLACK` seconds besides for the last events to come."""

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
