"""The steps of an agent's reply, without a log: for which calls a person is asked, and how a step ends."""

from __future__ import annotations

import msgspec
import pytest

from legato.protocol import parts
from legato.protocol.stream import Usage
from legato.worker.agents import Agent, tool
from legato.worker.providers import base
from legato.worker.replies.log import StoredLog
from legato.worker.replies.steps import Steps


@tool(needs_approval=True)
async def pay(amount: int) -> int:
    """Pay."""
    return amount


def asked_for(arguments: str) -> list[str]:
    """The calls that wait for an approval, after a step with one call of ``pay``."""
    steps = Steps(Agent(tools=[pay]))
    steps.take(base.ToolCall("c1", "pay", arguments))
    new = steps.complete(base.Final("tool_use", Usage(), []), 0)
    return [part.call for part in new if part.kind == parts.ApprovalRequested.kind]


def test_a_person_is_asked_only_for_a_call_that_can_be_made() -> None:
    assert asked_for('{"amount": 5}') == ["c1"]
    for arguments in ("{}", '{"amount": "5"}', '{"amount": 5, "more": 1}', "[5]", "nonsense"):
        assert asked_for(arguments) == [], arguments


def test_what_a_step_reports_is_bounded() -> None:
    steps = Steps(Agent())
    (new,) = steps.complete(base.Final("r" * 1_000_000, Usage(2**70, 1), []), 0)
    told = msgspec.json.decode(new.data, type=parts.StepCompleted)
    assert told == parts.StepCompleted(1, "r" * 64, Usage(2**31 - 1, 1))


@pytest.mark.parametrize(
    ("reason", "goes_on"), [("pause_turn", True), ("compaction", True), ("end_turn", False), ("new", False)]
)
def test_after_a_pause_the_model_is_asked_again_also_by_the_next_worker(reason: str, goes_on: bool) -> None:
    end, steps = base.Final(reason, Usage(), [{"type": "compaction"}]), Steps(Agent())
    assert steps.goes_on(end) is goes_on
    (new,) = steps.complete(end, 0)
    found = Steps(Agent(), StoredLog([parts.LogEntry(new.kind, new.data, 0)], {0: new.private}))
    assert found.over == ("" if goes_on else reason)
    assert found.finished == steps.finished == [base.Step([{"type": "compaction"}])]
