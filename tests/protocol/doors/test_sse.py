"""Plain server-sent events: the sample files, and going on behind any of them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from legato.protocol import parts
from legato.protocol.doors import sse

from . import lives
from .lives import COMPLETE, LIVES, Life


@pytest.mark.parametrize("name", LIVES)
def test_sample_is_told_byte_by_byte(name):
    assert lives.body(sse.FRAMING, sse.Events(), LIVES[name]) == lives.golden(f"sse-{name}.sse")


@given(lives.ANY, lives.CUTS, st.integers(-1, 30))
def test_who_comes_back_gets_the_rest(life, cuts, seen):
    whole = lives.told(sse.Events(), life)
    ids = [int(frame.split(b"\n", 1)[0][len("id: ") :]) for frame in whole]
    assert ids == sorted(set(ids))
    assert ids[-1] == len(life.said) + 1
    rest = lives.told(sse.Events(seen), life, cuts)
    assert rest == [frame for frame, id_ in zip(whole, ids, strict=True) if id_ > seen]
    assert sse.is_over(seen, len(life.said)) == (rest == [])


def data(*said: lives.Said) -> list[tuple[str, object]]:
    """Event and data of the frames between the first and the last."""
    lines = [frame.decode().split("\n") for frame in lives.told(sse.Events(), Life(said, COMPLETE))[1:-1]]
    return [(event[len("event: ") :], json.loads(text[len("data: ") :])) for _, event, text, *_ in lines]


@pytest.mark.parametrize("cut", [False, True])
def test_the_first_event_says_if_the_history_was_cut(cut):
    opening = lives.OPENING._replace(begun=lives.Begun("m", history_cut=cut))
    (frame,) = sse.Events().begin(opening)
    assert (b'"historyCut":true' in frame) is cut


def test_parts_that_the_samples_do_not_have():
    head = {"userId": 7, "messageId": "m7f3"}
    assert data(
        None,
        parts.ApprovalRequested("a", "pay", 99, {"sum": 1}),
        parts.ToolFinished("a", "pay", ok=False, error="No.", denied=True),
        parts.Retracted(1),
    ) == [
        (
            "tool.approval_requested",
            {**head, "toolCallId": "a", "name": "pay", "expiresAt": 99, "input": {"sum": 1}},
        ),
        ("tool.result", {**head, "toolCallId": "a", "ok": False, "error": "No.", "denied": True}),
        ("stream.retracted", {"messageId": "m7f3", "from": 2}),
    ]


@pytest.mark.parametrize(
    ("header", "query", "seen"),
    [
        (None, None, -1),
        ("3", None, 3),
        (None, "4", 4),
        ("3", "4", 4),
        ("5", "4", 5),
        ("x", "-1", -1),
        ("1e3", "²", -1),
    ],
)
def test_place_to_go_on_from(header, query, seen):
    assert sse.last_seen(header, query) == seen
