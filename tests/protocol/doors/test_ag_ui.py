"""AG-UI: the sample files, what the client enforces for any reply, snapshots and interrupts."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from legato.protocol import parts
from legato.protocol.doors import ag_ui
from legato.protocol.doors.ag_ui import AgUi
from legato.protocol.doors.ag_ui_request import RunInput, RunMessage, ToolAnswer

from . import lives
from .lives import COMPLETE, LIVES, OPENING, Life

if TYPE_CHECKING:
    from collections.abc import Iterable

ASKED = msgspec.Raw(b'{"id":"u1","role":"user","content":"Greet Ann."}')
RUN = RunInput("c42", "run-1", [RunMessage("u1", ASKED)])
OLD = RUN._replace(knows_outcomes=False)


def read(events: Iterable[bytes]) -> list[dict[str, Any]]:
    return [json.loads(event) for event in events]


@pytest.mark.parametrize("name", LIVES)
def test_sample_is_told_byte_by_byte(name):
    assert lives.body(ag_ui.FRAMING, AgUi(RUN), LIVES[name]) == lives.golden(f"agui-{name}.sse")


def test_sample_of_a_return_is_told_byte_by_byte():
    door = AgUi(
        RUN._replace(messages=[*RUN.messages, RunMessage("m7f3", ASKED), RunMessage("m7f3-s2", ASKED)])
    )
    events = [*door.begin(OPENING), *door.attach(["Hello, "]), *door.feed(["Ann."]), *door.end(COMPLETE)]
    assert ag_ui.FRAMING.join(events).decode() == lives.golden("agui-resume.sse")


class Client:
    """What the client enforces, and the messages that it has in the end."""

    def __init__(self) -> None:
        self.messages: dict[str, dict[str, Any]] = {}
        self.open: set[str] = set()
        self.over = ""

    def take(self, event: dict[str, Any]) -> None:
        assert not self.over, "an event behind the end"
        assert None not in event.values()
        kind, id_ = event["type"], event.get("messageId", "")
        if kind == "MESSAGES_SNAPSHOT":
            assert not self.open
            self.messages = {one["id"]: one for one in event["messages"]}
        elif kind.startswith("TOOL_CALL_") and kind != "TOOL_CALL_RESULT":
            self._take_call(kind, event)
        elif kind == "TOOL_CALL_RESULT":
            assert id_ not in self.messages
            self.messages[id_] = {"content": event["content"]}
        elif kind.endswith("_MESSAGE_START"):
            self._opened(id_)
            self.messages.setdefault(id_, {"content": ""})
        elif kind.endswith("_MESSAGE_CONTENT"):
            assert id_ in self.open
            assert event["delta"]
            self.messages[id_]["content"] += event["delta"]
        elif kind.endswith("_MESSAGE_END"):
            self.open.remove(id_)
        elif kind in ("RUN_FINISHED", "RUN_ERROR"):
            assert not self.open
            self.over = kind

    def _take_call(self, kind: str, event: dict[str, Any]) -> None:
        call = event["toolCallId"]
        if kind == "TOOL_CALL_START":
            self._opened(call)
            message = self.messages.setdefault(event["parentMessageId"], {"content": ""})
            message.setdefault("toolCalls", []).append({"id": call, "function": {"arguments": ""}})
        elif kind == "TOOL_CALL_ARGS":
            assert call in self.open
            self._call(call)["function"]["arguments"] += event["delta"]
        else:
            self.open.remove(call)

    def _opened(self, id_: str) -> None:
        assert id_ not in self.open
        self.open.add(id_)

    def _call(self, call: str) -> dict[str, Any]:
        calls = [one for message in self.messages.values() for one in message.get("toolCalls", ())]
        return next(one for one in reversed(calls) if one["id"] == call)

    @property
    def text(self) -> str:
        return "".join(
            one["content"] for name, one in self.messages.items() if name.split("-")[-1][0] in "ms"
        )


@given(lives.ANY, lives.CUTS, st.integers(0, 25))
def test_any_reply_obeys_the_client(life, cuts, came_back):
    events = lives.told(AgUi(OLD), life, cuts)
    assert events == lives.told(AgUi(OLD), life)
    door, pieces = AgUi(OLD), life.pieces
    returned = [*door.begin(OPENING), *door.attach(pieces[:came_back])]
    returned += [*door.feed(pieces[came_back:]), *door.end(life.decision)]
    for told in (events, returned):
        client = Client()
        for event in read(told):
            client.take(event)
        assert client.over
        assert client.text == life.text


def test_reply_starts_over_without_what_is_retracted():
    life = Life(("So", *lives.reasoning("Hm"), *lives.WEATHER[:2], parts.Retracted(1), " is"), COMPLETE)
    events = read(lives.told(AgUi(RUN), life))
    at = next(at for at, event in enumerate(events) if event["type"] == "MESSAGES_SNAPSHOT")
    assert events[at - 1]["type"] == "TOOL_CALL_END"
    assert events[at]["messages"] == [
        json.loads(bytes(ASKED)),
        {"id": "m7f3", "role": "assistant", "content": "So"},
    ]
    assert events[at + 1] == {"type": "TEXT_MESSAGE_START", "messageId": "m7f3", "role": "assistant"}


def test_call_that_is_being_written_begins_anew_behind_a_snapshot():
    life = Life(
        (*lives.WEATHER[:2], *lives.reasoning("Hm"), parts.Retracted(2), *lives.WEATHER[2:4]), COMPLETE
    )
    client = Client()
    for event in read(lives.told(AgUi(RUN), life)):
        client.take(event)
    assert client._call("toolu_1")["function"]["arguments"] == '{"city":"Paris"}'


def test_who_comes_back_gets_calls_and_results():
    said = (
        *lives.WEATHER,
        parts.ToolCalled("b", "secret"),
        parts.ToolFinished("b", "secret", ok=True),
        parts.ToolCalled("c", "sum"),
        parts.ToolFinished("c", "sum", ok=True, output={"sum": 3}),
        parts.ToolCalled("d", "sum"),
        parts.ToolFinished("d", "sum", ok=False, error="Too large."),
        *lives.reasoning("Hm"),
    )
    door = AgUi(RUN)
    door.begin(OPENING)
    (snapshot,) = read(door.attach(Life(said, COMPLETE).pieces))
    _, asked, weather, *rest = snapshot["messages"]
    call = {
        "id": "toolu_1",
        "type": "function",
        "function": {"name": "weather", "arguments": '{"city":"Paris"}'},
    }
    assert asked == {"id": "m7f3", "role": "assistant", "content": "", "toolCalls": [call]}
    assert weather == {"id": "m7f3-toolu_1", "role": "tool", "content": "18 °C", "toolCallId": "toolu_1"}
    assert [one["content"] for one in rest if one["role"] == "tool"] == ["", '{"sum":3}', "Too large."]
    assert rest[0]["toolCalls"][0]["function"]["arguments"] == "{}"
    assert rest[-1] == {"id": "m7f3-r1", "role": "reasoning", "content": "Hm"}


PAY = (
    parts.ToolCalled("a", "pay", {"sum": 1}),
    parts.ToolCalled("b", "look"),
    parts.ApprovalRequested("a", "pay", 1790000000, {"sum": 1}),
)
LOOKED = parts.ToolFinished("b", "look", ok=True, output=1)


def test_run_ends_with_an_interrupt_once_only_approvals_are_missing():
    door, pieces = AgUi(RUN), Life((*PAY, LOOKED, "x"), COMPLETE).pieces
    door.begin(OPENING)
    assert not door.done
    events = read([*door.feed(pieces[:3]), *door.feed(pieces[3:]), *door.end(COMPLETE)])
    assert door.done
    (interrupt,) = events[-1]["outcome"]["interrupts"]
    assert {name: interrupt[name] for name in ("id", "reason", "toolCallId", "message", "expiresAt")} == {
        "id": "a",
        "reason": "tool_approval",
        "toolCallId": "a",
        "message": "Approve the call of pay?",
        "expiresAt": "2026-09-21T14:13:20Z",
    }
    assert events[-2]["type"] == "TOOL_CALL_RESULT"


@given(st.integers(0, 2**34))
@example(951782400)
@example(4107542399)
def test_time_is_that_of_the_calendar(unix):
    wanted = datetime.fromtimestamp(unix, UTC).isoformat().replace("+00:00", "Z")
    assert ag_ui._iso(unix) == wanted


def test_run_with_the_answers_goes_on_with_the_reply():
    door, pieces = (
        AgUi(RUN._replace(answers=[ToolAnswer("a", True, "")])),
        Life((*PAY, LOOKED), COMPLETE).pieces,
    )
    door.begin(OPENING)
    assert [event["type"] for event in read(door.attach(pieces))] == ["MESSAGES_SNAPSHOT"]
    more = (
        parts.ApprovalDecided("a", approve=True),
        parts.ToolFinished("a", "pay", ok=True, output="paid"),
        "Done.",
    )
    events = read([*door.feed(Life(more, COMPLETE).pieces), *door.end(COMPLETE)])
    assert [event["type"] for event in events[:2]] == ["TOOL_CALL_RESULT", "TEXT_MESSAGE_START"]
    assert events[1]["messageId"] == "m7f3-s2"
    assert events[-1]["outcome"] == {"type": "success"}


def test_old_client_waits_for_the_approval_and_gets_no_outcome():
    life = Life((*PAY, LOOKED), lives.CANCELLED)
    assert read(lives.told(AgUi(OLD), life))[-1] == {
        "type": "RUN_FINISHED",
        "threadId": "c42",
        "runId": "run-1",
    }


def test_what_is_not_known_is_left_out():
    door = AgUi(RUN)
    door.begin(OPENING._replace(begun=lives.Begun()))
    usage = lives.stream.Usage(1, 2, 0, 4)
    door.feed(Life((parts.CitationReceived("https://a.test", "A"),), COMPLETE).pieces)
    (end,) = read(door.end(lives.Decision("end_turn", usage)))
    assert end["usage"] == [
        {"inputTokens": 1, "outputTokens": 2, "totalTokens": 3, "cacheWriteInputTokens": 4}
    ]
    door = AgUi(RUN)
    door.begin(OPENING)
    (end,) = read(door.end(lives.Decision("end_turn")))
    assert "usage" not in end
