"""The auditor: checks a whole run. A pure function from a record to findings.

The checks:

* **log**: the words of the script, each once, in order, up to the end of the reply; all of them if it is
 complete. One end: that of the script, or cancelled if a cancel was requested.
* **tools**: see :mod:`.calls`.
* **database**: the user's turn and the reply's turn, once each, with that text and that end.
* **live**: see :mod:`.live`.
* **whole**: see :mod:`.whole`.
* **queue**: no job is left, and only replies without attempts left are dead letters.
* **list**, **api**: see :mod:`.room`. **webhooks**: see :mod:`.hooks`.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from . import calls, hooks, live, room, whole
from .findings import Finding, flaws
from .record import ENDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .record import Kept, Record, Rules, Sent

CANCEL_SLACK: Final = 128
"""Tokens that may follow an accepted cancel: an append in flight, with as many as one append can have."""

_WORD: Final = re.compile(r"w(0|[1-9]\d*) ")


@dataclass(frozen=True)
class AuditResult:
    """The result of the audit; ``findings`` are violations."""

    findings: Sequence[Finding]
    figures: Mapping[str, int]

    @property
    def clean(self) -> bool:
        """Whether there is no violation, and the run is not empty."""
        return not self.findings and bool(self.figures["complete"]) and bool(self.figures["frames"])


def audit(record: Record) -> AuditResult:
    """Check a run."""
    findings = [*_strangers(record), *_queue(record)]
    for sent in record.sent:
        kept = record.kept.get(sent.id)
        if kept is None:
            findings.append(Finding("lost", "log", sent.id, "Redis does not know the message"))
        else:
            findings += _log(sent, kept)
            findings += _ending(sent, kept, record.rules)
            findings += _rows(sent, kept)
    for reader in record.readers:
        findings += live.audit(reader, record)
        findings += whole.audit(reader, record)
    findings += calls.audit(record)
    if record.room is not None:
        findings += room.audit(record.room)
        findings += hooks.audit(record.room)
    return AuditResult(findings, _figures(record))


def _strangers(record: Record) -> Iterator[Finding]:
    for stranger in record.strangers:
        yield Finding("forged", "log", stranger, "nobody submitted this message")


def _queue(record: Record) -> Iterator[Finding]:
    if record.jobs_left:
        yield Finding("left over", "queue", "-", f"{record.jobs_left} jobs are still in the stream")
    for message_id, reason in record.dead.items():
        kept = record.kept.get(message_id)
        if kept is not None and kept.state == "failed" and kept.attempt > record.rules.tries:
            continue  # no attempts left: a legitimate dead letter
        yield Finding("left over", "queue", message_id, f"a dead letter: {reason}")


def _log(sent: Sent, kept: Kept) -> Iterator[Finding]:
    text, wanted = "".join(kept.log), sent.script.text
    if kept.next != kept.entries:
        yield Finding("lost", "log", sent.id, f"next is {kept.next}, but the log has {kept.entries} entries")
    if not wanted.startswith(text):
        yield from _words(sent, text)
    elif kept.state == "complete" and text != wanted:
        words = len(_WORD.findall(text))
        yield Finding("lost", "log", sent.id, f"complete with {words} of {sent.script.tokens} words")


def _words(sent: Sent, text: str) -> Iterator[Finding]:
    """Why ``text`` is not a prefix of the script's text."""
    numbers = [int(word) for word in _WORD.findall(text)]
    rest = _WORD.sub("", text)
    beyond = [number for number in numbers if number >= sent.script.tokens]
    if rest or beyond:
        detail = f"w{beyond[0]} is beyond the script" if beyond else f"{rest[:40]!r} is not of the script"
        yield Finding("forged", "log", sent.id, detail)
    for kind, at in flaws([number for number in numbers if number < sent.script.tokens], 0):
        yield Finding(kind, "log", sent.id, f"w{at}")


def _ending(sent: Sent, kept: Kept, rules: Rules) -> Iterator[Finding]:
    if kept.state not in ENDS:
        yield Finding("missing ending", "log", sent.id, f"still {kept.state}")
        return
    said = f"{kept.state} ({kept.code})" if kept.code else kept.state
    if kept.decided != kept.state:
        yield Finding("wrong ending", "log", sent.id, f"{said}, but decided was {kept.decided or 'nothing'}")
    if not _may_end(sent, kept, rules):
        asked = " and a cancel" if sent.cancel_index is not None else ""
        detail = (
            f"{said} after {len(kept.log)} tokens and {kept.attempt} attempts of {sent.script.line!r}{asked}"
        )
        yield Finding("wrong ending", "log", sent.id, detail)
    if sent.cancel_index is not None and kept.next - sent.cancel_index > CANCEL_SLACK:
        detail = f"{kept.next - sent.cancel_index} more tokens after the cancel had been accepted"
        yield Finding("wrong ending", "log", sent.id, detail)


def _may_end(sent: Sent, kept: Kept, rules: Rules) -> bool:
    """Whether the reply may have this end."""
    if kept.state == "cancelled":
        return sent.cancel_index is not None
    if kept.state == "complete":
        return sent.script.completes(kept.attempt, continues=rules.continues)
    if kept.code == "interrupted" and kept.attempt >= (rules.tries if rules.continues else 2):
        return True
    return sent.script.fails(kept.code, continues=rules.continues)


def _rows(sent: Sent, kept: Kept) -> Iterator[Finding]:
    if kept.state not in ENDS:
        return
    wanted = {"user": (sent.script.line, "complete"), "assistant": ("".join(kept.log), kept.state)}
    counts = Counter(row.role for row in kept.rows)
    for role in wanted:
        if counts[role] != 1:
            kind = "repeated" if counts[role] else "lost"
            yield Finding(kind, "database", sent.id, f"{counts[role]} turns of the {role}")
    for row in kept.rows:
        content, status = wanted.get(row.role, ("", ""))
        if row.status != status:
            detail = f"the {row.role}'s turn is {row.status}, the message {status}"
            yield Finding("wrong ending", "database", sent.id, detail)
        if row.content != content:
            kind = "lost" if content.startswith(row.content) else "forged"
            detail = f"the {row.role}'s turn has {len(row.content)} characters instead of {len(content)}"
            yield Finding(kind, "database", sent.id, detail)


def _figures(record: Record) -> Mapping[str, int]:
    """Counts of what was checked."""
    ends = Counter(kept.state for kept in record.kept.values())
    return {
        "messages": len(record.sent),
        **{state: ends[state] for state in sorted(ENDS)},
        "tokens": sum(len(kept.log) for kept in record.kept.values()),
        "claimed again": sum(max(0, kept.attempt - 1) for kept in record.kept.values()),
        **calls.figures(record),
        **live.figures(record.readers),
        **({} if record.room is None else hooks.figures(record.room)),
    }
