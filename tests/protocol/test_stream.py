import json

import pytest

from legato.protocol import stream

CHANNEL = "private-ai-chat.7"

FRAMES = [
    (
        stream.TokenReceived(7, "m", "Hi", 0),
        "token.received",
        {"userId": 7, "messageId": "m", "token": "Hi", "tokenIndex": 0},
    ),
    (
        stream.Completed("ann", "m", 3),
        "stream.completed",
        {"userId": "ann", "messageId": "m", "totalTokens": 3},
    ),
    (
        stream.Completed(7, "m", 3, "end_turn", stream.Usage(1, 2, 3, 4)),
        "stream.completed",
        {
            "userId": 7,
            "messageId": "m",
            "totalTokens": 3,
            "stopReason": "end_turn",
            "usage": {"input": 1, "output": 2, "cacheRead": 3, "cacheWrite": 4},
        },
    ),
    (
        stream.Failed(7, "m", stream.FAILED_TEXT, False, "overloaded"),
        "stream.failed",
        {
            "userId": 7,
            "messageId": "m",
            "error": "Response unavailable. Please try again.",
            "partial": False,
            "code": "overloaded",
        },
    ),
    (stream.Cancelled("m", 0), "stream.cancelled", {"messageId": "m", "totalTokens": 0}),
    (stream.Queued("m", 0), "reply.queued", {"messageId": "m", "position": 0}),
    (stream.Started("m", 1, "x"), "stream.started", {"messageId": "m", "attempt": 1, "model": "x"}),
    (
        stream.Started("m", 1, "x", history_cut=True),
        "stream.started",
        {"messageId": "m", "attempt": 1, "model": "x", "historyCut": True},
    ),
    (
        stream.Snapshot("m", "Hi", 1, "streaming"),
        "stream.snapshot",
        {"messageId": "m", "text": "Hi", "nextIndex": 1, "status": "streaming"},
    ),
    (
        stream.Snapshot("m", "Hi", 1, "waiting", 2, ({"event": "step.completed"},)),
        "stream.snapshot",
        {
            "messageId": "m",
            "text": "Hi",
            "nextIndex": 1,
            "status": "waiting",
            "offset": 2,
            "parts": [{"event": "step.completed"}],
        },
    ),
]


@pytest.mark.parametrize(("event", "name", "data"), FRAMES, ids=[row[1] for row in FRAMES])
def test_events_on_the_wire(event, name, data):
    frame = json.loads(event.frame(CHANNEL))
    assert (frame["event"], frame["channel"]) == (name, CHANNEL)
    assert isinstance(frame["data"], str)
    assert json.loads(frame["data"]) == data


@pytest.mark.parametrize(("tokens", "total"), [(None, 5), (3, 3), (0, 0)])
def test_the_end_tells_the_number_of_tokens_of_all_entries_or_as_decided(tokens, total):
    def end(**fields):
        return stream.ending(stream.Decision(tokens=tokens, **fields), 7, "m", 5)

    assert end() == stream.Completed(7, "m", total)
    assert end(state="cancelled") == stream.Cancelled("m", total)
    assert end(state="failed", code="x") == stream.Failed(7, "m", stream.FAILED_TEXT, total > 0, "x")


def test_a_decision_that_cannot_be_stored_keeps_its_number_of_tokens():
    assert stream.Decision(tokens=3).unsaved() == stream.Decision(state="failed", code="internal", tokens=3)


USERS = [
    (7, 7),
    ("7", 7),
    ("0", 0),
    ("007", "007"),
    ("ann", "ann"),
    ("a@b.c", "a@b.c"),
    ("999999999999999", 999999999999999),
    ("9999999999999999", "9999999999999999"),
]


@pytest.mark.parametrize(("sub", "user"), USERS)
def test_an_integer_like_sub_is_an_integer(sub, user):
    assert stream.parse_user_id(sub) == user
    assert type(stream.parse_user_id(sub)) is type(user)


@pytest.mark.parametrize("sub", ["", "a b", "a:b", "a}b", "ä", "x" * 129, 1.5, True, None, [], "7\n"])
def test_a_sub_that_no_channel_name_can_hold_is_refused(sub):
    with pytest.raises(ValueError, match="sub must be"):
        stream.parse_user_id(sub)


@pytest.mark.parametrize(
    ("value", "begun"),
    [
        (b'{"model":"m","provider":"p","at":3}', stream.Begun("m", "p", 3)),
        (b'{"model":"m","attempt":2}', stream.Begun("m", attempt=2)),
        (None, stream.Begun()),
        (b"", stream.Begun()),
        (b"[]", stream.Begun()),
        (b'{"model":"\xff"}', stream.Begun()),
    ],
)
def test_beginning_that_is_not_known_is_empty(value, begun):
    assert stream.decode_begun(value) == begun
