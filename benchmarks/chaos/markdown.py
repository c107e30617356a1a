"""Writes the report of several seeds as Markdown."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from .figures import MADE_UP_FOR
from .findings import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from .series import SeedResult

LISTED: Final = 50


def report(command: str, machine: Mapping[str, object], date: str, results: Sequence[SeedResult]) -> str:
    """The report: command, machine, versions, and the verdict per seed and in all."""
    made = [result.outcome for result in results if result.outcome is not None]
    lines = ["# Delivery report", "", *_head(command, machine, date, results, made), ""]
    lines += ["## Verdict", "", *_verdict(results, made), ""]
    lines += ["## Seeds", "", *_seeds(results), ""]
    lines += ["## Violations", "", *_violations(made), ""]
    lines += ["## Faults", "", *_counts("fault", "carried out", _sum(made, "faults")), ""]
    lines += ["## Seen", "", *_counts("what", "count", _sum(made, "figures") + _sum(made, "observed"))]
    return "\n".join(lines) + "\n"


def conclusion(results: Sequence[SeedResult]) -> str:
    """One line."""
    clean = sum(result.clean for result in results)
    if clean == len(results):
        return f"clean: {clean} of {len(results)} seeds"
    bad = ", ".join(str(result.seed) for result in results if not result.clean)
    return f"NOT clean: seeds {bad}; {clean} of {len(results)} are clean"


def _head(
    command: str,
    machine: Mapping[str, object],
    date: str,
    results: Sequence[SeedResult],
    made: Sequence[Mapping[str, Any]],
) -> list[str]:
    versions = made[0]["versions"] if made else {}
    where = f"{machine['processor']}, {machine['cores']} cores, {machine['memory_mib']} MiB"
    return [
        "What is done and what is demanded: [Delivery proof](chaos.md). This report was made by",
        "",
        f"    {command}",
        "",
        f"- {date}; {len(results)} seeds",
        f"- {where}, {machine['system']}",
        f"- {', '.join(f'{name} {version}' for name, version in versions.items()) or 'nothing ran'}",
    ]


def _verdict(results: Sequence[SeedResult], made: Sequence[Mapping[str, Any]]) -> list[str]:
    figures = _sum(made, "figures")
    seen = f"{figures['messages']} messages, {figures['frames']} token frames at the readers"
    violations = sum(len(outcome["violations"]) for outcome in made)
    faults = sum(_sum(made, "faults").values())
    return [f"**{conclusion(results)}**. {seen}, {faults} faults, {violations} violations."]


def _seeds(results: Iterable[SeedResult]) -> list[str]:
    head = ("seed", "verdict", "messages", "token frames", "faults", "violations", "tokens made up for")
    return _table(head, (_row(result) for result in results))


def _row(result: SeedResult) -> tuple[object, ...]:
    outcome = result.outcome
    if outcome is None:
        return (result.seed, f"did not run: {result.said}", *("-",) * 5)
    figures, faults = outcome["figures"], sum(outcome["faults"].values())
    verdict = "clean" if outcome["clean"] else "**not clean**"
    counts = (figures["messages"], figures["frames"], faults)
    return (result.seed, verdict, *counts, len(outcome["violations"]), outcome["observed"][MADE_UP_FOR])


def _violations(made: Sequence[Mapping[str, Any]]) -> list[str]:
    counts = Counter(finding["kind"] for outcome in made for finding in outcome["violations"])
    lines = _table(("kind", "count"), ((kind, counts[kind]) for kind in KINDS))
    listed = [
        f"- `{outcome['command']}`: {found['kind']} ({found['place']}): {found['who']}: {found['detail']}"
        for outcome in made
        for found in outcome["violations"]
    ]
    more = [f"- and {len(listed) - LISTED} more"] if len(listed) > LISTED else []
    return [*lines, "", *listed[:LISTED], *more] if listed else lines


def _counts(name: str, what: str, counts: Mapping[str, int]) -> list[str]:
    return _table((name, what), counts.items())


def _sum(made: Iterable[Mapping[str, Any]], part: str) -> Counter[str]:
    total: Counter[str] = Counter()
    for outcome in made:
        for name, count in outcome[part].items():
            total[name] += count
    return total


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return [*lines, *(f"| {' | '.join(_cell(cell) for cell in row)} |" for row in rows)]


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|")
