"""The session as plain calls: bytes in, effects out."""

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from protocol import errors, messages, signatures
from protocol.apps import App
from protocol.session import Close, Send, Session, Subscribe, Unsubscribe

APP = App(id="1", key="key", secret="secret", activity_timeout=120, pong_timeout=30)
SOCKET = "123.456"


@pytest.fixture
def session() -> Session:
    return Session(APP, SOCKET, 0.0)


def auth(channel: str, channel_data: str | None = None) -> str:
    return signatures.sign_channel(APP.key, APP.secret, SOCKET, channel, channel_data)


def frame(event: str, data: object) -> bytes:
    return msgspec.json.encode({"event": event, "data": data})


def subscribe(channel: str, **data: object) -> bytes:
    return frame("pusher:subscribe", {"channel": channel, **data})


def sent(effects: list) -> dict:
    (effect,) = effects
    assert isinstance(effect, Send)
    return json.loads(effect.payload)


def test_the_greeting_names_the_socket(session):
    greeting = json.loads(session.greeting().payload)
    assert greeting["event"] == "pusher:connection_established"
    assert json.loads(greeting["data"]) == {"socket_id": SOCKET, "activity_timeout": 120}


@pytest.mark.parametrize(
    "text",
    [b'{"event":"pusher:ping","data":{}}', b'{"event":"pusher:ping"}', b'{"event":"pusher:ping","data":""}'],
)
def test_a_ping_gets_a_pong(session, text):
    assert sent(session.receive(text, 1)) == {"event": "pusher:pong", "data": "{}"}


def test_a_pong_needs_no_answer(session):
    assert session.receive(b'{"event":"pusher:pong","data":{}}', 1) == []


def test_a_public_channel_needs_no_signature(session):
    (effect,) = session.receive(subscribe("orders", auth=""), 1)
    assert effect == Subscribe("orders", messages.subscription_succeeded("orders"))
    assert session.channels == {"orders"}


PRIVATE = ["private-x", "private-encrypted-x"]


@pytest.mark.parametrize("channel", PRIVATE)
@pytest.mark.parametrize("channel_data", [None, '{"user_id": 7}'])
def test_a_private_channel_is_opened_by_its_signature(session, channel, channel_data):
    (effect,) = session.receive(
        subscribe(channel, auth=auth(channel, channel_data), channel_data=channel_data), 1
    )
    assert effect == Subscribe(channel, messages.subscription_succeeded(channel))


def test_empty_channel_data_counts_as_none(session):
    (effect,) = session.receive(subscribe("private-x", auth=auth("private-x"), channel_data=""), 1)
    assert isinstance(effect, Subscribe)


BAD_AUTH = [
    None,
    "",
    "key",
    "key:",
    ":",
    "key:abc",
    "other:" + auth("private-x").partition(":")[2],
    auth("private-y"),
    auth("private-x").upper(),
    auth("private-x") + "0",
    signatures.sign_channel("key", "secret", "999.999", "private-x"),
    signatures.sign_channel("key", "guess", SOCKET, "private-x"),
]


@pytest.mark.parametrize("given_auth", BAD_AUTH)
def test_any_other_signature_is_refused_and_the_connection_stays(session, given_auth):
    answer = sent(session.receive(subscribe("private-x", auth=given_auth), 1))
    assert answer["event"] == "pusher:subscription_error"
    assert answer["channel"] == "private-x"
    assert (answer["data"]["type"], answer["data"]["status"]) == ("AuthError", 401)
    assert APP.secret not in answer["data"]["error"].replace(SOCKET, "")
    assert session.channels == set()
    assert not session.closed


TRICKY = [
    "private-cache-x",
    "xprivate-cache-y",
    "presence-cache-z",
    "privatefoo",
    "cache-private-x",
    "presence-x",
]


@pytest.mark.parametrize("channel", TRICKY)
def test_names_that_look_alike_let_nobody_in_by_a_wrong_signature(session, channel):
    effects = session.receive(subscribe(channel, auth="key:wrong"), 1)
    is_public = channel in ("xprivate-cache-y", "privatefoo")
    assert isinstance(effects[0], Subscribe) == is_public


REFUSALS = [
    ("a b", "InvalidChannel", 4009),
    ("", "InvalidChannel", 4009),
    ("a" * 201, "LimitReached", 4009),
    ("#server-to-user-7", "AuthError", 401),
    ("presence-room", "InvalidChannel", 4009),
    ("cache-x", "InvalidChannel", 4009),
]


@pytest.mark.parametrize(("channel", "type_", "status"), REFUSALS)
def test_refused_names(session, channel, type_, status):
    answer = sent(session.receive(subscribe(channel), 1))
    assert answer["event"] == "pusher:subscription_error"
    assert (answer["data"]["type"], answer["data"]["status"]) == (type_, status)


def test_the_channel_limit_counts_distinct_channels():
    app = App(id="1", key="key", secret="secret", max_channels_per_connection=2)
    session = Session(app, SOCKET, 0)
    for channel in ("a", "b", "a"):
        assert isinstance(session.receive(subscribe(channel), 1)[0], Subscribe)
    assert sent(session.receive(subscribe("c"), 1))["data"]["type"] == "LimitReached"


def test_subscribing_again_is_verified_and_answered_again(session):
    good = subscribe("private-x", auth=auth("private-x"))
    assert session.receive(good, 1) == session.receive(good, 2)
    assert sent(session.receive(subscribe("private-x", auth="key:no"), 3))["data"]["type"] == "AuthError"


def test_unsubscribing_is_silent_and_idempotent(session):
    session.receive(subscribe("a"), 1)
    leave = frame("pusher:unsubscribe", {"channel": "a"})
    assert session.receive(leave, 2) == [Unsubscribe("a")]
    assert session.receive(leave, 3) == []


BAD_MESSAGES = [b"", b"junk", b"[]", b"{}", b'{"event":1}', b"\xff", b'{"event":"pusher:subscribe"}']


@pytest.mark.parametrize("text", BAD_MESSAGES)
def test_a_bad_message_is_answered_without_a_code(session, text):
    answer = sent(session.receive(text, 1))
    assert answer["event"] == "pusher:error"
    assert answer["data"]["code"] is None


def test_an_unknown_event_is_named(session):
    answer = sent(session.receive(b'{"event":"foo"}', 1))
    assert answer["data"]["message"] == "Unsupported event received on socket: foo"


@pytest.mark.parametrize("channel", [None, "private-x"])
def test_client_events_are_off(session, channel):
    text = msgspec.json.encode({"event": "client-typing", "channel": channel, "data": {}})
    answer = sent(session.receive(text, 1))
    assert answer.get("channel") == channel
    assert answer["data"]["code"] is None
    assert "enable" in answer["data"]["message"]


def test_what_an_error_repeats_is_bounded(session):
    for text in (subscribe("x" * 60_000), frame("e" * 60_000, {}), subscribe("private-x", auth="a" * 60_000)):
        (effect,) = session.receive(text, 1)
        assert len(effect.payload) < 2_000


def test_a_silent_client_is_pinged_and_then_closed(session):
    assert session.deadline == 120
    assert session.check(119.9) == []
    assert sent(session.check(120)) == {"event": "pusher:ping", "data": "{}"}
    assert session.deadline == 150
    assert session.check(149.9) == []
    assert session.check(150) == [Close(errors.PONG_TIMEOUT)]
    assert session.closed
    assert session.check(1_000) == []


@pytest.mark.parametrize(
    "sign_of_life", [lambda s: s.seen(140), lambda s: s.receive(b'{"event":"pusher:pong"}', 140)]
)
def test_any_frame_keeps_a_silent_client(session, sign_of_life):
    session.check(120)
    sign_of_life(session)
    assert session.check(150) == []
    assert session.deadline == 260


def test_a_closed_session_has_no_effects(session):
    assert session.close(errors.TOO_SLOW) == Close(errors.TOO_SLOW)
    assert session.receive(subscribe("a"), 1) == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)
EVENTS = st.sampled_from(
    ["pusher:subscribe", "pusher:unsubscribe", "pusher:ping", "pusher:signin", "client-x"]
)
DATA = JSON | st.fixed_dictionaries(
    {"channel": JSON | st.text(max_size=20)}, optional={"auth": JSON, "channel_data": JSON}
)


@given(st.binary(max_size=200) | st.builds(frame, EVENTS | st.text(max_size=10), DATA))
@settings(max_examples=500)
def test_any_frame_has_an_outcome_that_the_table_allows(text):
    session = Session(APP, SOCKET, 0)
    for effect in session.receive(text, 1):
        assert isinstance(effect, Send | Subscribe)
        if isinstance(effect, Subscribe):
            assert not effect.channel.startswith(("private-", "presence-", "cache-", "#"))
    assert not session.closed


class SessionMachine(RuleBasedStateMachine):
    """However calls are mixed, the session's channels are what its effects say."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.session = Session(APP, SOCKET, self.now)
        self.channels: set[str] = set()

    def run(self, effects: list) -> None:
        for effect in effects:
            if isinstance(effect, Subscribe):
                self.channels.add(effect.channel)
            elif isinstance(effect, Unsubscribe):
                assert effect.channel in self.channels
                self.channels.remove(effect.channel)

    @rule(channel=st.sampled_from(["a", "b", "private-x", "presence-y"]), good=st.booleans())
    def subscribe(self, channel, good):
        self.run(self.session.receive(subscribe(channel, auth=auth(channel) if good else "key:no"), self.now))

    @rule(channel=st.sampled_from(["a", "b", "private-x", "nope"]))
    def unsubscribe(self, channel):
        self.run(self.session.receive(frame("pusher:unsubscribe", {"channel": channel}), self.now))

    @rule(seconds=st.floats(0, 200))
    def wait(self, seconds):
        self.now += seconds
        self.run(self.session.check(self.now))

    @rule()
    def pong(self):
        self.run(self.session.receive(b'{"event":"pusher:pong"}', self.now))

    @invariant()
    def channels_match(self):
        assert self.session.channels == self.channels


TestSessionMachine = SessionMachine.TestCase
