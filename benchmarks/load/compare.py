"""Compares two reports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from .result import FIGURES, shown

if TYPE_CHECKING:
    from .result import LoadReport, Phase

BOTH: Final = ("first", "second")
WORDS: Final = {"better": "figures better", "worse": "worse", "same": "the same"}

SAME: Final = 0.05
"""Differences below this share count as the same, because two runs of one server differ as much."""


class ComparedFigure(NamedTuple):
    """One figure of both reports. ``ratio``: the second to the first, None if the first is 0."""

    name: str
    first: float
    second: float
    ratio: float | None
    verdict: str


class PhaseComparison(NamedTuple):
    """A phase of either report. ``missing``: who has not run it; then there are no rows."""

    title: str
    rows: list[ComparedFigure]
    missing: str


def labels(first: LoadReport, second: LoadReport) -> tuple[str, str]:
    """Their names, which tell them apart also if both were given the same."""
    one, other = first.label, second.label
    return (f"{one} ({BOTH[0]})", f"{other} ({BOTH[1]})") if one == other else (one, other)


def phases(first: LoadReport, second: LoadReport) -> list[PhaseComparison]:
    """All phases of the first, then those that only the second has."""
    mine = {phase.title: phase for phase in first.phases}
    theirs = {phase.title: phase for phase in second.phases}
    found = []
    for title, phase in mine.items():
        other = theirs.get(title)
        found.append(
            PhaseComparison(title, [], BOTH[1])
            if other is None
            else PhaseComparison(title, rows(phase, other), "")
        )
    return found + [PhaseComparison(title, [], BOTH[0]) for title in theirs if title not in mine]


def verdict(first: LoadReport, second: LoadReport) -> str:
    """How the second compares, in one line."""
    found = [row.verdict for phase in phases(first, second) for row in phase.rows]
    if not found:
        return "they have no figure in common"
    counts = [f"{found.count(word)} {text}" for word, text in WORDS.items()]
    _, name = labels(first, second)
    return f"{name}: {', '.join(counts)}" + ("; doubtful, see the end" if differences(first, second) else "")


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
    for report, name in zip((first, second), labels(first, second), strict=True):
        found += [f"{name}: {report.cut}"] if report.cut else []
        found += [
            f"{name}, {phase.title}: {text}"
            for phase in report.phases
            for text in (*phase.faults, *phase.warnings)
        ]
    return found


def markdown(first: LoadReport, second: LoadReport) -> str:
    """A table for each common phase, with the warnings."""
    one, other = labels(first, second)
    lines = [f"# {other} against {one}", "", f"{verdict(first, second)}.", ""]
    lines += [f"- first: {first.command} ({first.started})", f"- second: {second.command} ({second.started})"]
    for phase in phases(first, second):
        lines += ["", f"## {phase.title}", ""]
        if phase.missing:
            lines.append(f"Not run by the {phase.missing}.")
            continue
        lines += ["| figure | first | second | second / first | |", "|---|---|---|---|---|"]
        lines += [f"| {' | '.join(cells(row))} |" for row in phase.rows]
    if doubts := differences(first, second):
        lines += ["", "## Before you believe it", "", *(f"- {doubt}" for doubt in doubts)]
    return "\n".join(lines) + "\n"


def cells(row: ComparedFigure) -> tuple[str, str, str, str, str]:
    """A row of a table: the figure, both values, their ratio and the verdict."""
    figure = FIGURES[row.name]
    label = f"{figure.label}, {figure.unit}" if figure.unit else figure.label
    ratio = "" if row.ratio is None else f"{row.ratio:.3g}"
    return label, shown(row.first), shown(row.second), ratio, row.verdict
