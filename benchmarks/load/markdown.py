"""Writes a report as Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import verdict
from .result import FIGURES, shown

if TYPE_CHECKING:
    from .result import LoadReport, Phase


def facts(report: LoadReport) -> list[tuple[str, str]]:
    """The machine, the versions and the command."""
    found = {**report.machine}
    load = found.pop("load_before", None)
    pinned = "; ".join(f"{who}: {', '.join(map(str, cores))}" for who, cores in report.cores.items())
    return [
        ("server", report.label),
        ("command", report.command),
        ("machine", ", ".join(f"{name} {value}" for name, value in found.items())),
        ("load before", str(load)),
        ("kept to cores", pinned or "no"),
        ("versions", ", ".join(f"{name} {value}" for name, value in report.versions.items())),
        ("begun", report.started),
        *([("left out", "; ".join(report.left_out))] if report.left_out else []),
    ]


def document(report: LoadReport) -> str:
    """All figures, as tables."""
    found = verdict.of(report)
    lines = [f"# legato bench: {report.label}", "", f"**{found.state}**: {found.text}.", ""]
    lines += [f"- {name}: {value}" for name, value in facts(report)]
    for phase in report.phases:
        lines += ["", f"## {phase.title}", "", sizes(phase), "", "| figure | |", "|---|---|"]
        lines += [f"| {label} | {value} |" for label, value in rows(phase)]
        lines += [f"\n**FAULT: {fault}**" for fault in phase.faults]
        lines += [f"\nDoubtful: {warning}." for warning in phase.warnings]
    return "\n".join(lines) + "\n"


def rows(phase: Phase) -> list[tuple[str, str]]:
    """The figures with their units."""
    found = []
    if phase.delivery is not None:
        delivery = phase.delivery
        text = f"{delivery.received:,} of {delivery.expected:,} ({delivery.ratio:.4%})"
        found.append(("came", text))
    for name, figure in FIGURES.items():
        if name in phase.figures:
            found.append((figure.label, f"{shown(phase.figures[name])} {figure.unit}".strip()))
    return found


def sizes(phase: Phase) -> str:
    """The sizes of a phase."""
    s = phase.sizes
    return (
        f"{s['connections']:g} connections, rate {s['rate']:g}/s, {s['seconds']:g} s, "
        f"{s['size']:g} characters, "
        f"{s['publishers']:g} publishers; took {phase.seconds:.1f} s"
    )


MAIN = (
    *("deliveries_per_second", "requests_per_second", "connections_per_second", "latency_p99_ms"),
    *("server_cpu_us_per_delivery", "server_cpu_us_per_connection", "server_bytes_per_connection"),
)


def line(phase: Phase) -> str:
    """A phase in one line."""
    parts = [
        f"{FIGURES[name].label} {shown(phase.figures[name])} {FIGURES[name].unit}".strip()
        for name in MAIN
        if name in phase.figures
    ]
    state = "FAULT" if phase.faults else ("doubtful" if phase.warnings else "ok")
    return f"{phase.title:<28} {state:<8} {', '.join(parts)}" + "".join(
        f"\n{'':<28} {text}" for text in phase.faults
    )
