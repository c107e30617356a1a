"""The auditor of tool calls: nothing in a right record, and every single fault in one that was spoilt."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from legato.benchmarks.chaos import ledger
from legato.benchmarks.chaos.audit import audit
from legato.benchmarks.chaos.ledger import CallRecord, Ledger
from legato.benchmarks.chaos.record import Frame, Kept, LoggedPart, ReaderRecord, Record, Sent, TurnRow
from legato.benchmarks.chaos.script import PlannedCall, ReplyScript, call_id
from legato.worker.providers import base
from legato.worker.providers.scripted import Scripted
from tests.benchmarks.chaos.right import ID, completed, steady, token

WORDS = 12
CALLS = (PlannedCall("charge", 3), PlannedCall("refund", 3), PlannedCall("mail", 6))
SCRIPT = ReplyScript(WORDS, 20, calls=CALLS)
IDS = [call_id(ID, number) for number in range(3)]
LOG = tuple(f"w{index} " for index in range(WORDS))


def entry(kind: str, call: int, **data: Any) -> tuple[str, dict[str, Any], int]:
    return kind, {"call": IDS[call], **data}, CALLS[call].after


ENTRIES = [
    entry("tool_ready", 0, name="charge"),
    entry("tool_ready", 1, name="refund"),
    ("step", {"step": 1}, 3),
    entry("tool_approval", 1, name="refund"),
    entry("tool_result", 0, name="charge", ok=True, output={}),
    entry("tool_decision", 1, approve=True),
    entry("tool_result", 1, name="refund", ok=True, output={}),
    entry("tool_ready", 2, name="mail"),
    ("step", {"step": 2}, 6),
    entry("tool_result", 2, name="mail", ok=True, output="sent"),
]
EVENTS = {
    "tool_ready": "tool.called",
    "step": "step.completed",
    "tool_approval": "tool.approval_requested",
    "tool_decision": "tool.approval_decided",
    "tool_result": "tool.finished",
}
PARTS = tuple(
    LoggedPart(index + count, index, kind, data) for count, (kind, data, index) in enumerate(ENTRIES)
)
ROWS = (TurnRow("user", SCRIPT.line, "complete"), TurnRow("assistant", "".join(LOG), "complete"))
KEPT = Kept("complete", WORDS + len(PARTS), 1, LOG, "complete", "", ROWS, PARTS)
MADE = [
    CallRecord(IDS[0], "charge", ID, begun=2, effects=1, ended=1),
    CallRecord(IDS[1], "refund", ID, begun=1, effects=1, ended=1),
    CallRecord(IDS[2], "mail", ID, begun=1, effects=1, ended=1),
]


def frame(part: LoggedPart) -> Frame:
    own = {"messageId": ID, "offset": part.offset, "tokenIndex": part.token_index}
    return Frame(2.0 + part.token_index / 10, EVENTS[part.kind], {**own, **part.data})


def reader(parts: tuple[LoggedPart, ...] = PARTS) -> ReaderRecord:
    frames = [*map(token, range(WORDS)), *map(frame, parts)]
    ordered = sorted(frames, key=lambda one: (one.data["tokenIndex"], one.event == "token.received"))
    return replace(steady(), entries=[steady().entries[0], *ordered, completed()])


def spoilt(made: list[CallRecord] = MADE, kept: Kept = KEPT, **fields: Any) -> Record:
    script = fields.pop("script", SCRIPT)
    rows = (replace(ROWS[0], content=script.line), ROWS[1])
    kept = replace(kept, rows=rows, next=kept.entries)
    whole = reader(kept.parts)
    return Record([Sent(ID, "7", script, 1.0, 4.1)], {ID: kept}, [fields.pop("told", whole)], calls=made)


def kinds(record: Record) -> set[tuple[str, str]]:
    return {(finding.kind, finding.place) for finding in audit(record).findings}


def test_a_right_record_is_clean() -> None:
    assert list(audit(spoilt()).findings) == []
    figures = audit(spoilt()).figures
    assert (figures["tool calls"], figures["approvals"], figures["tools interrupted"]) == (3, 1, 1)
    assert figures["parts"] == len(PARTS)


def changed(call: int, **fields: Any) -> list[CallRecord]:
    return [one._replace(**fields) if number == call else one for number, one in enumerate(MADE)]


@pytest.mark.parametrize(
    ("made", "kind"),
    [
        (changed(0, effects=2), "repeated"),
        (changed(0, effects=0), "lost"),
        (MADE[1:], "lost"),
        (changed(2, begun=2), "repeated"),
        (changed(1, tool="mail"), "forged"),
        ([*MADE, MADE[0]._replace(message_id="m9")], "forged"),
        ([*MADE, MADE[0]._replace(call="call_x_7")], "forged"),
    ],
)
def test_a_wrong_effect_is_found(made: list[CallRecord], kind: str) -> None:
    assert kinds(spoilt(made)) == {(kind, "tools")}


def test_a_call_without_approval_is_found() -> None:
    script = SCRIPT._replace(approve=False)
    assert kinds(spoilt(script=script)) == {("forged", "tools"), ("forged", "log")}


def renumbered(entries: list[tuple[str, dict[str, Any], int]]) -> Kept:
    parts = tuple(
        LoggedPart(index + count, index, kind, data) for count, (kind, data, index) in enumerate(entries)
    )
    return replace(KEPT, parts=parts)


@pytest.mark.parametrize(
    ("entries", "kind"),
    [
        (ENTRIES[:-1], "lost"),
        ([*ENTRIES, ENTRIES[-1]], "repeated"),
        ([*ENTRIES[:6], ENTRIES[5], *ENTRIES[6:]], "repeated"),
        ([ENTRIES[4], *ENTRIES[:4], *ENTRIES[5:]], "reordered"),
        ([*ENTRIES[:4], *ENTRIES[5:9], (*ENTRIES[4][:2], 6), ENTRIES[9]], "reordered"),
        ([ENTRIES[1], ENTRIES[0], *ENTRIES[2:]], "forged"),
        ([*ENTRIES, ("tool_result", {"call": "x", "name": "mail", "ok": False}, 6)], "forged"),
    ],
)
def test_a_wrong_log_is_found(entries: list[tuple[str, dict[str, Any], int]], kind: str) -> None:
    assert (kind, "log") in kinds(spoilt(kept=renumbered(entries)))


@pytest.mark.parametrize("part", range(len(PARTS)))
def test_a_part_that_a_reader_missed_or_got_twice_or_otherwise_is_found(part: int) -> None:
    whole = reader()
    mine = frame(PARTS[part])
    at = whole.entries.index(mine)
    missed = replace(whole, entries=[one for one in whole.entries if one != mine])
    assert kinds(spoilt(told=missed)) == {("gap", "live")}
    twice = replace(whole, entries=[*whole.entries[:at], mine, *whole.entries[at:]])
    assert kinds(spoilt(told=twice)) == {("repeated", "live")}
    other = replace(mine, data={**mine.data, "secret": 1})
    wrong = replace(whole, entries=[other if one == mine else one for one in whole.entries])
    assert kinds(spoilt(told=wrong)) == {("forged", "live")}


def test_parts_in_another_order_are_found() -> None:
    whole = reader()
    first, second = whole.entries.index(frame(PARTS[0])), whole.entries.index(frame(PARTS[1]))
    entries = list(whole.entries)
    entries[first], entries[second] = entries[second], entries[first]
    assert ("reordered", "live") in kinds(spoilt(told=replace(whole, entries=entries)))


def test_the_ledger_counts_calls_and_effects(tmp_path: Any) -> None:
    path = tmp_path / "ledger.db"
    ledger.create(path)
    with Ledger(path) as opened:
        for call, key in (("a", "a"), ("a", "a"), ("b", ""), ("b", "")):
            opened.begun(call, "charge", "m")
            opened.effect(call, key)
        opened.ended("a")
    assert sorted(ledger.read(path)) == [
        CallRecord("a", "charge", "m", begun=2, effects=1, ended=1),
        CallRecord("b", "charge", "m", begun=2, effects=2, ended=0),
    ]


async def test_the_scripted_provider_makes_the_planned_calls() -> None:
    """Ids, text and places are those that the auditor expects."""
    steps: list[base.Step] = []
    text, seen = "", []
    while True:
        request = base.ProviderRequest(SCRIPT._replace(rate=0).line, message_id=ID, steps=tuple(steps))
        calls = []
        async for event in Scripted().stream(request):
            if isinstance(event, base.Text):
                text += event.text
            elif isinstance(event, base.ToolCall):
                calls.append(event)
                seen.append((event.call, event.name, text.count("w")))
            elif isinstance(event, base.Final):
                content = event.content
        if not calls:
            break
        outputs = tuple(base.ToolOutput(call.call, call.name, "ok") for call in calls)
        steps.append(base.Step(content, outputs))
    assert text == SCRIPT.text
    assert seen == [(IDS[number], call.tool, call.after) for number, call in enumerate(CALLS)]
