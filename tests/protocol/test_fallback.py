import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from legato.protocol import fallback
from legato.protocol.fallback import Handle, SendError


def line(frame: bytes) -> str:
    """A frame as pusher-js reads it: up to the first line break, and nothing behind it."""
    text, newline, rest = frame.decode().partition("\n")
    assert (newline, rest) == ("\n", "")
    return text


@pytest.mark.parametrize("action", ["xhr", "xhr_streaming", "xhr_send"])
def test_a_path_names_a_session_and_what_is_asked_of_it(action):
    assert fallback.parse_address(f"app-key/7/0123abuv/{action}") == (
        Handle("app-key", "7", "0123abuv"),
        action,
    )


@pytest.mark.parametrize(
    "path",
    [
        "",
        "app-key",
        "/7/0123abuv/xhr",
        "app-key/1000/0123abuv/xhr",
        "app-key//0123abuv/xhr",
        "app-key/\u0661/0123abuv/xhr",
        "app-key/7/0123abuw/xhr",
        "app-key/7/0123abu/xhr",
        "app-key/7/0123abuvv/xhr",
        "app-key/7/0123ABUV/xhr",
        "app-key/7/0123abuv/xhr/",
        "app-key/7/0123abuv/xhr\n",
        "app-key/7/0123abuv/websocket",
        "a/b/7/0123abuv/xhr",
    ],
)
def test_any_other_path_names_none(path):
    assert fallback.parse_address(path) is None


@given(st.lists(st.text(), min_size=1))
def test_messages_arrive_as_they_were(texts):
    payloads = [text.encode() for text in texts]
    read = line(fallback.messages_frame(payloads))
    assert read[0] == "a"
    assert json.loads(read[1:]) == texts


@given(st.lists(st.binary(), min_size=1))
def test_whatever_a_message_is_the_frame_is_a_line_of_text(payloads):
    assert len(json.loads(line(fallback.messages_frame(payloads))[1:])) == len(payloads)


def test_a_close_frame_has_code_and_reason():
    read = line(fallback.close_frame(4001, 'Application "x" does not exist'))
    assert read[0] == "c"
    assert json.loads(read[1:]) == [4001, 'Application "x" does not exist']


def test_frames_without_content():
    assert line(fallback.OPEN) == "o{}"
    assert line(fallback.HEARTBEAT) == "h"
    assert set(line(fallback.PRELUDE)) == {"h"}


@given(st.text())
def test_a_frame_is_as_long_as_javascript_says(text):
    units = sum(2 if ord(char) > 0xFFFF else 1 for char in text)
    assert fallback.code_units(text.encode()) == units


@given(st.lists(st.text(), max_size=20))
def test_a_send_is_read_as_pusher_js_writes_it(texts):
    body = json.dumps(texts, ensure_ascii=False).encode()
    assert fallback.parse_send(body, 10_000) == [text.encode() for text in texts]


@given(st.binary() | st.recursive(st.none() | st.text(), st.lists).map(msgspec.json.encode))
def test_a_body_is_an_array_of_strings_or_refused_in_one_line(body):
    try:
        found = fallback.parse_send(body, 10_000)
    except SendError as error:
        outcome = (error.status, str(error).count("\n"))
    else:
        outcome = (0, 0)
        assert [message.decode() for message in found] == json.loads(body)
    assert outcome in ((400, 0), (0, 0))


@pytest.mark.parametrize("body", [b"", b"x", b"{}", b"[1]", b'"x"', b'["\xff"]', b"[" * 100_000])
def test_nonsense_is_refused(body):
    with pytest.raises(SendError) as caught:
        fallback.parse_send(body, 10_000)
    assert caught.value.status == 400


def test_half_a_character_does_not_cost_the_message():
    body = rb'["{\"event\":\"client-a\",\"data\":\"\\ud83d\"}", "\ude00"]'
    assert fallback.parse_send(body, 100) == [rb'{"event":"client-a","data":"\ud83d"}', "\ufffd".encode()]


def test_a_send_is_bounded():
    full = json.dumps(["x" * 10] * fallback.MAX_MESSAGES).encode()
    assert len(fallback.parse_send(full, 10)) == fallback.MAX_MESSAGES
    for body, limit in ((full, 9), (json.dumps(["x"] * (fallback.MAX_MESSAGES + 1)).encode(), 10)):
        with pytest.raises(SendError) as caught:
            fallback.parse_send(body, limit)
        assert caught.value.status == 413


TRICKY = st.text(st.sampled_from('"\\\\ax'), max_size=6)


@given(st.lists(TRICKY, max_size=12))
def test_quotation_marks_in_messages_are_not_taken_for_more_messages(texts):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(fallback, "MAX_MESSAGES", 6)
        body = json.dumps(texts).encode()
        if len(texts) <= 6:
            assert fallback.parse_send(body, 100) == [text.encode() for text in texts]
        else:
            with pytest.raises(SendError) as refused:
                fallback.parse_send(body, 100)
            assert refused.value.status == 413


def test_messages_that_are_too_many_are_not_even_made(monkeypatch):
    """A megabyte of empty ones takes 70 ms."""
    monkeypatch.setattr(fallback, "_decoder", None)
    with pytest.raises(SendError):
        fallback.parse_send(b'["' + 1_001 * b'","' + b'"]', 10)
