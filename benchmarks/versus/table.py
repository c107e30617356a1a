"""Writes the rows as a Markdown table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from legato.benchmarks.load.result import FIGURES, shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .rows import Found, Seen

HEAD = (
    "| | servers | target | median | least … greatest | figures, medians | |",
    "|---|---|---|---|---|---|---|",
)


def line(found: Found) -> str:
    """One row."""
    row = found.row
    cells = [
        row.label,
        row.over.server + (f" / {row.under.server}" if row.under else ""),
        f"{row.goal.sign} {row.goal.value:,g} {row.unit}".strip() if row.goal else "report",
        *_measured(found),
        _behind(found),
        found.verdict,
    ]
    return f"| {' | '.join(cells)} |"


def _measured(found: Found) -> tuple[str, str]:
    if found.middle is None:
        return "", ""
    return (
        f"{shown(found.middle)} {found.row.unit}".strip(),
        f"{shown(min(found.values))} … {shown(max(found.values))}",
    )


def _behind(found: Found) -> str:
    """The two figures of a ratio."""
    if found.row.under is None or found.over is None or found.under is None:
        return ""
    unit = FIGURES[found.row.over.figure].unit
    return f"{shown(found.over)} / {shown(found.under)} {unit}".strip()


def doubts(seen: Sequence[Seen]) -> list[str]:
    """Faults and warnings, phase by phase."""
    found = []
    for number, server, phase in seen:
        where = f"round {number}, {server}, {phase.title}"
        found += [f"FAULT: {where}: {fault}" for fault in phase.faults]
        found += [f"Doubtful: {where}: {warning}" for warning in phase.warnings]
    return found


def document(body: Mapping[str, Any], rows: Sequence[Found], seen: Sequence[Seen]) -> str:
    """The whole output: the table, faults and warnings."""
    lines = ["# Side by side", ""]
    lines += [f"- {name}: {text}" for name, text in _facts(body)]
    if body["quick"]:
        lines += ["", "**--quick: all sizes were tiny, whatever the rows say. These figures mean nothing.**"]
    lines += ["", *HEAD, *(line(found) for found in rows)]
    if told := doubts(seen):
        lines += ["", *(f"- {text}" for text in told)]
    return "\n".join(lines) + "\n"


def _facts(body: Mapping[str, Any]) -> list[tuple[str, str]]:
    cores = "; ".join(f"{who}: {', '.join(map(str, to))}" for who, to in body["cores"].items())
    rate = body["soketi_rate"]
    return [
        ("command", body["command"]),
        ("machine", ", ".join(f"{name} {value}" for name, value in body["machine"].items())),
        ("versions", ", ".join(f"{name} {value}" for name, value in body["versions"].items())),
        ("kept to cores", cores or "no"),
        ("begun", body["started"]),
        ("rounds", str(body["rounds"])),
        ("best rate that soketi sustained", "none, or not run" if rate is None else f"{rate:g} events/s"),
    ]
