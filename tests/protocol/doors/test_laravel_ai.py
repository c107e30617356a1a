"""The events of Laravel's AI SDK: the sample lives, and entries that have several events or none."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from legato.protocol import parts
from legato.protocol.doors import laravel_ai, projection
from legato.protocol.doors.laravel_ai import LaravelAi, LaravelSnapshot, ReplyTeller

from . import lives
from .lives import COMPLETE, LIVES, OPENING, Life

CHANNEL = "private-ai-chat.7"
SAMPLES = json.loads(lives.golden("laravel-ai-lives.json"))
CLASSES = json.loads(lives.golden("laravel-ai-events.json"))


def opened(frame: bytes) -> dict[str, Any]:
    read = json.loads(frame)
    assert read["channel"] == CHANNEL
    data = json.loads(read["data"])
    assert data["type"] == read["event"]
    return dict(data)


def told(life: Life) -> list[dict[str, Any]]:
    return [opened(frame) for frame in lives.told(LaravelAi(CHANNEL), life)]


def without_index(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    assert [event["index"] for event in events] == list(range(len(events)))
    return [{name: value for name, value in event.items() if name != "index"} for event in events]


@pytest.mark.parametrize("name", LIVES)
def test_sample_is_told_field_by_field_in_order(name):
    wanted = [one["data"] for one in SAMPLES[name]]
    assert json.dumps(without_index(told(LIVES[name]))) == json.dumps(wanted)


def test_frame_is_that_of_the_samples():
    frame = lives.told(LaravelAi(CHANNEL), LIVES["text"])[2].decode()
    data = (
        r"{\"id\":\"m7f3-e3\",\"invocation_id\":\"m7f3\",\"type\":\"text_delta\",\"message_id\":\"m7f3-t1\""
    )
    rest = r",\"delta\":\"Hello\",\"timestamp\":1790000000,\"index\":2}"
    assert frame == f'{{"event":"text_delta","channel":"{CHANNEL}","data":"{data}{rest}"}}'


def test_every_event_has_the_fields_of_its_class():
    """Of the classes as PHP wrote them; ``denied`` and ``truncated`` came later."""
    fields = {one["event"]: set(one["data"]) for one in CLASSES}
    said = ("a", parts.CitationReceived("https://a.test"), *lives.reasoning("r"), *lives.WEATHER)
    for decision in (COMPLETE, lives.FAILED):
        for event in told(Life(said, decision)):
            assert set(event) - {"index", "denied"} == fields[event["type"]]


@given(lives.ANY, lives.CUTS)
def test_any_reply_is_told_once_and_whole(life, cuts):
    frames = lives.told(LaravelAi(CHANNEL), life, cuts)
    assert frames == lives.told(LaravelAi(CHANNEL), life)
    events = without_index([opened(frame) for frame in frames])
    assert "".join(event["delta"] for event in events if event["type"] == "text_delta") == life.text
    assert [event["type"] in ("stream_end", "stream_failed") for event in events] == [False] * (
        len(events) - 1
    ) + [True]
    for kind, name in (("text", "message_id"), ("reasoning", "reasoning_id")):
        starts, ends = ([e[name] for e in events if e["type"] == f"{kind}_{end}"] for end in ("start", "end"))
        assert starts == ends
        assert len(set(starts)) == len(starts)


@given(lives.ANY, st.integers(0, 25))
def test_entries_one_by_one_are_the_same_events(life, read):
    teller, pieces = ReplyTeller(CHANNEL, OPENING), life.pieces
    payloads = [teller.tell(piece) for piece in pieces]
    count = teller.count
    end = teller.end(life.decision)
    lines = [line for payload in (*payloads, end) if payload for line in payload.split(b"\n")]
    assert lines == lives.told(LaravelAi(CHANNEL), life)
    snapshot = LaravelSnapshot(CHANNEL, OPENING, pieces[:read])
    for payload in payloads[read:]:
        snapshot.add(payload)
    assert (snapshot.text, snapshot.index) == (life.text, count)


def test_snapshot_says_where_it_ends():
    snapshot = LaravelSnapshot(CHANNEL, OPENING, ["Hel", "lo"])
    assert opened(snapshot.frame("streaming")) == {
        "id": "m7f3-s4",
        "invocation_id": "m7f3",
        "type": "stream_snapshot",
        "text": "Hello",
        "status": "streaming",
        "timestamp": 1790000000,
        "index": 4,
    }
    assert LaravelSnapshot(CHANNEL, OPENING, []).index == 0


def results(*said: lives.Said) -> list[tuple[object, ...]]:
    events = told(Life(said, COMPLETE))
    fields = ("result", "successful", "error", "denied", "truncated")
    return [tuple(event.get(name) for name in fields) for event in events if event["type"] == "tool_result"]


def test_result_is_cut_to_what_servers_accept():
    long, most = "é" * 5000, laravel_ai.MAX_RESULT_BYTES
    assert results(
        parts.ToolFinished("a", "f", ok=True, output=long),
        parts.ToolFinished("b", "f", ok=True, output=[long]),
        parts.ToolFinished("c", "f", ok=True),
        parts.ToolFinished("d", "f", ok=False, denied=True),
    ) == [
        (long[: most // 2], True, None, False, True),
        ('["' + long[: most // 2 - 1], True, None, False, True),
        ("", True, None, False, None),
        ("", False, projection.DENIED_TOOL, True, None),
    ]


def test_arguments_of_none_are_a_list_as_php_writes_it():
    said = (
        parts.ToolCalled("a", "now", {}),
        parts.ApprovalRequested("a", "now", 9, {}),
        parts.ToolCalled("b", "secret"),
        parts.ToolCalled("c", "f", {"x": 1}),
    )
    events = told(Life(said, COMPLETE))
    assert [event["arguments"] for event in events if event["type"] == "tool_call"] == [[], [], {"x": 1}]
    (asked,) = (event["approvals"] for event in events if event["type"] == "tool_approval_request")
    assert asked == [{"id": "a", "tool": "now", "arguments": [], "reason": None}]


def test_citations_name_their_text():
    cited = parts.CitationReceived("https://a.test", "A")
    events = told(
        Life((cited, "a", *lives.reasoning("r"), "b", cited, parts.CitationReceived(source="book")), COMPLETE)
    )
    assert [event["message_id"] for event in events if event["type"] == "citation"] == ["m7f3-t1", "m7f3-t2"]


@pytest.mark.parametrize(
    ("decision", "reason"),
    [
        (lives.Decision("max_tokens"), "length"),
        (lives.Decision("pause_turn"), "unknown"),
        (lives.CANCELLED, "cancelled"),
    ],
)
def test_reason_of_the_end(decision, reason):
    assert told(Life(("a",), decision))[-1]["reason"] == reason
