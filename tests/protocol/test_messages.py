import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from legato.protocol import messages
from legato.protocol.messages import MessageError, SubscribeData


def test_the_greeting_carries_its_data_as_a_string():
    greeting = json.loads(messages.connection_established("1.2", 120))
    assert greeting == {
        "event": "pusher:connection_established",
        "data": '{"socket_id":"1.2","activity_timeout":120}',
    }


def test_an_events_data_goes_out_byte_for_byte():
    data = '{"a": 1,  "ü":"\\u00fc"}'
    assert json.loads(messages.channel_event("App\\E", "c", data)) == {
        "event": "App\\E",
        "channel": "c",
        "data": data,
    }


def test_errors_carry_objects():
    assert json.loads(messages.error("no")) == {
        "event": "pusher:error",
        "data": {"code": None, "message": "no"},
    }
    assert json.loads(messages.error("no", 4001, "c")) == {
        "event": "pusher:error",
        "data": {"code": 4001, "message": "no"},
        "channel": "c",
    }
    assert json.loads(messages.subscription_error("c", "AuthError", "no", 401)) == {
        "event": "pusher:subscription_error",
        "channel": "c",
        "data": {"type": "AuthError", "error": "no", "status": 401},
    }


def test_a_succeeded_subscription_always_has_data():
    assert json.loads(messages.subscription_succeeded("c")) == {
        "event": "pusher_internal:subscription_succeeded",
        "channel": "c",
        "data": "{}",
    }


@pytest.mark.parametrize(
    "data",
    [
        '{"channel":"c","auth":"k:s"}',
        '"{\\"channel\\":\\"c\\",\\"auth\\":\\"k:s\\"}"',
        '{"channel":"c","auth":"k:s","x":1}',
    ],
)
def test_data_may_be_an_object_or_that_object_as_a_string(data):
    message = messages.decode_message('{"event":"pusher:subscribe","data":' + data + "}")
    assert messages.decode_data(message, SubscribeData) == SubscribeData("c", "k:s")


@pytest.mark.parametrize("auth", ['""', "null"])
def test_absent_auth_is_as_good_as_none(auth):
    message = messages.decode_message('{"event":"e","data":{"channel":"c","auth":' + auth + "}}")
    assert not messages.decode_data(message, SubscribeData).auth


@pytest.mark.parametrize("data", ["1", "{}", "[]", "null", '"x"', '{"channel":1}', '"\\"x\\""'])
def test_other_data_is_refused_with_the_events_name(data):
    message = messages.decode_message('{"event":"pusher:subscribe","data":' + data + "}")
    with pytest.raises(MessageError, match="pusher:subscribe"):
        messages.decode_data(message, SubscribeData)


@given(st.binary(max_size=100) | st.text(max_size=100))
def test_any_frame_is_a_message_or_refused(frame):
    try:
        message = messages.decode_message(frame)
    except MessageError:
        return
    assert isinstance(message.event, str)


HALF_DATA = [
    rb'"\ud83d"',
    rb'{"a":["\uDE00\ud83d", "\ud83d\ude00"],  "\ud800":"\\ud800"}',
    rb'"\ufffd\ud83d"',
]


@pytest.mark.parametrize("data", HALF_DATA)
@pytest.mark.parametrize(
    "form", [b'{"event":"client-a","data":%b}', b'{"x":"\\udfff","data":%b,"event":"client-a"}']
)
def test_half_a_character_is_grammatical_json_and_keeps_its_bytes(data, form):
    message = messages.decode_message(form % data)
    assert (message.event, bytes(message.data)) == ("client-a", data)
    relayed = messages.client_event(message.event, "private-x", bytes(message.data), None)
    assert relayed == b'{"event":"client-a","channel":"private-x","data":%b}' % data


@pytest.mark.parametrize(
    "frame", [rb'{"event":7,"data":"\ud83d"}', rb'{"data":"\ud83d"', b"[" * 100_000 + rb'"\ud83d"']
)
def test_half_a_character_excuses_nothing_else(frame):
    with pytest.raises(MessageError):
        messages.decode_message(frame)


def test_half_a_character_in_what_is_read_becomes_a_replacement():
    message = messages.decode_message(rb'{"event":"\ud83d","channel":"\ude00","data":{"channel":"c\ud83d"}}')
    assert (message.event, message.channel) == ("\ufffd", "\ufffd")
    assert messages.decode_data(message, SubscribeData).channel == "c\ufffd"
    message = messages.decode_message(rb'{"event":"e","data":"{\"channel\":\"\ud83d\\ud83d\"}"}')
    assert messages.decode_data(message, SubscribeData).channel == "\ufffd\ufffd"


def test_a_deeply_nested_frame_is_refused():
    with pytest.raises(MessageError):
        messages.decode_message("[" * 100_000)


def test_a_client_event_has_nothing_of_the_senders_but_its_data():
    assert json.loads(messages.client_event("client-x", "private-x", b'{"a":1}', None)) == {
        "event": "client-x",
        "channel": "private-x",
        "data": {"a": 1},
    }
    assert json.loads(messages.client_event("client-x", "presence-x", b"", "7")) == {
        "event": "client-x",
        "channel": "presence-x",
        "user_id": "7",
    }


def test_counts_and_misses():
    count = json.loads(messages.subscription_count("x", 3))
    assert count["event"] == "pusher_internal:subscription_count"
    assert json.loads(count["data"]) == {"subscription_count": 3}
    assert json.loads(messages.cache_miss("cache-x")) == {"event": "pusher:cache_miss", "channel": "cache-x"}
