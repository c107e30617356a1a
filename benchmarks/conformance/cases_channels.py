"""Section 4: names, subscribing, signatures, refusals, unsubscribing, delivery."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from legato.protocol import signatures

from .checks import check, equal
from .context import member
from .outcome import case

if TYPE_CHECKING:
    from collections.abc import Callable

    from .client import Message, Socket
    from .context import Context

KINDS: Final = (
    ("private-", "private"),
    ("private-cache-", "private cache"),
    ("private-encrypted-", "encrypted"),
    ("private-encrypted-cache-", "encrypted cache"),
    ("presence-", "presence"),
    ("presence-cache-", "presence cache"),
)
"""Every kind that needs a signature."""

PUBLIC: Final = (
    "cache-",
    "cache-private-",
    "cache-presence-",
    "private",
    "privatefoo",
    "presence",
    "presencefoo",
    "cachefoo",
    "xprivate-",
    "xprivate-cache-",
    "xpresence-",
    "Private-",
    "PRESENCE-",
    "client-",
    "pusher-",
)
"""What looks like another kind, or is one that needs no signature."""

LETTERS: Final = "ABCXYZabcxyz0189_-=@,.;"

BAD_NAMES: Final = (
    ("a space", "a b"),
    ("a slash", "a/b"),
    ("a colon", "a:b"),
    ("a hash", "a#b"),
    ("a star", "a*"),
    ("a letter that is not ASCII", "ä"),
    ("a line feed at the end", "a\n"),
    ("a NUL", "a\0"),
    ("a quotation mark", 'a"b'),
    ("braces", "{a}"),
)

SUCCEEDED: Final = "pusher_internal:subscription_succeeded"


def data_for(t: Context, channel: str) -> str | None:
    """``channel_data`` where it is needed."""
    return member(t.name()) if channel.startswith("presence-") else None


async def public(t: Context, prefix: str) -> None:
    socket = await t.connect()
    channel = t.name(prefix)
    await socket.send("pusher:subscribe", {"channel": channel, "auth": ""})
    await socket.expect(SUCCEEDED, channel)


for prefix in ("", *PUBLIC):
    shown = f"{prefix}…" if prefix else "a name without a prefix"
    case("4.1", f"{shown}: anybody may subscribe")(partial(public, prefix=prefix))


async def let_in(t: Context, prefix: str) -> None:
    socket = await t.connect()
    channel = t.name(prefix)
    await t.subscribe(socket, channel, data_for(t, channel))


async def kept_out(t: Context, prefix: str) -> None:
    socket = await t.connect()
    channel = t.name(prefix)
    for auth in ("", f"{t.app.key}:{'0' * 64}"):
        await t.ask(socket, channel, data_for(t, channel), auth=auth)
        await t.refusal(socket, channel)
    await t.is_out(socket, channel)


for prefix, kind in KINDS:
    case("4.1", f"{prefix}… ({kind}): let in with a signature")(partial(let_in, prefix=prefix))
    case("4.1", f"{prefix}… ({kind}): kept out without")(partial(kept_out, prefix=prefix))


@case("4.1", "all characters that a name may have")
async def all_characters(t: Context) -> None:
    socket, channel = await t.connect(), t.name(LETTERS)
    await t.subscribe(socket, channel)
    await t.publish(channel, "e", "x")
    await socket.expect("e", channel)


async def long_name(t: Context, prefix: str) -> None:
    socket = await t.connect()
    channel = t.name(prefix).ljust(164, "x")
    await t.subscribe(socket, channel, data_for(t, channel))
    await t.publish(channel, "e", "x")


for prefix in ("", "private-encrypted-cache-", "presence-"):
    case("4.1", f"164 characters are allowed: {prefix}…")(partial(long_name, prefix=prefix))


@case("4.1", "a name longer than 200 characters is refused")
async def too_long(t: Context) -> str:
    socket = await t.connect()
    channel = t.name().ljust(201, "x")
    await t.ask(socket, channel)
    return str(await t.refusal(socket, channel))


async def bad_name(t: Context, name: str) -> str:
    socket = await t.connect()
    await t.ask(socket, name)
    return str(await t.refusal(socket, name))


for name, channel in (*BAD_NAMES, ("nothing", "")):
    case("4.1", f"refused: a name with {name}")(partial(bad_name, name=channel))


@case("4.1", "# is reserved: other names with it are refused")
async def reserved(t: Context) -> None:
    socket = await t.connect()
    for channel in ("#", f"#{t.name()}", "#server-to-user-", "#private-x"):
        await t.ask(socket, channel)
        await t.refusal(socket, channel)


async def public_with(t: Context, more: dict[str, Any]) -> None:
    socket, channel = await t.connect(), t.name()
    await socket.send("pusher:subscribe", {"channel": channel} | more)
    await socket.expect(SUCCEEDED, channel)


NOT_GIVEN: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ("auth absent", {}),
    ("auth empty", {"auth": ""}),
    ("auth null", {"auth": None}),
    ("channel_data null", {"auth": None, "channel_data": None}),
    ("keys that nobody knows", {"shared_secret": "x", "tags": {"a": 1}}),
)
for name, more in NOT_GIVEN:
    case("4.2", f"a public channel with {name}")(partial(public_with, more=more))


async def private_without_data(t: Context, channel_data: str | None) -> None:
    socket, channel = await t.connect(), t.name("private-")
    await t.ask(socket, channel, auth=t.auth(socket, channel), channel_data=channel_data)
    await socket.expect(SUCCEEDED, channel)


for name, channel_data in (("null", None), ("empty", "")):
    case("4.2", f"channel_data that is {name} is not signed")(
        partial(private_without_data, channel_data=channel_data)
    )


@case("4.3", "a private channel may come with channel_data, which then is signed")
async def private_with_data(t: Context) -> None:
    socket, channel = await t.connect(), t.name("private-")
    await t.subscribe(socket, channel, '{"user_id":"7"}')
    other = t.name("private-")
    await t.ask(socket, other, '{"user_id":"7"}', auth=t.auth(socket, other))
    await t.refusal(socket, other)
    await t.is_out(socket, other)


@case("4.3", "channel_data is signed as it was received, not encoded anew")
async def exact_channel_data(t: Context) -> None:
    socket = await t.connect()
    for channel_data in (
        '{ "user_id" : "7",\n"user_info":{"n":"\u00e4\U0001f600"} }',
        '{"user_id":"\\u0037"}',
    ):
        await t.subscribe(socket, t.name("presence-"), channel_data)


def _wrong(change: Callable[[Context, Socket, str], str]) -> Callable[[Context], Any]:
    async def run(t: Context) -> str:
        socket, channel = await t.connect(), t.name("private-")
        await t.ask(socket, channel, auth=change(t, socket, channel))
        message = await t.refusal(socket, channel)
        await t.is_out(socket, channel)
        return str(message)

    return run


def _signature(t: Context, socket: Socket, channel: str) -> str:
    return t.auth(socket, channel).partition(":")[2]


WRONG: Final[tuple[tuple[str, Callable[[Context, Socket, str], str]], ...]] = (
    ("of another channel", lambda t, s, c: t.auth(s, f"{c}x")),
    ("of the channel without its prefix", lambda t, s, c: t.auth(s, c.removeprefix("private-"))),
    (
        "of another socket",
        lambda t, s, c: f"{t.app.key}:{signatures.sign(t.app.secret, f'1.{s.socket_id}:{c}')}",
    ),
    ("by another secret", lambda t, s, c: t.auth(s, c, app=t.app._replace(secret="x"))),  # noqa: S106 - wrong
    ("with another key", lambda t, s, c: t.auth(s, c, app=t.app._replace(key=t.name()))),
    ("with an empty key", lambda t, s, c: t.auth(s, c, app=t.app._replace(key=""))),
    ("without the key", _signature),
    ("cut", lambda t, s, c: t.auth(s, c)[:-1]),
    ("with more behind it", lambda t, s, c: f"{t.auth(s, c)}0"),
    ("with characters that are not ASCII", lambda t, s, c: f"{t.app.key}:\u00e4{_signature(t, s, c)[1:]}"),
    ("of nothing", lambda t, _s, _c: f"{t.app.key}:"),
    (
        "of a user",
        lambda t, s, c: f"{t.app.key}:{signatures.sign(t.app.secret, f'{s.socket_id}::user::{c}')}",
    ),
)
for name, change in WRONG:
    case("4.3", f"refused: a signature {name}")(_wrong(change))


@case("4.3", "refused: a signature that another socket was given")
async def stolen(t: Context) -> None:
    one, two = await t.sockets(2)
    channel = t.name("private-")
    await t.ask(two, channel, auth=t.auth(one, channel))
    await t.refusal(two, channel)
    await t.is_out(two, channel)


@case("4.3", "refused: channel_data that was changed after signing")
async def changed_data(t: Context) -> None:
    socket, channel = await t.connect(), t.name("presence-")
    await t.ask(socket, channel, member("8"), auth=t.auth(socket, channel, member("7")))
    await t.refusal(socket, channel)
    await t.ask(socket, channel, member("8"), auth=t.auth(socket, channel))
    await t.refusal(socket, channel)


@case("4.4", 'data of subscription_succeeded is the string "{}"')
async def succeeded(t: Context) -> None:
    socket = await t.connect()
    for channel in (t.name(), t.name("private-"), t.name("private-encrypted-")):
        message = await t.subscribe(socket, channel)
        equal(message.data, "{}", "data")
        check(message.body.keys() == {"event", "channel", "data"}, f"more keys than expected: {message}")


@case("4.4", "the messages of a socket are worked off in order")
async def in_order(t: Context) -> None:
    socket = await t.connect()
    names = [t.name() for _ in range(10)]
    for name in names:
        await t.ask(socket, name)
    await socket.send("pusher:ping", {})
    for name in names:
        await socket.expect(SUCCEEDED, name)
    await socket.expect("pusher:pong")


@case("4.4", "subscribe, unsubscribe and subscribe at once end subscribed")
async def to_and_fro(t: Context) -> None:
    socket, channel = await t.connect(), t.name()
    for _ in range(3):
        await t.ask(socket, channel)
        await socket.send("pusher:unsubscribe", {"channel": channel})
    await t.ask(socket, channel)
    for _ in range(4):
        await socket.expect(SUCCEEDED, channel)
    await t.publish(channel, "e", "x")
    await socket.expect("e", channel)
    await socket.nothing("expected the event once")


@case("4.4", "every event published after subscription_succeeded arrives")
async def nothing_lost(t: Context) -> None:
    for _ in range(10):
        socket, channel = await t.connect(), t.name()
        await t.subscribe(socket, channel)
        await t.publish(channel, "e", "x")
        await socket.expect("e", channel)


@case("4.5", "a bad signature: pusher:subscription_error, AuthError, 401")
async def auth_error(t: Context) -> str:
    socket, channel = await t.connect(), t.name("private-")
    await t.ask(socket, channel, auth=f"{t.app.key}:x")
    return await shape(t, socket, channel, "AuthError", (401,))


@case("4.5", "no signature: pusher:subscription_error, AuthError, 401")
async def no_auth(t: Context) -> str:
    socket, channel = await t.connect(), t.name("private-")
    await t.ask(socket, channel, auth=None)
    return await shape(t, socket, channel, "AuthError", (401,))


@case("4.5", "bad channel_data: pusher:subscription_error, AuthError, 401")
async def bad_channel_data(t: Context) -> str:
    socket, channel = await t.connect(), t.name("presence-")
    await t.ask(socket, channel, "x")
    return await shape(t, socket, channel, "AuthError", (401,))


@case("4.5", "not signed in as the user: pusher:subscription_error, AuthError, 401")
async def not_signed_in(t: Context) -> str:
    socket, channel = await t.connect(), f"#server-to-user-{t.name()}"
    await t.ask(socket, channel)
    return await shape(t, socket, channel, "AuthError", (401,))


@case("4.5", "a name that is too long: pusher:subscription_error, LimitReached, 4009")
async def long_name_error(t: Context) -> str:
    socket, channel = await t.connect(), t.name().ljust(201, "x")
    await t.ask(socket, channel)
    return await shape(t, socket, channel, "LimitReached", (4009,))


@case("4.5", "a name that is none: pusher:subscription_error, InvalidChannel, 4009")
async def bad_name_error(t: Context) -> str:
    socket, channel = await t.connect(), "a b"
    await t.ask(socket, channel)
    return await shape(t, socket, channel, "InvalidChannel", (4009,))


async def shape(t: Context, socket: Socket, channel: str, kind: str, statuses: tuple[int, ...]) -> str:
    """The refusal in the documented shape; the connection stays open."""
    message: Message = await t.refusal(socket, channel)
    check(message.event == "pusher:subscription_error", f"not pusher:subscription_error: {message}")
    data = message.data
    check(isinstance(data, dict), f"data of pusher:subscription_error is not an object: {message}")
    check(str(message.channel or "")[:50] == channel[:50], f"another channel: {message}")
    equal(data.get("type"), kind, "type")
    check(isinstance(data.get("error"), str), f"error is not text: {message}")
    check(data.get("status") in statuses, f"expected status {statuses[0]}: {message}")
    await t.subscribe(socket, t.name())
    return str(message)


@case("4.5", "a refusal leaves the connection's other channels alone")
async def others_stay(t: Context) -> None:
    socket, channel = await t.connect(), t.name()
    await t.subscribe(socket, channel)
    refused = t.name("private-")
    await t.ask(socket, refused, auth="x")
    await t.refusal(socket, refused)
    await t.publish(channel, "e", "x")
    await socket.expect("e", channel)


@case("4.5", "subscribing again is answered again, and delivers no event twice")
async def twice(t: Context) -> None:
    socket, channel = await t.connect(), t.name("private-")
    await t.subscribe(socket, channel)
    await t.subscribe(socket, channel)
    await t.publish(channel, "e", "x")
    await socket.expect("e", channel)
    await socket.nothing("expected the event once")


@case("4.5", "subscribing again and leaving once is leaving")
async def twice_then_leave(t: Context) -> None:
    socket, channel = await t.connect(), t.name()
    await t.subscribe(socket, channel)
    await t.subscribe(socket, channel)
    await socket.send("pusher:unsubscribe", {"channel": channel})
    await socket.nothing("expected no answer to an unsubscribe")
    await t.is_out(socket, channel)


@case("4.6", "unsubscribe is not answered, and nothing is delivered after it")
async def unsubscribe(t: Context) -> None:
    socket = await t.connect()
    for channel in (t.name(), t.name("private-")):
        await t.subscribe(socket, channel)
        await socket.send("pusher:unsubscribe", {"channel": channel})
        await socket.nothing("expected no answer to an unsubscribe")
        await t.is_out(socket, channel)


@case("4.6", "unsubscribing what is not subscribed is ignored, also twice")
async def unsubscribe_unknown(t: Context) -> None:
    socket, channel = await t.connect(), t.name()
    for name in (t.name(), t.name(), channel, "a b"):
        await socket.send("pusher:unsubscribe", {"channel": name})
    await socket.nothing("expected no answer to an unsubscribe")
    await t.subscribe(socket, channel)


@case("4.6", "unsubscribing one channel leaves the others, and other sockets, alone")
async def unsubscribe_one(t: Context) -> None:
    one, two = await t.sockets(2)
    a, b = t.name(), t.name()
    for socket in (one, two):
        await t.subscribe(socket, a)
        await t.subscribe(socket, b)
    await one.send("pusher:unsubscribe", {"channel": a})
    await one.nothing("expected no answer to an unsubscribe")
    await t.publish([a, b], "e", "x")
    await one.expect("e", b)
    await one.nothing("expected nothing of the channel that was left")
    equal({(await two.expect("e")).channel for _ in range(2)}, {a, b}, "what the other socket got")


DATA: Final = (
    ("an object", '{"id":1}'),
    ("white space", ' { "a" :\t1.0,\n"a": 1e2 } '),
    ("an empty string", ""),
    ("text that is not JSON", "plain text"),
    ("text that looks like a number", "007"),
    ("null as text", "null"),
    ("a JSON string in a string", '"x"'),
    ("escapes", '{"a":"\\u00e4\\/\\"\\\\"}'),
    ("other alphabets and emoji", '{"a":"\u00e4\u4e2d\U0001f600\u0301"}'),
    ("line separators", "a\u2028b\u2029c"),
    ("control characters", "\x00\x01\x1f\x7f\r\n\t\b\f"),
    ("markup", "</script><!-- & ' \" -->"),
    ("big numbers", "12345678901234567890.12345678901234567890e400"),
)


async def unchanged(t: Context, data: str) -> None:
    socket, channel = await t.connect(), t.name()
    await t.subscribe(socket, channel)
    await t.publish(channel, "e", data)
    equal((await socket.expect("e", channel)).data, data, "data")


for name, data in DATA:
    case("4.7", f"data arrives as it was published: {name}")(partial(unchanged, data=data))


async def event_name(t: Context, name: str) -> None:
    socket, channel = await t.connect(), t.name()
    await t.subscribe(socket, channel)
    await t.publish(channel, name, "x")
    await socket.expect(name, channel)


NAMES: Final = (
    "App\\Events\\OrderShipped",
    ".order.shipped",
    "order/shipped",
    "order shipped",
    "Bestellung verschickt \u00e4\U0001f69a",
    "pusher",
    "client-like",
    "x" * 200,
)
for name in NAMES:
    shown = name if len(name) < 50 else "200 characters"
    case("4.7", f"event names are free text: {shown}")(partial(event_name, name=name))


@case("4.7", "a delivery is event, channel and data, and nothing else")
async def no_more_keys(t: Context) -> None:
    socket, channel = await t.connect(), t.name("private-")
    await t.subscribe(socket, channel)
    await t.publish(channel, "e", "x", tags={"a": "b"}, id="7")
    message = await socket.expect("e", channel)
    check(message.body.keys() == {"event", "channel", "data"}, f"more keys than expected: {message}")


@case("4.7", "an event goes to all subscribers of its channel, and to nobody else")
async def fan_out(t: Context) -> None:
    one, two, other = await t.sockets(3)
    channel = t.name()
    await t.subscribe(one, channel)
    await t.subscribe(two, channel)
    await t.subscribe(other, f"{channel}x")
    await t.publish(channel, "e", "x")
    await one.expect("e", channel)
    await two.expect("e", channel)
    await other.nothing("expected nothing of another channel")


@case("4.7", "the events of a channel arrive in order")
async def ordered(t: Context) -> None:
    socket, channel = await t.connect(), t.name()
    await t.subscribe(socket, channel)
    for number in range(20):
        await t.publish(channel, "e", str(number))
    seen = [(await socket.expect("e", channel)).data for _ in range(20)]
    equal(seen, [str(number) for number in range(20)], "data")
