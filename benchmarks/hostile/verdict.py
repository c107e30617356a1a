"""The measurements of an attack and their limits."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .observers import Sample


class DelayFigures(msgspec.Struct):
    """Delays in milliseconds; zeros without any."""

    count: int = 0
    p50: float = 0.0
    p99: float = 0.0
    longest: float = 0.0


def waits(samples: Iterable[Sample], begin: float, end: float) -> DelayFigures:
    """The delays scheduled between two times."""
    found = sorted(sample.seconds * 1000 for sample in samples if begin <= sample.due < end)
    if not found:
        return DelayFigures()
    return DelayFigures(len(found), _at(found, 0.5), _at(found, 0.99), round(found[-1], 1))


def _at(found: Sequence[float], share: float) -> float:
    return round(found[max(0, math.ceil(len(found) * share) - 1)], 1)


class HostileLimits(msgspec.Struct):
    """The limits. Times in milliseconds, memory in MiB.

    :ivar ratio: p99 may be this many times that of the quiet run, if that is more, for busy machines.
    """

    p99: float = 100.0
    longest: float = 1000.0
    newcomer: float = 1000.0
    ratio: float = 4.0
    grown: float = 64.0
    kept: float = 48.0
    threads: int = 16
    log_lines: int = 200


class AttackRow(msgspec.Struct):
    """One attack. Times in milliseconds, memory in MiB.

    :ivar sent: megabytes that the server read. ``opened``: connections of the attacker.
    :ivar quiet: pings before the attack. ``attacked`` and ``other``: during it, on either node.
    :ivar late: lateness of the observers themselves, which is part of every delay.
    :ivar lease: shortest remaining time of a lease.
    :ivar grown: largest memory growth of the attacked node. ``kept``: growth some time later.
    :ivar loop_p99: p99 of the attacked node's loop delay; -1 beyond its last bucket.
    :ivar faults: the violations; empty if the server withstood the attack.
    """

    attack: str
    group: str
    seconds: float
    sent: float
    opened: int
    quiet: DelayFigures
    attacked: DelayFigures
    other: DelayFigures
    publish: DelayFigures
    newcomer: DelayFigures
    late: float
    lease: float = 0.0
    grown: float = 0.0
    kept: float = 0.0
    threads: int = 0
    cpu: float = 0.0
    loop_p99: float = 0.0
    log_lines: int = 0
    faults: list[str] = msgspec.field(default_factory=list)


def _pings(row: AttackRow, waits: DelayFigures, limits: HostileLimits, where: str) -> list[str]:
    allowed = max(limits.p99, min(limits.ratio * row.quiet.p99, limits.longest)) + row.late
    longest = max(limits.longest, limits.p99) + row.late
    found = []
    if waits.p99 > allowed:
        found.append(f"ping p99 on the {where} node: {waits.p99:g} ms, allowed are {allowed:.0f}")
    if waits.longest > longest:
        found.append(f"longest ping on the {where} node: {waits.longest:g} ms, allowed are {longest:.0f}")
    return found


_BOUNDS: Final[
    tuple[tuple[str, Callable[[AttackRow], float], Callable[[HostileLimits, AttackRow], float]], ...]
] = (
    (
        "a publish took {:.0f} ms",
        lambda row: row.publish.longest,
        lambda limits, row: limits.longest + row.late,
    ),
    (
        "a new client waited {:.0f} ms",
        lambda row: row.newcomer.longest,
        lambda limits, row: limits.newcomer + row.late,
    ),
    ("memory grew by {:.0f} MiB", lambda row: row.grown, lambda limits, _: limits.grown),
    ("memory of {:.0f} MiB was not given back", lambda row: row.kept, lambda limits, _: limits.kept),
    ("{:.0f} more threads", lambda row: row.threads, lambda limits, _: limits.threads),
    ("{:.0f} lines in the log", lambda row: row.log_lines, lambda limits, _: limits.log_lines),
)


def faults(row: AttackRow, limits: HostileLimits) -> list[str]:
    """The exceeded limits."""
    found = _pings(row, row.attacked, limits, "attacked") + _pings(row, row.other, limits, "other")
    if not row.attacked.count:
        found.append("no ping was answered on the attacked node")
    for text, value, bound in _BOUNDS:
        if value(row) > bound(limits, row):
            found.append(f"{text.format(value(row))}, allowed are {bound(limits, row):.0f}")
    return found
