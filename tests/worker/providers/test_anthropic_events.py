"""Anthropic's event stream: what counts is read, whatever else comes and wherever the bytes are cut."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from legato.protocol.stream import Usage
from legato.worker.providers import base
from legato.worker.providers.anthropic_events import ErrorEvent, StreamDecoder


def event(name: str, **fields: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'type': name, **fields}, ensure_ascii=False)}\n\n".encode()


def text(piece: str) -> bytes:
    return event("content_block_delta", index=0, delta={"type": "text_delta", "text": piece})


def delta(**fields: Any) -> bytes:
    return event("content_block_delta", index=0, delta=fields)


def block(**fields: Any) -> bytes:
    return event("content_block_start", index=0, content_block=fields)


MESSAGE = {"id": "msg_1", "content": [], "model": "claude-test", "usage": {"input_tokens": 11}}
START = event("message_start", message=MESSAGE)
CHANGED = event("message_delta", delta={"stop_reason": "max_tokens"}, usage={"output_tokens": 9})
STOP = event("message_stop")
WHOLE = [
    *(START, block(type="text", text=""), event("ping"), text("Hé"), text("l\u2028lo 😀")),
    *(event("content_block_stop", index=0), CHANGED, STOP),
]
EVENTS = [
    base.RequestAccepted("claude-test"),
    base.Used(Usage(input=11)),
    base.Text("Hé"),
    base.Text("l\u2028lo 😀"),
    base.Used(Usage(input=11, output=9)),
    base.Final("max_tokens", Usage(input=11, output=9)),
]


def decoded(*pieces: bytes) -> list[base.Event]:
    decoder = StreamDecoder()
    return [found for piece in pieces for found in decoder.feed(piece)]


def texts(*pieces: bytes) -> list[str]:
    return [found.text for found in decoded(*pieces) if isinstance(found, base.Text)]


@given(st.lists(st.integers(0, len(b"".join(WHOLE))), max_size=20).map(sorted))
@example(list(range(len(b"".join(WHOLE)))))
@example([])
def test_events_do_not_depend_on_where_the_bytes_are_cut(places: list[int]) -> None:
    stream = b"".join(WHOLE)
    cuts = [0, *places, len(stream)]
    assert decoded(*(stream[begin:end] for begin, end in itertools.pairwise(cuts))) == EVENTS


@pytest.mark.parametrize(
    "unknown",
    [
        event("brand_new", delta=5, usage="none"),
        b"event: brand_new\ndata: no json\n\n",
        b'data: {"type": "content_block_delta"}\n\n',
        b"event: content_block_delta\n\n",
        event("ping"),
        delta(type="thinking_delta", thinking="hm"),
        delta(type="signature_delta", signature="x"),
        delta(type="input_json_delta", partial_json="{"),
        delta(type="citations_delta", citation={"url": "x"}),
        delta(type="brand_new_delta", text={"parts": []}),
        delta(type="text_delta", text=""),
        delta(type="text_delta"),
        block(type="tool_use", id="t", name="n", input={}),
        block(type="thinking", thinking="", signature=""),
        block(type="brand_new", text=["x"]),
    ],
)
def test_what_is_unknown_is_ignored(unknown: bytes) -> None:
    assert texts(START, text("a"), unknown, text("b"), CHANGED, STOP) == ["a", "b"]


def test_unknown_fields_are_ignored() -> None:
    more = event("content_block_delta", index=0, delta={"type": "text_delta", "text": "a", "x": 1}, y=[{}])
    assert texts(more) == ["a"]


@pytest.mark.parametrize(
    "garbled",
    [
        b"event: content_block_delta\ndata: {bad\n\n",
        b"event: content_block_delta\ndata: \xff{}\n\n",
        b'event: content_block_delta\ndata: {"delta":{"type":"text_delta","text":"\xff"}}\n\n',
        b"event: content_block_delta\ndata: []\n\n",
        b'event: content_block_delta\ndata: {"type":"content_block_delta"}\n\n',
        delta(type="text_delta", text=5),
        b'event: content_block_delta\ndata: {"delta":%s\n\n' % (b'{"a":' * 100_000),
        b'event: content_block_delta\ndata: {"delta":{"text":"\\ud83d"},"x":%s\n\n' % (b"[" * 100_000),
        b'event: message_delta\ndata: {"x":%s\n\n' % (b"[" * 100_000),
        event("message_start", message=None),
        event("message_delta", delta={"stop_reason": 5}),
    ],
)
def test_what_is_known_and_garbled_is_no_text_that_silently_lacks(garbled: bytes) -> None:
    seen: list[base.Event] = []
    with pytest.raises(base.CutError, match="garbled"):
        seen.extend(StreamDecoder().feed(text("a") + garbled + text("b")))
    assert seen == [base.Text("a")], "what came before it counts"


def test_character_in_two_halves_is_passed_on_as_it_came() -> None:
    """The reply joins the halves of a surrogate pair. A tokenizer may cut there."""
    halves = [
        b'event: content_block_delta\ndata: {"delta":{"type":"text_delta","text":"%s"}}\n\n' % half
        for half in (b"a\\ud83d", b"\\ude00b")
    ]
    assert texts(*halves) == ["a\ud83d", "\ude00b"]


def test_counts_are_the_last_that_were_given() -> None:
    usage = {"output_tokens": None, "input_tokens": 12, "cache_read_input_tokens": "x", "service_tier": "y"}
    changed = event("message_delta", delta={}, usage=usage)
    without = event("message_delta", delta={"stop_reason": None}, usage=None)
    assert decoded(START, changed, without, CHANGED)[1:] == [
        base.Used(Usage(input=11)),
        base.Used(Usage(input=12)),
        base.Used(Usage(input=12)),
        base.Used(Usage(input=12, output=9)),
    ]


def test_nothing_behind_the_end_belongs_to_the_reply() -> None:
    decoder = StreamDecoder()
    assert list(decoder.feed(STOP)) == [base.Final("end_turn", Usage())]
    assert decoder.ended
    assert list(decoder.feed(text("x") + b"event: content_block_delta\ndata: {bad\n\n" + STOP)) == []


def test_stream_without_its_end_has_not_ended() -> None:
    decoder = StreamDecoder()
    assert list(decoder.feed(text("a") + CHANGED + STOP[:-1]))[:1] == [base.Text("a")]
    assert not decoder.ended


@pytest.mark.parametrize(
    ("data", "body"),
    [(b'{"error": {"type": "t"}}', {"error": {"type": "t"}}), (b"no json", None), (b"[" * 100_000, None)],
)
def test_error_ends_the_stream_after_what_came_before(data: bytes, body: object) -> None:
    seen: list[base.Event] = []
    with pytest.raises(ErrorEvent) as raised:
        seen.extend(StreamDecoder().feed(text("a") + b"event: error\ndata: %s\n\n" % data + text("b")))
    assert seen == [base.Text("a")]
    assert raised.value.body == body
