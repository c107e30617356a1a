import hashlib
import hmac
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from legato.protocol import webhooks
from legato.protocol.apps import App, Webhook

APP = App(id="1", key="app-key", secret="app-secret")
URL = "https://hooks.example.com/pusher"

EVENTS = [
    (webhooks.event("channel_occupied", "x"), {"name": "channel_occupied", "channel": "x"}),
    (
        webhooks.event("member_added", "presence-x", user_id="7"),
        {"name": "member_added", "channel": "presence-x", "user_id": "7"},
    ),
    (
        webhooks.event("subscription_count", "x", subscription_count=3),
        {"name": "subscription_count", "channel": "x", "subscription_count": 3},
    ),
    (
        webhooks.client_event("private-x", "client-a", b'{"a": 1}', "1.2", None),
        {
            "name": "client_event",
            "channel": "private-x",
            "event": "client-a",
            "data": '{"a": 1}',
            "socket_id": "1.2",
        },
    ),
    (
        webhooks.client_event("presence-x", "client-a", b'"text"', "1.2", "7"),
        {
            "name": "client_event",
            "channel": "presence-x",
            "event": "client-a",
            "data": "text",
            "socket_id": "1.2",
            "user_id": "7",
        },
    ),
]


@pytest.mark.parametrize(("encoded", "expected"), EVENTS)
def test_events_are_as_the_specification_has_them(encoded, expected):
    assert json.loads(encoded) == expected


DATA = [
    (None, ""),
    (b"null", "null"),
    (b"7", "7"),
    (b'"{\\"a\\":1}"', '{"a":1}'),
    (b'  "a"', "a"),
    (b'{"nonce":"a","ciphertext":"b"}', '{"nonce":"a","ciphertext":"b"}'),
    (b'{"b": 1,  "a":\n2}', '{"b": 1,  "a":\n2}'),  # as relayed, not encoded anew
    (b'"\\ud800 \\ud83d\\ude00"', "\ufffd \U0001f600"),
    (b"\xff", "\ufffd"),
]


@pytest.mark.parametrize(("data", "text"), DATA)
def test_the_data_of_a_client_event_is_always_a_string(data, text):
    encoded = webhooks.client_event("private-x", "client-a", data, "1.2", None)
    assert json.loads(encoded)["data"] == text


def test_text_that_json_cannot_carry_does_not_stop_an_event():
    encoded = webhooks.event("member_added", "presence-x", user_id="a\ud800")
    assert json.loads(encoded)["user_id"] == "a\ufffd"
    counted = webhooks.event("subscription_count", "\ud800", subscription_count=3)
    assert json.loads(counted) == {"name": "subscription_count", "channel": "\ufffd", "subscription_count": 3}


@given(st.binary(max_size=50) | st.none(), st.text(max_size=20))
def test_no_client_event_is_too_odd_to_tell(data, name):
    told = json.loads(webhooks.client_event("private-x", name, data, "1.2", name))
    assert isinstance(told["data"], str)
    assert told["event"] == told["user_id"] == name


def test_the_body_carries_events_in_order_and_an_integer_time():
    content = webhooks.body(1327078148132, [b'{"name":"a"}', b'{"name":"b"}'])
    assert content == b'{"time_ms":1327078148132,"events":[{"name":"a"},{"name":"b"}]}'


def test_the_signature_is_over_the_very_bytes():
    content = webhooks.body(1, [webhooks.event("channel_occupied", "x")])
    headers = webhooks.headers(APP, Webhook(url=URL, headers={"Authorization": "Bearer x"}), content)
    assert headers == {
        "Content-Type": "application/json",
        "X-Pusher-Key": "app-key",
        "X-Pusher-Signature": hmac.new(b"app-secret", content, hashlib.sha256).hexdigest(),
        "Authorization": "Bearer x",
    }


def test_a_configured_signature_is_overridden():
    webhook = Webhook(url=URL, headers={"x-pusher-KEY": "x", "X-Pusher-Signature": "y", "X-Other": "z"})
    assert webhook.overridden == ("x-pusher-KEY", "X-Pusher-Signature")
    headers = webhooks.headers(APP, webhook, b"{}")
    assert headers == webhooks.headers(APP, Webhook(url=URL), b"{}") | {"X-Other": "z"}


def test_while_secrets_are_rotated_the_oldest_key_signs():
    app = App(id="1", key="new-key", secret="new-secret", old_keys={"old-key": "old-secret"})
    headers = webhooks.headers(app, Webhook(url=URL), b"{}")
    assert headers["X-Pusher-Key"] == "old-key"
    assert headers["X-Pusher-Signature"] == hmac.new(b"old-secret", b"{}", hashlib.sha256).hexdigest()


WANTS = [
    ({}, "channel_occupied", "x", True),
    ({"events": ("member_added",)}, "channel_occupied", "x", False),
    ({"events": ()}, "channel_occupied", "x", False),
    ({"channel_prefix": "private-"}, "channel_occupied", "private-x", True),
    ({"channel_prefix": "private-"}, "channel_occupied", "x-private-", False),
    ({"channel_suffix": "-x"}, "channel_occupied", "private-x", True),
    ({"channel_suffix": "-x"}, "channel_occupied", "private-xy", False),
    ({"channel_prefix": "p", "channel_suffix": "x"}, "channel_occupied", "pz", False),
    ({}, "channel_occupied", "#server-to-user-7", False),
]


@pytest.mark.parametrize(("changes", "name", "channel", "wanted"), WANTS)
def test_filters(changes, name, channel, wanted):
    assert webhooks.wants(Webhook(url=URL, **changes), name, channel) is wanted


def test_a_channel_that_several_clients_miss_at_once_is_told_once():
    misses = webhooks.Misses(3)
    assert misses.tell("1", "cache-x", 10)
    assert not misses.tell("1", "cache-x", 10)
    assert not misses.tell("1", "cache-x", 12.9)
    assert misses.tell("2", "cache-x", 12.9)
    assert misses.tell("1", "cache-y", 12.9)
    assert misses.tell("1", "cache-x", 13)
    assert not misses.tell("1", "cache-y", 13)


def test_misses_are_not_remembered_for_ever():
    misses = webhooks.Misses(3)
    for index in range(100):
        misses.tell("1", f"cache-{index}", float(index))
    assert len(misses._told) == 3


def load(**values):
    return msgspec.convert({"url": URL} | values, Webhook)


REFUSED = [
    ({"url": "hooks.example.com"}, "url: expected http:// or https:// with a host"),
    ({"url": "ftp://example.com"}, "url: expected"),
    ({"url": "https://"}, "url: expected"),
    ({"url": "https://:80/"}, "url: expected"),
    ({"url": "https://example.com:port"}, "url: expected"),
    ({"url": "https://[::1"}, "url: expected"),
    ({"url": "https://example.com/ x"}, "url: expected"),
    ({"url": "https://example.com/\r\nX: y"}, "url: expected"),
    ({"url": "https://ex\u00e4mple.com"}, "url: expected"),
    ({"events": ["channel_opened"]}, "Invalid enum value 'channel_opened'"),
    ({"headers": {"content-TYPE": "text/plain"}}, "headers: content-TYPE is set by Legato"),
    ({"headers": {"Content-Length": "3"}}, "headers: Content-Length is set by Legato"),
    ({"headers": {"X y": "x"}}, "headers: expected names"),
    ({"headers": {"X-Y": "a\r\nb"}}, "headers: expected printable ASCII as the value of X-Y"),
    ({"headers": {"X-Y": "\u00e4"}}, "headers: expected printable ASCII as the value of X-Y"),
    ({"max_events": 0}, ">= 1"),
    ({"timeout": 0}, "> 0"),
    ({"more": 1}, "unknown field `more`"),
]


@pytest.mark.parametrize(("values", "reason"), REFUSED)
def test_a_webhook_that_cannot_work_is_refused_with_one_line(values, reason):
    with pytest.raises(msgspec.ValidationError) as caught:
        load(**values)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_webhook_as_it_is_configured():
    hook = load(
        url="http://user:pass@127.0.0.1:8000/hooks?token=secret",
        events=["member_added"],
        headers={"Authorization": "Bearer top-secret"},
    )
    assert hook.host == "127.0.0.1:8000"
    assert repr(hook) == "Webhook(host='127.0.0.1:8000')"
    assert hook.batch_size == 100
    assert load(batch=False).batch_size == 1
    assert "top-secret" not in repr(App(id="1", key="k", secret="s", webhooks=(hook,)))
    assert len(load().events) == 7
