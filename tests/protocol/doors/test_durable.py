"""Durable Streams: the sample answers, and the rules of offsets, cursors and caches."""

from __future__ import annotations

import json
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given

from legato.protocol import parts
from legato.protocol.doors import durable
from legato.protocol.doors.durable import Entries, Reached
from legato.protocol.jobs import InvalidRequest
from legato.protocol.stream import Decision

from . import lives
from .lives import OPENING, USAGE, Life

SAMPLES = {one["title"]: one for one in json.loads(lives.golden("durable-streams.json"))}
MESSAGES = lives.told(Entries(), Life(("Hello", ", Ann."), Decision("stop", USAGE)))
CURSOR = "3377111"


def answer(title: str, tail: int, cursor: str = "") -> tuple[int, dict[str, str], str | None]:
    """What a server with so many messages answers."""
    sample = SAMPLES[title]
    method, url, *_ = sample["request"].split()
    request = durable.parse_read(parse_qsl(urlsplit(url).query))
    place, kind = Reached(tail, tail == len(MESSAGES)), {"Content-Type": "application/json"}
    if method == "HEAD":
        return 200, {**kind, **durable.head_headers(place)}, None
    new = MESSAGES[request.start(tail) : tail]
    if request.mode == "long-poll" and not new:
        return 204, durable.tail_headers(place, cursor), None
    found = durable.headers("m7f3", request, place, cursor)
    if "If-None-Match" in sample["request"] and durable.is_unchanged(sample["request"].split()[-1], found):
        return 304, {"ETag": found["ETag"]}, None
    return 200, {**kind, **found}, durable.array(new).decode()


@pytest.mark.parametrize(
    ("title", "tail", "cursor"),
    [
        ("first read while open", 2, ""),
        ("long-poll, data came", 3, CURSOR),
        ("long-poll, time ran out", 3, "3377112"),
        ("long-poll, last entry and closed", 4, "3377113"),
        ("catch-up at the end of a closed stream", 4, ""),
        ("long-poll at the end of a closed stream: at once", 4, ""),
        ("now, catch-up", 4, ""),
        ("metadata", 4, ""),
        ("same bytes again", 4, ""),
    ],
)
def test_sample_is_answered_byte_by_byte(title, tail, cursor):
    sample = SAMPLES[title]["response"]
    assert answer(title, tail, cursor) == (sample["status"], sample["headers"], sample["body"])


def test_sample_of_sse_is_told_byte_by_byte():
    events = [durable.sse_control(Reached(2, closed=False), CURSOR)]
    for tail in (3, 4):
        events += [
            durable.sse_data(MESSAGES[tail - 1 : tail]),
            durable.sse_control(Reached(tail, tail == len(MESSAGES)), CURSOR),
        ]
    assert durable.SSE.join(events).decode() == SAMPLES["SSE, open then closed"]["response"]["body"]


@given(lives.ANY, lives.CUTS)
def test_messages_have_all_that_readers_see(life, cuts):
    messages = lives.told(Entries(), life, cuts)
    assert messages == lives.told(Entries(), life)
    read = [json.loads(message) for message in messages]
    assert [one["i"] for one in read] == [
        0,
        *(at for at, piece in enumerate(life.pieces, 1) if piece is not None),
        len(life.said) + 1,
    ]
    assert "".join(one["delta"] for one in read if one["type"] == "text") == life.text
    assert read[-1]["type"] in ("completed", "failed", "cancelled")


def test_messages_that_the_samples_do_not_have():
    def last(decision: Decision) -> object:
        return json.loads(lives.told(Entries(), Life(("a",), decision))[-1])

    text = "Response unavailable. Please try again."
    failed = {"type": "failed", "i": 2, "message": text, "code": "timeout", "partial": True}
    assert last(Decision(state="failed", code="timeout")) == failed
    assert last(Decision(state="cancelled")) == {"type": "cancelled", "i": 2}
    assert last(Decision()) == {"type": "completed", "i": 2, "reason": "unknown"}
    door = Entries()
    started, retracted = [
        *door.begin(OPENING._replace(begun=lives.Begun())),
        *door.feed(Life((parts.Retracted(0),), Decision()).pieces),
    ]
    assert json.loads(started) == {"type": "started", "i": 0, "attempt": 1}
    assert json.loads(retracted) == {"type": "retract", "i": 1, "from": 1}
    (empty,) = Entries().end(Decision(state="failed"))
    assert json.loads(empty)["partial"] is False


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("offset=zz", "offset"),
        ("offset=", "offset"),
        ("offset=1", "offset"),
        ("offset=-1&offset=-1", "offset"),
        ("live=sse", "offset"),
        ("offset=-1&live=poll", "live"),
        ("offset=-1&live=sse&live=sse", "live"),
        ("offset=-1&live=", "live"),
    ],
)
def test_other_queries_are_refused(query, field):
    with pytest.raises(InvalidRequest) as refused:
        durable.parse_read(parse_qsl(query, keep_blank_values=True))
    assert refused.value.field == field


def test_offset_beyond_the_tail_is_refused():
    request = durable.parse_read([("offset", durable.offset(3))])
    assert request.start(3) == 3
    with pytest.raises(InvalidRequest):
        request.start(2)


def test_offset_that_is_not_given_is_the_beginning():
    assert durable.parse_read([("cursor", "x"), ("format", "ui")]) == ("-1", "", "")


@pytest.mark.parametrize(
    ("last", "cursor"), [("", CURSOR), ("3377110", CURSOR), (CURSOR, "3377116"), ("3377200", "3377205")]
)
def test_cursor_never_repeats_itself(last, cursor):
    now = durable.CURSOR_EPOCH + int(CURSOR) * durable.CURSOR_SECONDS + 7
    assert durable.cursor(now, last, 5) == cursor
