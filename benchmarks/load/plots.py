"""Draws plots as self-contained SVG."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING, Final, NamedTuple

from .result import shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

WIDTH: Final = 460
HEIGHT: Final = 220
LEFT: Final = 62
RIGHT: Final = 24
TOP: Final = 26
BOTTOM: Final = 34
COLOURS: Final = ("#1f6feb", "#d1242f", "#1a7f37", "#9a6700")

TICKS: Final = 4

Point = tuple[float, float]


class Axis(NamedTuple):
    """An axis. ``ticks``: positions and labels."""

    least: float
    most: float
    ticks: Sequence[tuple[float, str]]
    label: str

    def share(self, value: float) -> float:
        """The position of ``value``, 0 to 1."""
        return (value - self.least) / (self.most - self.least or 1)


def linear(values: Iterable[float], label: str) -> Axis:
    """An axis from 0 to at least the greatest value."""
    most = max(values, default=0) or 1
    step = _round_step(most / TICKS)
    top = step * math.ceil(most / step)
    ticks = [(number * step, shown(number * step)) for number in range(round(top / step) + 1)]
    return Axis(0, top, ticks, label)


def _round_step(rough: float) -> float:
    """The next 1, 2 or 5 times a power of ten, not below ``rough``."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999999)


def plot(title: str, lines: Mapping[str, Sequence[Point]], x: Axis, y: Axis) -> str:
    """A plot of several lines on one pair of axes."""
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">',
        f'<text x="{LEFT}" y="14" class="t">{escape(title)}</text>',
        *_axes(x, y),
    ]
    for number, (name, points) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        places = " ".join(f"{_x(x, a):.1f},{_y(y, b):.1f}" for a, b in points)
        parts.append(f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        if len(lines) > 1:
            at = WIDTH - RIGHT - 70 * (len(lines) - number)
            parts.append(f'<text x="{at}" y="14" fill="{colour}">{escape(name)}</text>')
    return "".join(parts) + "</svg>"


def _x(axis: Axis, value: float) -> float:
    return LEFT + axis.share(value) * (WIDTH - LEFT - RIGHT)


def _y(axis: Axis, value: float) -> float:
    return HEIGHT - BOTTOM - axis.share(value) * (HEIGHT - TOP - BOTTOM)


def _axes(x: Axis, y: Axis) -> list[str]:
    parts = []
    for value, text in y.ticks:
        at = _y(y, value)
        parts.append(f'<path d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}" class="g"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{at + 4:.1f}" text-anchor="end">{escape(text)}</text>')
    for value, text in x.ticks:
        at = _x(x, value)
        parts.append(f'<path d="M{at:.1f} {TOP}V{HEIGHT - BOTTOM}" class="g"/>')
        parts.append(f'<text x="{at:.1f}" y="{HEIGHT - 20}" text-anchor="middle">{escape(text)}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 5}" text-anchor="middle">{escape(x.label)}</text>')
    parts.append(
        f'<text x="{WIDTH - RIGHT}" y="{TOP - 2}" text-anchor="end" class="u">{escape(y.label)}</text>'
    )
    return parts


def percentiles(title: str, histogram: Mapping[int, int]) -> str:
    """Latency over percentiles: the further right, the rarer. ``histogram``: counts by microseconds."""
    total, seen = sum(histogram.values()), 0
    points: list[Point] = []
    for value in sorted(histogram):
        rarity = math.log10(total / (total - seen))  # the share of values that are at least this large
        points.append((rarity, value / 1000))
        seen += histogram[value]
        points.append((math.log10(total / max(total - seen, 1)), value / 1000))
    most = max(1, math.ceil(math.log10(total)))
    names = ["0 %", "90 %", "99 %", "99.9 %", "99.99 %", "99.999 %", "99.9999 %"]
    ticks = [(float(place), name) for place, name in enumerate(names[: most + 1])]
    return plot(
        title,
        {"": points},
        Axis(0, most, ticks, "percentile"),
        linear((value for _, value in points), "ms"),
    )


def timeline(title: str, unit: str, lines: Mapping[str, Sequence[Point]]) -> str:
    """Values over the seconds of a phase."""
    seconds = [at for points in lines.values() for at, _ in points]
    values = [value for points in lines.values() for _, value in points]
    return plot(title, lines, linear(seconds, "seconds"), linear(values, unit))
