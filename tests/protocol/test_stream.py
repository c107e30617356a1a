import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from legato.protocol import stream
from legato.protocol.stream import InvalidRequest, Job

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
    (stream.Started("m", 1, "x"), "stream.started", {"messageId": "m", "attempt": 1, "model": "x"}),
    (
        stream.Snapshot("m", "Hi", 1, "streaming"),
        "stream.snapshot",
        {"messageId": "m", "text": "Hi", "nextIndex": 1, "status": "streaming"},
    ),
]


@pytest.mark.parametrize(("event", "name", "data"), FRAMES, ids=[row[1] for row in FRAMES])
def test_events_on_the_wire(event, name, data):
    frame = json.loads(event.frame(CHANNEL))
    assert (frame["event"], frame["channel"]) == (name, CHANNEL)
    assert isinstance(frame["data"], str)
    assert json.loads(frame["data"]) == data


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


@given(st.text())
def test_the_token_of_a_frame_is_what_was_put_into_it(text):
    assert stream.token_of(stream.TokenReceived(7, "m", text, 0).frame(CHANNEL)) == text


def test_what_is_no_token_has_none():
    with pytest.raises(msgspec.DecodeError):
        stream.token_of(stream.Completed(7, "m", 3).frame(CHANNEL))


@pytest.mark.parametrize(("sub", "user"), USERS)
def test_an_integer_like_sub_is_an_integer(sub, user):
    assert stream.parse_user_id(sub) == user
    assert type(stream.parse_user_id(sub)) is type(user)


@pytest.mark.parametrize("sub", ["", "a b", "a:b", "a}b", "ä", "x" * 129, 1.5, True, None, [], "7\n"])
def test_a_sub_that_no_channel_name_can_hold_is_refused(sub):
    with pytest.raises(ValueError, match="sub must be"):
        stream.parse_user_id(sub)


def body(**changes) -> bytes:
    return msgspec.json.encode({"message": "Hello", "history": []} | changes)


def turns(count: int, content: str = "x") -> list:
    return [{"role": "user", "content": content}] * count


@pytest.mark.parametrize(
    "good",
    [
        body(),
        body(message="x" * stream.MAX_TEXT),
        body(message="é" * stream.MAX_TEXT),
        body(history=turns(stream.MAX_TURNS)),
        body(history=turns(1, "x" * stream.MAX_TEXT)),
        body().ljust(stream.MAX_REQUEST_BYTES),
        body(session_id="abc-1"),
        body(conversation_id="abc-1"),
        body(more=1),
        b'{"message":"Hello"}',
    ],
    ids=lambda good: good[:40].decode(),
)
def test_good_chat_requests(good):
    assert stream.decode_chat_request(good).message


BAD = [
    (b"", "$"),
    (b"junk", "$"),
    (b"\xff", "$"),
    (b"[]", "$"),
    (b"[" * 100_000, "$"),
    (b"{}", "message"),
    (body(message=""), "message"),
    (body(message="  "), "message"),
    (body(message="x" * (stream.MAX_TEXT + 1)), "message"),
    (body().ljust(stream.MAX_REQUEST_BYTES + 1), "$"),
    (body(message=1), "message"),
    (body(history={}), "history"),
    (body(history=turns(stream.MAX_TURNS + 1)), "history"),
    (body(history=[1]), "history.0"),
    (body(history=[{"role": "system", "content": "x"}]), "history.0.role"),
    (body(history=[{"role": "user"}]), "history.0"),
    (body(history=[{"role": "user", "content": "x", "y": 1}]), "history.0"),
    (body(history=turns(1, "x" * (stream.MAX_TEXT + 1))), "history.0.content"),
    (body(history=turns(1, "")), "history.0.content"),
    (body(session_id="a b"), "session_id"),
    (body(conversation_id="a b"), "conversation_id"),
    (body(conversation_id="c1", history=turns(1)), "history"),
]


@pytest.mark.parametrize(("bad", "field"), BAD, ids=range(len(BAD)))
def test_bad_chat_requests_name_the_field(bad, field):
    with pytest.raises(InvalidRequest) as caught:
        stream.decode_chat_request(bad)
    assert caught.value.field == field
    assert caught.value.reason


@given(st.binary(max_size=200))
def test_any_body_is_a_request_or_refused(data):
    with pytest.raises(InvalidRequest):
        stream.decode_chat_request(data)


JOB = Job(message_id="m-1", app_id="1", user_id=7, message="Hello", queued_at=1, session_id="s")


def test_a_job_survives_the_queue():
    for job in (JOB, msgspec.structs.replace(JOB, conversation_id="c1")):
        assert stream.decode_job(stream.encode_job(job)) == job
    assert JOB.channel == CHANNEL


@pytest.mark.parametrize(
    "change",
    [
        {"message_id": "a b"},
        {"message_id": ""},
        {"user_id": "a}b"},
        {"app_id": "a:b"},
        {"message": ""},
        {"queued_at": -1},
        {"queued_at": 2**53 + 1},
        {"queued_at": 10**400},
        {"user_id": 2**53 + 1},
        {"user_id": -(2**53) - 1},
        {"user_id": 10**200},
        {"conversation_id": "c1", "history": turns(1)},
    ],
)
def test_a_bad_job_is_refused(change):
    with pytest.raises(InvalidRequest):
        stream.decode_job(json.dumps(msgspec.to_builtins(JOB) | change))


@pytest.mark.parametrize(
    ("text", "bytes_of_one"),
    [("x", 1), (r"\"", 2), (r"\u0001", 6), ("é", 2), (r"\ud83d\ude00", 12), (r"\ud83d", 6)],
)
def test_the_job_of_every_request_fits_into_the_queue(text, bytes_of_one):
    """Whatever a request is made of, its job is hardly longer."""
    frame = '{"message":"x","session_id":"%s","history":[%s]}'
    turn = '{"role":"user","content":"%s"}'
    room = stream.MAX_REQUEST_BYTES - len(frame % ("s" * 64, "")) - len(turn) * 12
    texts = [text * min(stream.MAX_TEXT, room // 12 // bytes_of_one) for _ in range(12)]
    body = (frame % ("s" * 64, ",".join(turn % text for text in texts))).encode()
    asked = stream.decode_chat_request(body)
    job = Job(
        message_id="m" * 64,
        app_id="a" * 64,
        user_id="u" * 128,
        message=asked.message,
        queued_at=stream.EXACT,
        history=asked.history,
        session_id=asked.session_id,
    )
    encoded = stream.encode_job(job)
    assert len(encoded) - len(body) <= stream.MAX_JOB_BYTES - stream.MAX_REQUEST_BYTES
    assert stream.decode_job(encoded) == job


def test_a_job_is_bounded_before_it_is_parsed():
    body = stream.encode_job(JOB)
    assert stream.decode_job(body.ljust(stream.MAX_JOB_BYTES)) == JOB
    with pytest.raises(InvalidRequest, match="bytes"):
        stream.decode_job(body.ljust(stream.MAX_JOB_BYTES + 1))


def test_half_a_character_does_not_cost_the_conversation():
    """What was said once comes again as history with every later message."""
    body = (
        rb'{"message":"\ude00 nice \ud83d\ude00","history":[{"role":"user","content":"\ud83d"}],"x":"\udfff"}'
    )
    request = stream.decode_chat_request(body)
    assert request == stream.ChatRequest("\ufffd nice \U0001f600", (stream.Turn("user", "\ufffd"),))
    job = json.dumps(msgspec.to_builtins(JOB) | {"message": "\ud83d"})
    assert stream.decode_job(job).message == "\ufffd"


@pytest.mark.parametrize("user_id", [2**53, -(2**53), 0, "9" * 128])
def test_a_job_for_any_user_there_may_be(user_id):
    job = msgspec.structs.replace(JOB, user_id=user_id, queued_at=2**53)
    assert stream.decode_job(stream.encode_job(job)) == job
