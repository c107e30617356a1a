"""Writes the table of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from .verdict import AttackRow, HostileLimits  # noqa: TC001 - msgspec needs them

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SCHEMA: Final = 1


class HostileReport(msgspec.Struct):
    """Everything, as ``--json`` writes it. ``whole``: not interrupted."""

    schema: int
    command: str
    machine: dict[str, Any]
    versions: dict[str, str]
    seconds: float
    tls: bool
    limits: HostileLimits
    rows: list[AttackRow]
    whole: bool = False


_COLUMNS: Final[tuple[tuple[str, int, Callable[[AttackRow], str]], ...]] = (
    ("attack", -20, lambda row: row.attack),
    ("verdict", -8, lambda row: "FAILED" if row.faults else "borne"),
    ("quiet p99", 10, lambda row: f"{row.quiet.p99:.1f}"),
    ("ping p50", 9, lambda row: f"{row.attacked.p50:.1f}"),
    ("p99", 9, lambda row: f"{row.attacked.p99:.1f}"),
    ("longest", 9, lambda row: f"{row.attacked.longest:.0f}"),
    ("other p99", 10, lambda row: f"{row.other.p99:.1f}"),
    ("publish", 9, lambda row: f"{row.publish.longest:.0f}"),
    ("newcomer", 9, lambda row: f"{row.newcomer.longest:.0f}"),
    ("lease", 7, lambda row: f"{row.lease:.0f}"),
    ("grown MiB", 10, lambda row: f"{row.grown:.0f}"),
    ("kept", 6, lambda row: f"{row.kept:.0f}"),
    ("loop p99", 9, lambda row: "beyond" if row.loop_p99 < 0 else f"{row.loop_p99:.1f}"),
    ("sent MB", 8, lambda row: f"{row.sent:.1f}"),
    ("log", 5, lambda row: str(row.log_lines)),
)


def head() -> str:
    """The first line."""
    return "".join(f"{name:<{-width}}" if width < 0 else f"{name:>{width}}" for name, width, _ in _COLUMNS)


def line(row: AttackRow) -> str:
    """The line of an attack, and a line for each of its faults."""
    cells = [(text(row), width) for _, width, text in _COLUMNS]
    first = "".join(f"{text:<{-width}}" if width < 0 else f"{text:>{width}}" for text, width in cells)
    return "\n".join([first, *(f"    {fault}" for fault in row.faults)])


def summary(rows: Sequence[AttackRow], asked: int) -> str:
    """The last line."""
    failed = sum(bool(row.faults) for row in rows)
    text = f"{len(rows) - failed} of {len(rows)} attacks were borne"
    return text if len(rows) == asked else f"{text}; {asked - len(rows)} were not made"
