"""Compares two reports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from .result import FIGURES, shown

if TYPE_CHECKING:
    from .result import LoadReport, Phase

SAME: Final = 0.05
"""Differences below this share count as the same, because two runs of one server differ as much."""


class ComparedFigure(NamedTuple):
    """One figure of both reports. ``ratio``: the second to the first, None if the first is 0."""

    name: str
    first: float
    second: float
    ratio: float | None
    verdict: str


def rows(first: Phase, second: Phase) -> list[ComparedFigure]:
    """The figures that both reports have."""
    return [
        _row(name, first.figures[name], second.figures[name])
        for name in FIGURES
        if name in first.figures and name in second.figures
    ]


def _row(name: str, first: float, second: float) -> ComparedFigure:
    ratio = second / first if first else None
    better = FIGURES[name].better
    if not better or ratio is None:
        return ComparedFigure(name, first, second, ratio, "")
    if abs(ratio - 1) < SAME:
        return ComparedFigure(name, first, second, ratio, "same")
    return ComparedFigure(
        name, first, second, ratio, "better" if (ratio < 1) == (better == "less") else "worse"
    )


def differences(first: LoadReport, second: LoadReport) -> list[str]:
    """Differences in circumstances that make the comparison doubtful."""
    found = []
    for name in ("processor", "cores", "memory_mib", "system"):
        one, other = first.machine.get(name), second.machine.get(name)
        if one != other:
            found.append(f"{name}: {one} and {other}")
    if first.cores != second.cores:
        found.append("kept to cores: not alike")
    theirs = {phase.title: phase.sizes for phase in second.phases}
    found += [
        f"{phase.title}: not of the same size"
        for phase in first.phases
        if theirs.get(phase.title, phase.sizes) != phase.sizes
    ]
    for report in (first, second):
        found += [
            f"{report.label}, {phase.title}: {text}"
            for phase in report.phases
            for text in (*phase.faults, *phase.warnings)
        ]
    return found


def markdown(first: LoadReport, second: LoadReport) -> str:
    """A table for each common phase, with the warnings."""
    lines = [f"# {second.label} against {first.label}", ""]
    lines += [f"- first: {first.command} ({first.started})", f"- second: {second.command} ({second.started})"]
    theirs = {phase.title: phase for phase in second.phases}
    for phase in first.phases:
        if phase.title not in theirs:
            lines += ["", f"## {phase.title}", "", "Not run by the second."]
            continue
        lines += [
            "",
            f"## {phase.title}",
            "",
            "| figure | first | second | second / first | |",
            "|---|---|---|---|---|",
        ]
        for row in rows(phase, theirs[phase.title]):
            figure = FIGURES[row.name]
            label = f"{figure.label}, {figure.unit}" if figure.unit else figure.label
            ratio = "" if row.ratio is None else f"{row.ratio:.3g}"
            lines.append(f"| {label} | {shown(row.first)} | {shown(row.second)} | {ratio} | {row.verdict} |")
    mine = {phase.title for phase in first.phases}
    for title in theirs:
        if title not in mine:
            lines += ["", f"## {title}", "", "Not run by the first."]
    if doubts := differences(first, second):
        lines += ["", "## Before you believe it", "", *(f"- {doubt}" for doubt in doubts)]
    return "\n".join(lines) + "\n"
