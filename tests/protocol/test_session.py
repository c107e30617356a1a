"""The session as plain calls: bytes in, effects out."""

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from legato.protocol import errors, signatures
from legato.protocol.apps import App
from legato.protocol.channels import Channel
from legato.protocol.presence import Member
from legato.protocol.session import (
    MERGING_CHANNELS,
    Close,
    Refuse,
    Relay,
    Send,
    Session,
    ShortenBuffers,
    Subscribe,
    Unsubscribe,
)
from legato.protocol.users import User
from tests.tiers import amount

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
    assert isinstance(effect, Send | Refuse)
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


@pytest.mark.parametrize("closes", [False, True])
def test_messages_beyond_the_bound_are_not_looked_at(closes):
    app = msgspec.structs.replace(
        APP, max_messages=3, max_messages_seconds=60, close_over_max_messages=closes
    )
    session = Session(app, SOCKET, 0.0)
    ping, junk = b'{"event":"pusher:ping"}', b"junk"
    assert [len(session.receive(text, 0)) for text in (ping, junk, ping)] == [1, 1, 1]
    if closes:
        assert session.receive(ping, 1) == [Close(errors.TOO_MANY_MESSAGES)]
        assert session.receive(ping, 100) == []
        return
    assert sent(session.receive(ping, 1))["data"] == {"code": 4301, "message": "Rate limit exceeded"}
    assert sent(session.receive(ping, 21))["event"] == "pusher:pong"
    assert sent(session.receive(ping, 21))["event"] == "pusher:error"
    assert sent(session.receive(ping, 500))["event"] == "pusher:pong"


def test_without_a_bound_messages_are_not_counted(session):
    assert all(session.receive(b'{"event":"pusher:ping"}', 1) for _ in range(1000))


def test_a_pong_needs_no_answer(session):
    assert session.receive(b'{"event":"pusher:pong","data":{}}', 1) == []


def test_a_public_channel_needs_no_signature(session):
    (effect,) = session.receive(subscribe("orders", auth=""), 1)
    assert effect == Subscribe(Channel("orders"))
    assert session.channels == {"orders": None}


PRIVATE = ["private-x", "private-encrypted-x"]


@pytest.mark.parametrize("channel", PRIVATE)
@pytest.mark.parametrize("channel_data", [None, '{"user_id": 7}'])
def test_a_private_channel_is_opened_by_its_signature(session, channel, channel_data):
    (effect,) = session.receive(
        subscribe(channel, auth=auth(channel, channel_data), channel_data=channel_data), 1
    )
    assert effect == Subscribe(Channel.parse(channel))


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
    assert session.channels == {}
    assert not session.closed


TRICKY = [
    "private-cache-x",
    "xprivate-cache-y",
    "presence-cache-z",
    "privatefoo",
    "cache-private-x",
    "presence-x",
]
PUBLIC = {"xprivate-cache-y", "privatefoo", "cache-private-x"}


@pytest.mark.parametrize("channel", TRICKY)
def test_names_that_look_alike_let_nobody_in_by_a_wrong_signature(session, channel):
    effects = session.receive(subscribe(channel, auth="key:wrong"), 1)
    assert isinstance(effects[0], Subscribe) == (channel in PUBLIC)


REFUSALS = [
    ("a b", "InvalidChannel", 4009),
    ("", "InvalidChannel", 4009),
    ("a" * 201, "LimitReached", 4009),
    ("#server-to-user-7", "AuthError", 401),
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
    channel = Channel.parse("private-x")
    assert session.receive(good, 1) == [Subscribe(channel, None, first=True)]
    assert session.receive(good, 2) == [Subscribe(channel, None, first=False)]
    assert sent(session.receive(subscribe("private-x", auth="key:no"), 3))["data"]["type"] == "AuthError"


def test_a_subscription_that_could_not_be_carried_out_is_forgotten(session):
    session.receive(subscribe("a"), 1)
    session.dropped("a", None)
    session.dropped("a", None)
    assert session.channels == {}


def test_a_subscription_that_was_asked_for_anew_outlives_the_end_of_the_one_before(session):
    (old,) = join(session)
    session.receive(b'{"event":"pusher:unsubscribe","data":{"channel":"presence-room"}}', 1)
    (new,) = join(session)
    session.dropped("presence-room", old.member)
    assert session.channels == {"presence-room": new.member}
    session.dropped("presence-room", new.member)
    assert session.channels == {}


def join(session, channel="presence-room", channel_data='{"user_id":7,"user_info":{"name":"Ann"}}'):
    return session.receive(subscribe(channel, auth=auth(channel, channel_data), channel_data=channel_data), 1)


@pytest.mark.parametrize("channel", ["presence-room", "presence-cache-room"])
def test_a_presence_channel_is_joined_as_its_member(session, channel):
    member = Member(7, b'{"name":"Ann"}')
    assert join(session, channel) == [Subscribe(Channel.parse(channel), member)]


def test_a_member_that_subscribes_again_stays_who_it_was(session):
    join(session)
    (effect,) = join(session, channel_data='{"user_id":7,"user_info":{"name":"Other"}}')
    assert effect.member == Member(7, b'{"name":"Ann"}')


BAD_MEMBERS = [
    ("{}", "AuthError", 401),
    ("junk", "AuthError", 401),
    ('{"user_id":null}', "AuthError", 401),
    ('{"user_id":""}', "LimitReached", 4301),
    ('{"user_id":"' + "x" * 129 + '"}', "LimitReached", 4301),
    ('{"user_id":"7","user_info":"' + "x" * 1100 + '"}', "LimitReached", 4301),
]


@pytest.mark.parametrize(("channel_data", "type_", "status"), BAD_MEMBERS)
def test_a_bad_member_is_refused(session, channel_data, type_, status):
    answer = sent(join(session, channel_data=channel_data))
    assert (answer["data"]["type"], answer["data"]["status"]) == (type_, status)
    assert session.channels == {}


@pytest.mark.parametrize("name", [r'"Ann \ud83d"', '"Ann \ufffd"'])
def test_the_signature_is_over_the_exact_bytes_though_half_a_character_is_replaced(session, name):
    """Escaped in what was signed; and bare, which Node signs and sends as U+FFFD."""
    channel_data = f'{{"user_id":"7","user_info":{name}}}'
    message = subscribe(
        "presence-room", auth=auth("presence-room", channel_data), channel_data=channel_data
    ).replace("\ufffd".encode(), rb"\ud83d")
    (effect,) = session.receive(message, 1)
    assert effect.member == Member("7", name.replace(r"\ud83d", r"\ufffd").encode())


def test_a_presence_channel_needs_to_know_who(session):
    answer = sent(session.receive(subscribe("presence-room", auth=auth("presence-room")), 1))
    assert answer["data"]["type"] == "AuthError"


USER = '{"id":"7","user_info":{"name":"Ann"},"watchlist":["8","9","8"]}'


def signin(session, user_data=USER, now=1.0, **changes):
    text = signatures.user_text(SOCKET, user_data)
    data = {"auth": f"{APP.key}:{signatures.sign(APP.secret, text)}", "user_data": user_data} | changes
    return session.receive(frame("pusher:signin", data), now)


def test_signing_in_is_answered_with_the_same_user_data(session):
    (effect,) = signin(session)
    assert effect.user == User("7", b'{"name":"Ann"}', ("8", "9"))
    reply = json.loads(effect.reply)
    assert reply["event"] == "pusher:signin_success"
    assert json.loads(reply["data"]) == {"user_data": USER}


def test_a_signed_in_user_needs_no_channel_data(session):
    signin(session)
    (effect,) = session.receive(subscribe("presence-room", auth=auth("presence-room")), 1)
    assert effect.member == Member("7", b'{"name":"Ann"}')
    (effect,) = join(session, "presence-other")
    assert effect.member.user_id == 7


def test_signing_in_again_as_the_same_user_only(session):
    signin(session)
    assert sent(signin(session))["event"] == "pusher:signin_success"
    answer = sent(signin(session, '{"id":"8"}'))
    assert (answer["event"], answer["data"]["code"]) == ("pusher:error", 4009)
    assert session.user.id == "7"


BAD_USERS = [
    "{}",
    "junk",
    '{"id":""}',
    '{"id":null}',
    '{"id":"' + "x" * 129 + '"}',
    '{"id":"7","watchlist":1}',
]


@pytest.mark.parametrize("user_data", [*BAD_USERS, '{"id":"7","user_info":"' + "x" * 1100 + '"}'])
def test_a_bad_user_is_not_signed_in_and_the_connection_stays(session, user_data):
    answer = sent(signin(session, user_data))
    assert (answer["event"], answer["data"]["code"]) == ("pusher:error", 4009)
    assert session.user is None
    assert not session.closed


@pytest.mark.parametrize("bad", [None, "", "key:", "key:abc", "other:abc"])
def test_a_bad_signature_does_not_sign_in(session, bad):
    assert sent(signin(session, auth=bad))["data"]["code"] == 4009
    assert session.user is None


def test_a_long_watchlist_is_cut_and_said(session):
    watchlist = json.dumps({"id": 7, "watchlist": [str(n) for n in range(101)]})
    effect, error = signin(session, watchlist)
    assert effect.user.id == "7"
    assert len(effect.user.watchlist) == 100
    assert json.loads(error.payload)["data"]["code"] == 4302


def test_the_users_own_channel_is_open_to_the_user_alone(session):
    own = subscribe("#server-to-user-7", auth="")
    assert sent(session.receive(own, 1))["data"]["type"] == "AuthError"
    signin(session)
    assert sent(session.receive(own, 1))["event"] == "pusher_internal:subscription_succeeded"
    other = subscribe("#server-to-user-8", auth="")
    assert sent(session.receive(other, 1))["data"]["type"] == "AuthError"


def client_event(session, event="client-x", channel="private-x", data=b'{"a": 1}', now=1.0):
    text = b'{"event":%s,"channel":%s' % (msgspec.json.encode(event), msgspec.json.encode(channel))
    return session.receive(text + (b',"data":' + data if data else b"") + b"}", now)


@pytest.fixture
def talker(session):
    session.receive(subscribe("private-x", auth=auth("private-x")), 0)
    session.receive(subscribe("open"), 0)
    join(session)
    return session


@pytest.mark.parametrize("data", [b'{"a": 1}', b'"text"', b"null", b"[1,2]", b"", rb'"\ud83d"'])
def test_a_client_event_is_relayed_with_its_data_unchanged(talker, data):
    assert client_event(talker, data=data) == [Relay("private-x", "client-x", data, None)]


def test_on_a_presence_channel_the_sender_is_named(talker):
    assert client_event(talker, channel="presence-room")[0].user_id == "7"


BAD_CLIENT_EVENTS = [
    {"event": "client-"},
    {"event": "client-" + "x" * 200},
    {"channel": "open"},
    {"channel": "private-other"},
    {"channel": None},
    {"data": b'"' + b"x" * 10_239 + b'"'},
]


@pytest.mark.parametrize("change", BAD_CLIENT_EVENTS)
def test_a_client_event_against_the_rules_is_dropped_with_an_error_on_its_channel(talker, change):
    answer = sent(client_event(talker, **change))
    assert answer["event"] == "pusher:error"
    assert answer["data"]["code"] is None
    assert "channel" in answer
    assert not talker.closed


def test_ten_client_events_a_second_pass(talker):
    effects = [client_event(talker, now=1.0)[0] for _ in range(11)]
    assert [type(effect) for effect in effects] == [Relay] * 10 + [Refuse]
    assert json.loads(effects[-1].payload)["data"]["code"] == 4301
    assert isinstance(client_event(talker, now=1.1)[0], Relay)
    assert isinstance(client_event(talker, now=1.1)[0], Refuse)
    assert not talker.closed


def test_client_events_can_be_switched_off():
    session = Session(App(id="1", key="key", secret="secret", client_events=False), SOCKET, 0)
    session.receive(subscribe("private-x", auth=auth("private-x")), 0)
    answer = sent(client_event(session))
    assert "enable this feature" in answer["data"]["message"]


class TestAuthorizedInTime:
    APP = App(id="1", key="key", secret="secret", authorized_seconds=30)

    @pytest.fixture
    def session(self):
        return Session(self.APP, SOCKET, 0)

    def test_one_that_does_neither_is_closed(self, session):
        session.receive(subscribe("open"), 1)
        assert session.deadline == 30
        assert session.check(29.9) == []
        assert session.check(30) == [Close(errors.NOT_AUTHORIZED)]

    def test_signing_in_is_enough(self, session):
        signin(session)
        assert session.check(30) == []

    def test_a_private_channel_is_enough(self, session):
        session.receive(subscribe("private-x", auth=auth("private-x")), 1)
        assert session.check(30) == []
        assert session.deadline == 121


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
@settings(max_examples=amount(300, 20_000))
def test_any_frame_has_an_outcome_that_the_table_allows(text):
    session = Session(APP, SOCKET, 0)
    for effect in session.receive(text, 1):
        assert isinstance(effect, Send | Refuse | Subscribe)
        if isinstance(effect, Subscribe):
            assert not effect.channel.private
            assert not effect.channel.name.startswith("#")
    assert not session.closed


KINDS = st.sampled_from(
    [
        "private-",
        "private-cache-",
        "private-encrypted-",
        "private-encrypted-cache-",
        "presence-",
        "presence-cache-",
        "#server-to-user-",
        "cache-private-",
        "xprivate-",
        "Private-",
        "private",
        "",
    ]
)
CHANNELS = st.builds(str.__add__, KINDS, st.text("ab-_=@,.;#:/", max_size=6) | st.text(max_size=6))
SIGNED_FOR = CHANNELS | st.sampled_from(["", f"{SOCKET}:private-a", "::user::"])
AUTHS = (
    st.text(max_size=80)
    | st.builds("key:{}".format, st.text("0123456789abcdef", max_size=64))
    | SIGNED_FOR.map(auth)
    | st.builds(lambda channel: auth(channel)[:-1], CHANNELS)
)


@given(channel=CHANNELS, given_auth=AUTHS, channel_data=st.none() | st.text(max_size=8))
@settings(max_examples=amount(300, 20_000))
def test_any_name_with_any_auth_opens_nothing_that_it_does_not_sign(channel, given_auth, channel_data):
    session = Session(APP, SOCKET, 0)
    text = subscribe(channel, auth=given_auth, channel_data=channel_data)
    (effect,) = session.receive(text, 1)
    opened = isinstance(effect, Subscribe)
    if opened and effect.channel.private:
        assert given_auth == auth(channel, channel_data or None)
    if opened and not effect.channel.private:
        assert not channel.startswith(("private-", "presence-", "#"))
    assert set(session.channels) == ({channel} if opened else set())
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
                self.channels.add(effect.channel.name)
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
        assert set(self.session.channels) == self.channels


TestSessionMachine = SessionMachine.TestCase


def test_limits_on_names_and_on_user_info_are_the_applications():
    """Longer than by default, and shorter; what was accepted is known again later."""
    app = msgspec.structs.replace(
        APP,
        max_channel_name_length=300,
        max_event_name_length=250,
        max_user_info_bytes=9,
        authorized_seconds=1,
    )
    long, ample = Session(app, SOCKET, 0.0), "private-" + "c" * 292
    (subscribed,) = long.receive(subscribe(ample, auth=auth(ample)), 0.0)
    assert isinstance(subscribed, Subscribe)
    assert not long._unauthorized
    refused = sent(long.receive(subscribe(ample + "c"), 0.0))
    assert refused["data"]["error"] == "The channel name is longer than 300 characters"
    for size, kind in ((250, Relay), (251, Refuse)):
        event = msgspec.json.encode({"event": "client-".ljust(size, "e"), "channel": ample, "data": ""})
        (effect,) = long.receive(event, 0.0)
        assert isinstance(effect, kind)
    for info, accepted in (("1234567", True), ("12345678", False)):
        data = json.dumps({"user_id": "1", "user_info": info})
        (effect,) = long.receive(
            subscribe("presence-a", auth=auth("presence-a", data), channel_data=data), 0.0
        )
        assert isinstance(effect, Subscribe if accepted else Refuse)
        user = json.dumps({"id": "1", "user_info": info})
        signature = signatures.sign(APP.secret, signatures.user_text(SOCKET, user))
        effects = Session(app, SOCKET, 0.0).receive(
            frame("pusher:signin", {"auth": f"{APP.key}:{signature}", "user_data": user}), 0.0
        )
        assert (len(effects) == 1 and "larger than 9 bytes" in str(effects)) is not accepted


# --- merged tokens, an extension


def merge(channel: str | None) -> bytes:
    return msgspec.json.encode({"event": "legato:merge_tokens", "channel": channel, "data": {}})


def test_merged_tokens_are_asked_for_by_channel_with_a_field_or_a_message(session):
    assert ShortenBuffers() in session.receive(subscribe("a", merge_tokens=True), 1)
    assert ShortenBuffers() not in session.receive(subscribe("b"), 1)
    session.receive(subscribe("c"), 1)
    assert session.receive(merge("c"), 1) == []
    assert session.merging == {"a", "c"}
    session.receive(frame("pusher:unsubscribe", {"channel": "a"}), 1)
    session.receive(frame("pusher:unsubscribe", {"channel": "c"}), 1)
    assert session.receive(merge("b"), 1) == [ShortenBuffers()]


@pytest.mark.parametrize("value", [False, None, 0, 1, "true", [], {}])
def test_anything_but_true_does_not_ask_for_merged_tokens(session, value):
    (effect,) = session.receive(subscribe("a", merge_tokens=value), 1)
    assert isinstance(effect, Subscribe)
    assert session.merging == frozenset()


def test_merged_tokens_need_a_subscription(session):
    session.receive(subscribe("private-a", auth="wrong", merge_tokens=True), 1)
    for name in ("private-a", "b", None):
        answer = sent(session.receive(merge(name), 1))
        assert (answer["event"], answer["data"]["code"]) == ("pusher:error", None)
        assert answer["channel"] == (name or "")
    assert session.merging == frozenset()


def test_a_request_for_merged_tokens_ends_with_the_subscription(session):
    for name in ("a", "b", "c"):
        session.receive(subscribe(name, merge_tokens=True), 1)
    session.receive(frame("pusher:unsubscribe", {"channel": "a"}), 1)
    session.dropped("b", None)
    assert session.merging == {"c"}
    session.receive(subscribe("a"), 1)
    assert session.merging == {"c"}


def test_merged_tokens_are_for_a_bounded_number_of_channels(session):
    for number in range(MERGING_CHANNELS + 10):
        assert session.receive(subscribe(f"c{number}", merge_tokens=True), 1)
    assert session.receive(merge(f"c{MERGING_CHANNELS + 9}"), 1) == []
    assert len(session.merging) == MERGING_CHANNELS
