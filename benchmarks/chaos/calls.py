"""Checks the tool calls of a run: what the log says of them, and what the tools did.

* Each call of the script is in the log once, in its place, and has one result at most; of a complete reply
 exactly one.
* A call that succeeded had its effect exactly once; any other at most once. A call whose tool must not be
 repeated was begun once at most. A call that was not approved was never begun.
* A call that needs an approval was decided once, as the user did.
* Nobody called what no script asks for.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, Final

from .findings import Finding
from .script import NEEDS_APPROVAL, NEVER_REPEATED

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .ledger import CallRecord
    from .record import Kept, LoggedPart, Record, Sent

CALLED: Final = "tool_ready"
RESULT: Final = "tool_result"
ASKED: Final = "tool_approval"
DECIDED: Final = "tool_decision"

NAMES: Final = {CALLED: "calls", RESULT: "results", ASKED: "requests", DECIDED: "decisions"}


def audit(record: Record) -> Iterator[Finding]:
    """Check all calls."""
    by_message: defaultdict[str, list[CallRecord]] = defaultdict(list)
    for call in record.calls:
        by_message[call.message_id].append(call)
    known = {sent.id for sent in record.sent if sent.script.calls}
    for message_id in by_message.keys() - known:
        yield Finding("forged", "tools", message_id, "a tool was called that no script asks for")
    for sent in record.sent:
        kept = record.kept.get(sent.id)
        if sent.script.calls and kept is not None:
            yield from _log(sent, kept)
            yield from _ledger(sent, kept, by_message[sent.id])


def _of_kind(kept: Kept, kind: str) -> list[LoggedPart]:
    return [part for part in kept.parts if part.kind == kind]


def _log(sent: Sent, kept: Kept) -> Iterator[Finding]:
    planned = [(call.tool, call.after) for call in sent.script.calls]
    called = [(part.data["name"], part.token_index) for part in _of_kind(kept, CALLED)]
    if called != planned[: len(called)]:
        yield Finding("forged", "log", sent.id, f"the calls {called} are not those of {sent.script.line!r}")
    yield from _once(sent, kept)
    for kind in (CALLED, RESULT):
        found = len(_of_kind(kept, kind))
        if kept.state == "complete" and found < len(planned):
            yield Finding("lost", "log", sent.id, f"{found} of {len(planned)} {NAMES[kind]}")
    yield from _order(sent, kept)
    for part in _of_kind(kept, DECIDED):
        if part.data["approve"] != sent.script.approve:
            yield Finding("forged", "log", sent.id, f"{part.data['call']}: the user decided otherwise")


def _once(sent: Sent, kept: Kept) -> Iterator[Finding]:
    """Each part of a call is in the log once, and none of a call that was not made."""
    ids = {part.data["call"] for part in _of_kind(kept, CALLED)}
    for kind, name in NAMES.items():
        for call, count in Counter(part.data["call"] for part in _of_kind(kept, kind)).items():
            if count > 1:
                yield Finding("repeated", "log", sent.id, f"{count} {name} of {call}")
            if call not in ids:
                yield Finding("forged", "log", sent.id, f"{name} of {call}, which was not called")


def _order(sent: Sent, kept: Kept) -> Iterator[Finding]:
    """A result comes behind its call, and before any later text."""
    called = {part.data["call"]: part for part in _of_kind(kept, CALLED)}
    for part in _of_kind(kept, RESULT):
        call = called.get(part.data["call"])
        if call and (part.offset < call.offset or part.token_index != call.token_index):
            yield Finding("reordered", "log", sent.id, f"the result of {part.data['call']}")


def _ledger(sent: Sent, kept: Kept, made: Sequence[CallRecord]) -> Iterator[Finding]:
    results = {part.data["call"]: part.data for part in _of_kind(kept, RESULT)}
    tools = {part.data["call"]: part.data["name"] for part in _of_kind(kept, CALLED)}
    by_id = {call.call: call for call in made}
    for call in made:
        if tools.get(call.call) != call.tool:
            yield Finding("forged", "tools", sent.id, f"{call.tool} was called as {call.call}")
        if call.effects > 1:
            yield Finding("repeated", "tools", sent.id, f"{call.effects} effects of {call.call}")
        if call.tool in NEVER_REPEATED and call.begun > 1:
            yield Finding("repeated", "tools", sent.id, f"{call.call} was begun {call.begun} times")
        if call.tool in NEEDS_APPROVAL and not sent.script.approve:
            yield Finding("forged", "tools", sent.id, f"{call.call} was called without approval")
    for call_id, result in results.items():
        if result["ok"] and not (call_id in by_id and by_id[call_id].effects):
            yield Finding("lost", "tools", sent.id, f"{call_id} succeeded without an effect")


def figures(record: Record) -> Mapping[str, int]:
    """Counts of what was checked."""
    parts: list[LoggedPart] = [part for kept in record.kept.values() for part in kept.parts]
    counts: Counter[Any] = Counter(part.kind for part in parts)
    return {
        "tool calls": counts[CALLED],
        "approvals": counts[DECIDED],
        "tools interrupted": sum(max(0, call.begun - call.ended) for call in record.calls),
    }
