"""The rows of the table: ratios, round by round, and their targets."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Final, NamedTuple

from .contestants import BASELINE, LEGATO, OVER_REDIS, SOKETI

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from legato.benchmarks.load.result import Phase


class Seen(NamedTuple):
    """One phase. ``round`` counts from 1."""

    round: int
    server: str
    phase: Phase


class FigurePlace(NamedTuple):
    """Locates a figure: measurement, phase and server."""

    measure: str
    phase: str
    server: str
    figure: str


class Goal(NamedTuple):
    """A target. ``sign``: ``≤`` or ``≥``."""

    sign: str
    value: float

    def reached(self, value: float) -> bool:
        """Whether a value reaches the target."""
        return value <= self.value if self.sign == "≤" else value >= self.value


class FigureRow(NamedTuple):
    """One row: ``over`` divided by ``under``, or ``over`` alone in ``unit`` if there is no ``under``."""

    label: str
    over: FigurePlace
    under: FigurePlace | None = None
    goal: Goal | None = None
    unit: str = ""


class Found(NamedTuple):
    """A row filled in.

    :ivar values: one of each round in which both figures were measured.
    :ivar over: median of the first figure, and ``under`` of the second; None if it was not measured.
    :ivar verdict: ``reached`` or ``missed``, by the median; ``not run``, ``not measured``; empty without a
        goal.
    """

    row: FigureRow
    values: list[float]
    over: float | None
    under: float | None
    verdict: str

    @property
    def middle(self) -> float | None:
        """The median."""
        return median(self.values) if self.values else None


def _both(
    label: str, places: tuple[str, str, str], pair: tuple[str, str], goal: Goal | None = None
) -> FigureRow:
    """One figure of two servers. ``places``: measure, phase and figure."""
    measure, phase, figure = places
    over, under = (FigurePlace(measure, phase, server, figure) for server in pair)
    return FigureRow(label, over, under, goal)


_PACED: Final = ("fanout", "paced", "server_cpu_us_per_delivery")
_STORM: Final = ("connect", "storm", "server_cpu_us_per_connection")
_RAMP: Final = ("connect", "ramp", "server_cpu_us_per_connection")


def _held(server: str) -> FigurePlace:
    return FigurePlace("idle", "held", server, "server_bytes_per_connection")


ROWS: Final = (
    _both(
        "fan-out, paced 100/s to 1,000: server CPU per delivery", _PACED, (LEGATO, BASELINE), Goal("≤", 1.4)
    ),
    _both("fan-out, paced 100/s to 1,000: server CPU per delivery", _PACED, (SOKETI, BASELINE)),
    _both(
        "fan-out, flat out, 32 HTTP publishers: deliveries per second of server CPU",
        ("fanout", "flat out", "deliveries_per_server_cpu_second"),
        (LEGATO, SOKETI),
        Goal("≥", 15),
    ),
    _both(
        "p99 delivery latency at soketi's best sustained rate",
        ("latency", "paced", "latency_p99_ms"),
        (LEGATO, SOKETI),
        Goal("≤", 0.2),
    ),
    _both(
        "HTTP publish, flat out: server CPU per request",
        ("publish", "flat out", "server_cpu_us_per_request"),
        (LEGATO, SOKETI),
        Goal("≤", 0.6),
    ),
    _both(
        "HTTP publish, paced: server CPU per request",
        ("publish", "paced", "server_cpu_us_per_request"),
        (LEGATO, SOKETI),
    ),
    FigureRow(
        "streams through Redis, 1,000 users, 10,000 tokens/s: broadcaster CPU per token, to the baseline's "
        "per paced delivery",
        FigurePlace("streams", "through Redis", OVER_REDIS, "server_cpu_us_per_delivery"),
        FigurePlace("fanout", "paced", BASELINE, "server_cpu_us_per_delivery"),
        Goal("≤", 2.2),
    ),
    _both(
        "connect + private subscribe, storm: server CPU per connection",
        _STORM,
        (LEGATO, SOKETI),
        Goal("≤", 0.7),
    ),
    _both("connect + private subscribe, ramp: server CPU per connection", _RAMP, (LEGATO, SOKETI)),
    _both("connect + private subscribe, storm: server CPU per connection", _STORM, (LEGATO, BASELINE)),
    _both("connect + private subscribe, ramp: server CPU per connection", _RAMP, (LEGATO, BASELINE)),
    FigureRow(
        "resident memory per idle subscribed connection", _held(LEGATO), goal=Goal("≤", 8192), unit="bytes"
    ),
    FigureRow("resident memory per idle subscribed connection", _held(SOKETI), unit="bytes"),
    FigureRow("resident memory per idle subscribed connection", _held(BASELINE), unit="bytes"),
    FigureRow(
        "loop delay p99 during flushes to 10,000 subscribers",
        FigurePlace("flushes", "paced", LEGATO, "loop_delay_p99_ms"),
        goal=Goal("≤", 10),
        unit="ms",
    ),
)


def figures(seen: Sequence[Seen]) -> dict[FigurePlace, dict[int, float]]:
    """All figures, by place and round."""
    found: dict[FigurePlace, dict[int, float]] = {}
    for number, server, phase in seen:
        for name, value in phase.figures.items():
            found.setdefault(FigurePlace(phase.scenario, phase.name, server, name), {})[number] = value
    return found


def fill(row: FigureRow, known: Mapping[FigurePlace, Mapping[int, float]], servers: Collection[str]) -> Found:
    """Fill in the row from ``known``; ``servers`` are those that ran."""
    over = known.get(row.over, {})
    under = known.get(row.under, {}) if row.under else dict.fromkeys(over, 1.0)
    values = [over[number] / under[number] for number in sorted(over) if under.get(number)]
    return Found(
        row,
        values,
        median(over.values()) if over else None,
        median(under.values()) if row.under and under else None,
        _verdict(row, values, servers),
    )


def _verdict(row: FigureRow, values: Sequence[float], servers: Collection[str]) -> str:
    if any(place is not None and place.server not in servers for place in (row.over, row.under)):
        return "not run"
    if not values:
        return "not measured"
    if row.goal is None:
        return ""
    return "reached" if row.goal.reached(median(values)) else "missed"
