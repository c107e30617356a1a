"""Writes the outcome of a run as text and as JSON."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from .findings import KINDS, PLACES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .audit import AuditResult
    from .findings import Finding

SHOWN: Final = 20


@dataclass(frozen=True)
class RunOutcome:
    """An audited run.

    :ivar command: the command that replays it.
    :ivar versions: versions of all programs that took part.
    :ivar faults: number of injected faults of each kind.
    :ivar observed: further observations of the processes.
    """

    command: str
    versions: Mapping[str, str]
    faults: Mapping[str, int]
    observed: Mapping[str, int]
    verdict: AuditResult


def text(outcome: RunOutcome) -> str:
    """The outcome as text: counts, the table, the first violations, and how to replay them."""
    verdict = outcome.verdict
    lines = [
        ", ".join(f"{name} {version}" for name, version in outcome.versions.items()),
        "faults   " + _counts(outcome.faults),
        "seen     " + _counts(verdict.figures),
        "also     " + _counts(outcome.observed),
        "",
        *table(verdict.findings),
    ]
    shown = verdict.findings[:SHOWN]
    lines += ["", *(_line(finding) for finding in shown)] if shown else []
    if len(verdict.findings) > SHOWN:
        lines.append(f"... and {len(verdict.findings) - SHOWN} more; --json has all")
    return "\n".join([*lines, "", conclusion(outcome), ""])


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "none"


def table(findings: Sequence[Finding]) -> list[str]:
    """Violations by kind and place."""
    counts = Counter((finding.kind, finding.place) for finding in findings)
    head = "".join(f"{place:>10}" for place in PLACES)
    rows = [f"{kind:<16}" + "".join(f"{counts[kind, place]:>10}" for place in PLACES) for kind in KINDS]
    return [f"{'violations':<16}{head}", *rows]


def _line(finding: Finding) -> str:
    return f"{finding.kind} ({finding.place}): {finding.who}: {finding.detail}"


def conclusion(outcome: RunOutcome) -> str:
    """One line."""
    verdict = outcome.verdict
    if verdict.clean:
        return (
            f"clean: {verdict.figures['messages']} messages, {verdict.figures['frames']} frames, no violation"
        )
    what = (
        f"{len(verdict.findings)} violations"
        if verdict.findings
        else "nothing happened, so nothing is proven"
    )
    return f"NOT clean: {what}; replay with: {outcome.command}"


def interrupted(command: str, faults: Mapping[str, int], progress: str) -> str:
    """What is known of a run that was interrupted, as text. It is not audited: replies had no time to end.

    :param progress: how far it was.
    """
    how_far = f"interrupted after {progress.strip()}"
    return f"faults   {_counts(faults)}\n\n{how_far}; nothing is proven; replay with: {command}\n"


def interrupted_json(command: str, faults: Mapping[str, int], progress: str) -> str:
    """The same as ``{"clean": false, "interrupted", "command", "faults"}``."""
    body = {"clean": False, "interrupted": progress.strip(), "command": command, "faults": dict(faults)}
    return json.dumps(body, indent=2) + "\n"


def as_json(outcome: RunOutcome) -> str:
    """``{"clean", "command", "versions", "faults", "figures", "observed", "violations"}``."""
    verdict = outcome.verdict
    body = {
        "clean": verdict.clean,
        "command": outcome.command,
        "versions": dict(outcome.versions),
        "faults": dict(outcome.faults),
        "figures": dict(verdict.figures),
        "observed": dict(outcome.observed),
        "violations": [asdict(finding) for finding in verdict.findings],
    }
    return json.dumps(body, indent=2) + "\n"
