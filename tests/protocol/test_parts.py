"""The parts of a reply: their events on the wire, and the entries of the log that they come from."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from legato.protocol import parts, wire
from legato.protocol.parts import KINDS, LogEntry, Part
from legato.protocol.stream import Usage

CHANNEL = "private-ai-chat.7"

PARTS: list[tuple[Part, str, str, dict[str, Any]]] = [
    (parts.ReasoningReceived("First, "), "reasoning", "reasoning.received", {"delta": "First, "}),
    (parts.ToolStarted("c1", "weather"), "tool_start", "tool.started", {"call": "c1", "name": "weather"}),
    (
        parts.ToolInputReceived("c1", '{"ci'),
        "tool_delta",
        "tool.input_received",
        {"call": "c1", "delta": '{"ci'},
    ),
    (
        parts.ToolCalled("c1", "weather", {"city": "Oslo"}),
        "tool_ready",
        "tool.called",
        {"call": "c1", "name": "weather", "input": {"city": "Oslo"}},
    ),
    (
        parts.ToolCalled("c1", "weather"),
        "tool_ready",
        "tool.called",
        {"call": "c1", "name": "weather"},
    ),
    (
        parts.ApprovalRequested("c1", "pay", 1_800_000_000, None),
        "tool_approval",
        "tool.approval_requested",
        {"call": "c1", "name": "pay", "expiresAt": 1_800_000_000, "input": None},
    ),
    (
        parts.ApprovalDecided("c1", False, "too much"),
        "tool_decision",
        "tool.approval_decided",
        {"call": "c1", "approve": False, "note": "too much"},
    ),
    (
        parts.ApprovalDecided("c1", False, expired=True),
        "tool_decision",
        "tool.approval_decided",
        {"call": "c1", "approve": False, "expired": True},
    ),
    (
        parts.ToolFinished("c1", "weather", True, [1, "two"]),
        "tool_result",
        "tool.finished",
        {"call": "c1", "name": "weather", "ok": True, "output": [1, "two"]},
    ),
    (
        parts.ToolFinished("c1", "pay", False, error="refused", denied=True),
        "tool_result",
        "tool.finished",
        {"call": "c1", "name": "pay", "ok": False, "error": "refused", "denied": True},
    ),
    (
        parts.CitationReceived("https://example.org", "Example", "the words"),
        "citation",
        "citation.received",
        {"url": "https://example.org", "title": "Example", "text": "the words"},
    ),
    (parts.CitationReceived(source="doc-1"), "citation", "citation.received", {"source": "doc-1"}),
    (
        parts.StepCompleted(1, "tool_use", Usage(1, 2, 3, 4)),
        "step",
        "step.completed",
        {
            "step": 1,
            "stopReason": "tool_use",
            "usage": {"input": 1, "output": 2, "cacheRead": 3, "cacheWrite": 4},
        },
    ),
    (parts.Retracted(3), "retract", "parts.retracted", {"from": 3}),
]


@pytest.mark.parametrize(("part", "kind", "event", "data"), PARTS, ids=[row[2] for row in PARTS])
def test_a_part_on_the_wire(part, kind, event, data):
    assert (part.kind, part.event, KINDS[kind]) == (kind, event, type(part))
    frame = json.loads(parts.frame(kind, parts.encode(part), CHANNEL, "m-1", 5, 2))
    assert (frame["event"], frame["channel"]) == (event, CHANNEL)
    assert isinstance(frame["data"], str)
    told = json.loads(frame["data"])
    assert told == {"messageId": "m-1", "offset": 5, "tokenIndex": 2, **data}
    assert list(told)[:3] == ["messageId", "offset", "tokenIndex"]


def test_every_kind_is_tested_above_and_has_an_event_of_its_own():
    assert {kind for _, kind, _, _ in PARTS} == set(KINDS)
    assert len({part.event for part in KINDS.values()}) == len(KINDS)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(JSON, st.text(), st.integers(0, 2**40), st.integers(0, 2**40))
def test_any_data_come_out_of_a_frame_as_they_were_put_in(value, name, offset, token_index):
    data = parts.encode(parts.ToolCalled("c", name, value))
    frame = json.loads(parts.frame("tool_ready", data, CHANNEL, "m", offset, token_index))
    assert json.loads(frame["data"]) == {
        "messageId": "m",
        "offset": offset,
        "tokenIndex": token_index,
        "call": "c",
        "name": name,
        "input": value,
    }


def test_a_part_without_data_has_its_place_alone():
    data = parts.encode(parts.CitationReceived())
    assert data == b"{}"
    assert parts.event_data(data, "m", 1, 0) == b'{"messageId":"m","offset":1,"tokenIndex":0}'


def test_a_hidden_part_has_no_frame():
    assert parts.frame(parts.HIDDEN, b"", CHANNEL, "m", 1, 0) == b""


def test_an_unknown_kind_has_none_either_and_says_so():
    with pytest.raises(KeyError):
        parts.frame("later", b"{}", CHANNEL, "m", 1, 0)


ENTRIES = [
    ({b"t": b"Hi"}, LogEntry("", b"Hi", None)),
    ({b"t": b"", b"i": b"4"}, LogEntry("", b"", 4)),
    ({b"k": b"step", b"d": b"{}", b"i": b"0"}, LogEntry("step", b"{}", 0)),
    ({b"k": b"hidden", b"i": b"9"}, LogEntry("hidden", b"", 9)),
    ({b"f": b"{}"}, None),
    ({}, None),
]


@pytest.mark.parametrize(("fields", "entry"), ENTRIES)
def test_a_log_entry_is_decoded(fields, entry):
    assert parts.decode_entry(fields) == entry


@pytest.mark.parametrize("fields", [{b"k": b"step"}, {b"k": b"step", b"i": b"x"}, {b"t": b"a", b"i": b""}])
def test_an_entry_with_a_bad_index_is_refused(fields):
    with pytest.raises(ValueError, match=r"index|int"):
        parts.decode_entry(fields)


@given(st.dictionaries(st.sampled_from([b"t", b"k", b"d", b"i", b"f", b"x"]), st.binary(max_size=6)))
def test_any_fields_are_an_entry_or_a_value_error(fields):
    try:
        entry = parts.decode_entry(fields)
    except ValueError:
        assert b"i" in fields or b"k" in fields
        return
    assert (entry is None) == (b"t" not in fields and b"k" not in fields)


def test_the_fields_are_those_of_the_wire():
    assert (wire.LOG_TEXT, wire.LOG_KIND, wire.LOG_DATA, wire.LOG_INDEX) == ("t", "k", "d", "i")


@pytest.mark.parametrize(("part", "data"), [(row[0], row[3]) for row in PARTS if "call" in row[3]])
def test_a_part_says_which_call_it_belongs_to(part, data):
    assert parts.call_of(parts.encode(part)) == data["call"]


def test_a_part_without_a_call_belongs_to_none():
    with pytest.raises(msgspec.DecodeError):
        parts.call_of(parts.encode(parts.Retracted(1)))
