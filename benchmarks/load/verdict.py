"""What a report comes to, in one line: for the top of what people read."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .result import LoadReport


class LoadVerdict(NamedTuple):
    """``state``: ``ok``, ``doubtful``, ``fault`` or ``incomplete``; the worst that holds. ``text``: why."""

    state: str
    text: str


def of(report: LoadReport) -> LoadVerdict:
    """Judge a whole report. One that was cut short proves nothing, but its faults are faults."""
    count = len(report.phases)
    faulty = [phase.title for phase in report.phases if phase.faults]
    doubtful = [phase.title for phase in report.phases if phase.warnings]
    begun = f"{report.cut}; what follows was measured before" if report.cut else ""
    if faulty:
        text = f"{len(faulty)} of {count} phases have faults: {', '.join(faulty)}"
        return LoadVerdict("fault", f"{text}. {begun}" if begun else text)
    if begun:
        return LoadVerdict("incomplete", begun)
    text = f"no faults in {count} phases: every event that was due came once and in order"
    if doubtful:
        return LoadVerdict("doubtful", f"{text}. Figures of {len(doubtful)} are doubtful; each says why")
    return LoadVerdict("ok", text)
