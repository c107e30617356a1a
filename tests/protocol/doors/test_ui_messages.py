"""The UI message stream: the sample files, and rules of the client for any reply."""

from __future__ import annotations

import json

import pytest
from hypothesis import given

from legato.protocol import parts
from legato.protocol.doors import projection, ui_messages
from legato.protocol.doors.base import corrected
from legato.protocol.doors.ui_messages import UiMessages

from . import lives
from .lives import COMPLETE, LIVES, Life


def chunks(life: Life, *, reset_step: bool = False) -> list[dict[str, object]]:
    return [json.loads(one) for one in lives.told(UiMessages(reset_step=reset_step), life)]


@pytest.mark.parametrize("name", LIVES)
def test_sample_is_told_byte_by_byte(name):
    assert lives.body(ui_messages.FRAMING, UiMessages(), LIVES[name]) == lives.golden(f"ui-{name}.sse")


class Client:
    """What the client of the SDK enforces. It keeps the parts of the message."""

    def __init__(self) -> None:
        self.parts: dict[str, str] = {}
        self.step: set[str] = set()
        self.open: set[str] = set()
        self.calls: dict[str, str] = {}
        self.ends = 0

    def take(self, chunk: dict[str, object]) -> None:
        assert not self.ends, "a chunk behind the end"
        assert None not in [value for name, value in chunk.items() if name not in ("input", "output")]
        kind, id_ = str(chunk["type"]), str(chunk.get("id", ""))
        if kind == "reset-step":
            assert not self.open
            self.parts = {name: text for name, text in self.parts.items() if name not in self.step}
            self.calls = {name: state for name, state in self.calls.items() if name not in self.step}
            self.step = set()
        elif kind in ("start-step", "finish-step"):
            assert not self.open
            self.step = set()
        elif kind.startswith("tool-"):
            self._take_tool(kind, str(chunk["toolCallId"]))
        elif kind.endswith("-start"):
            assert id_ not in self.parts
            self.parts[id_] = ""
            self.open.add(id_)
            self.step.add(id_)
        elif kind.endswith("-delta"):
            assert id_ in self.open
            assert chunk["delta"]
            self.parts[id_] += str(chunk["delta"])
        elif kind.endswith("-end"):
            assert self.parts[id_], "an empty part"
            self.open.remove(id_)
        elif kind in ("finish", "abort", "error"):
            self.ends += 1
            assert not self.open

    def _take_tool(self, kind: str, call: str) -> None:
        before = {
            "tool-input-start": (None,),
            "tool-input-delta": ("tool-input-start",),
            "tool-input-available": ("tool-input-start",),
            "tool-output-available": ("tool-input-available",),
            "tool-output-error": ("tool-input-available",),
        }[kind]
        assert self.calls.get(call) in before
        if kind != "tool-input-delta":
            self.calls[call] = kind
        self.step.add(call)

    @property
    def text(self) -> str:
        return "".join(text for name, text in self.parts.items() if name.startswith("t"))


@given(lives.ANY, lives.CUTS)
def test_any_reply_obeys_the_client_and_does_not_depend_on_cuts(life, cuts):
    for reset_step in (False, True):
        messages = lives.told(UiMessages(reset_step=reset_step), life, cuts)
        assert messages == lives.told(UiMessages(reset_step=reset_step), life)
        client = Client()
        for message in messages:
            client.take(json.loads(message))
        assert client.ends == 1
        if json.loads(messages[-1]).get("errorText") != ui_messages.RETRACTED:
            assert client.text == life.text


@given(lives.ANY)
def test_nothing_of_a_corrected_log_is_retracted(life):
    door = UiMessages()
    messages = [*door.begin(lives.OPENING), *door.feed(corrected(life.pieces)), *door.end(COMPLETE)]
    client = Client()
    for message in messages:
        client.take(json.loads(message))
    assert client.text == life.text
    assert json.loads(messages[-1])["type"] == "finish"


def test_step_is_told_anew_without_what_is_retracted():
    life = Life(
        ("So", *lives.WEATHER, "It", *lives.reasoning("Hm"), parts.Retracted(7), " is"),
        COMPLETE,
    )
    kinds = [chunk["type"] for chunk in chunks(life, reset_step=True)]
    at = kinds.index("reset-step")
    assert kinds[at:] == [
        *("reset-step", "text-start", "text-delta", "text-delta", "text-end"),
        *("finish-step", "finish"),
    ]
    assert chunks(life)[-1] == {"type": "error", "errorText": ui_messages.RETRACTED}


def test_step_that_is_reset_twice_has_its_text_once():
    life = Life((parts.Retracted(0), "Hi", parts.Retracted(1), "!"), COMPLETE)
    client = Client()
    for chunk in chunks(life, reset_step=True):
        client.take(chunk)
    assert client.text == "Hi!"


def test_step_before_cannot_be_reset():
    life = Life((*lives.reasoning("Hm"), *lives.WEATHER, "It", parts.Retracted(0)), COMPLETE)
    assert chunks(life, reset_step=True)[-1]["type"] == "error"


def test_what_readers_may_not_see_is_no_null():
    said = (
        parts.ToolCalled("a", "secret"),
        parts.ToolFinished("a", "secret", ok=True),
        parts.ToolCalled("b", "secret"),
        parts.ToolFinished("b", "secret", ok=False, denied=True),
        parts.ToolCalled("c", "secret"),
        parts.ToolFinished("c", "secret", ok=False),
    )
    found = [chunk for chunk in chunks(Life(said, COMPLETE)) if "toolCallId" in chunk]
    assert [chunk.get("input") for chunk in found if chunk["type"] == "tool-input-available"] == [{}] * 3
    assert [
        chunk.get("output", chunk.get("errorText")) for chunk in found if "output" in str(chunk["type"])
    ] == [
        "",
        projection.DENIED_TOOL,
        projection.FAILED_TOOL,
    ]


def test_approvals_and_sources_are_parts_of_the_message():
    said = (
        parts.ToolCalled("a", "pay", {"sum": 1}),
        parts.ApprovalRequested("a", "pay", 99, {"sum": 1}),
        parts.ApprovalDecided("a", approve=True),
        parts.ToolFinished("a", "pay", ok=True, output=1),
        parts.CitationReceived("https://a.test", "A"),
        parts.CitationReceived("https://b.test"),
        parts.CitationReceived(source="book"),
    )
    found = [c for c in chunks(Life(said, COMPLETE)) if c["type"] in ("data-approval", "source-url")]
    asked = {"toolCallId": "a", "name": "pay", "expiresAt": 99, "input": {"sum": 1}, "state": "requested"}
    assert found == [
        {"type": "data-approval", "id": "a", "data": asked},
        {
            "type": "data-approval",
            "id": "a",
            "data": {"toolCallId": "a", "approve": True, "state": "decided"},
        },
        {"type": "source-url", "sourceId": "s1", "url": "https://a.test", "title": "A"},
        {"type": "source-url", "sourceId": "s2", "url": "https://b.test"},
    ]
