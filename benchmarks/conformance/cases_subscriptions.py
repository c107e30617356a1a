"""Section 4.4 to 4.7: what is answered to a subscription, its end, and what is delivered."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from .cases_channels import SUCCEEDED
from .checks import check, equal
from .outcome import case

if TYPE_CHECKING:
    from .client import Message, Socket
    from .context import CaseContext


@case("4.4", 'data of subscription_succeeded is the string "{}"')
async def succeeded(t: CaseContext) -> None:
    socket = await t.connect()
    for channel in (t.name(), t.name("private-"), t.name("private-encrypted-")):
        message = await t.subscribe(socket, channel)
        equal(message.data, "{}", "data")
        check(message.body.keys() == {"event", "channel", "data"}, f"more keys than expected: {message}")


@case("4.4", "the messages of a socket are processed in order")
async def in_order(t: CaseContext) -> None:
    socket = await t.connect()
    names = [t.name() for _ in range(10)]
    for name in names:
        await t.ask(socket, name)
    await socket.send("pusher:ping", {})
    for name in names:
        await socket.expect(SUCCEEDED, name)
    await socket.expect("pusher:pong")


@case("4.4", "subscribe, unsubscribe and subscribe in a row leave the client subscribed")
async def to_and_fro(t: CaseContext) -> None:
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
async def nothing_lost(t: CaseContext) -> None:
    for _ in range(10):
        socket, channel = await t.connect(), t.name()
        await t.subscribe(socket, channel)
        await t.publish(channel, "e", "x")
        await socket.expect("e", channel)


@case("4.5", "a bad signature: pusher:subscription_error, AuthError, 401")
async def auth_error(t: CaseContext) -> str:
    socket, channel = await t.connect(), t.name("private-")
    await t.ask(socket, channel, auth=f"{t.app.key}:x")
    return await shape(t, socket, channel, "AuthError", (401,))


@case("4.5", "no signature: pusher:subscription_error, AuthError, 401")
async def no_auth(t: CaseContext) -> str:
    socket, channel = await t.connect(), t.name("private-")
    await t.ask(socket, channel, auth=None)
    return await shape(t, socket, channel, "AuthError", (401,))


@case("4.5", "bad channel_data: pusher:subscription_error, AuthError, 401")
async def bad_channel_data(t: CaseContext) -> str:
    socket, channel = await t.connect(), t.name("presence-")
    await t.ask(socket, channel, "x")
    return await shape(t, socket, channel, "AuthError", (401,))


@case("4.5", "not signed in as the user: pusher:subscription_error, AuthError, 401")
async def not_signed_in(t: CaseContext) -> str:
    socket, channel = await t.connect(), f"#server-to-user-{t.name()}"
    await t.ask(socket, channel)
    return await shape(t, socket, channel, "AuthError", (401,))


@case("4.5", "a name that is too long: pusher:subscription_error, LimitReached, 4009")
async def long_name_error(t: CaseContext) -> str:
    socket, channel = await t.connect(), t.name().ljust(201, "x")
    await t.ask(socket, channel)
    return await shape(t, socket, channel, "LimitReached", (4009,))


@case("4.5", "an invalid name: pusher:subscription_error, InvalidChannel, 4009")
async def bad_name_error(t: CaseContext) -> str:
    socket, channel = await t.connect(), "a b"
    await t.ask(socket, channel)
    return await shape(t, socket, channel, "InvalidChannel", (4009,))


async def shape(t: CaseContext, socket: Socket, channel: str, kind: str, statuses: tuple[int, ...]) -> str:
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


@case("4.5", "a refusal does not affect the connection's other channels")
async def others_stay(t: CaseContext) -> None:
    socket, channel = await t.connect(), t.name()
    await t.subscribe(socket, channel)
    refused = t.name("private-")
    await t.ask(socket, refused, auth="x")
    await t.refusal(socket, refused)
    await t.publish(channel, "e", "x")
    await socket.expect("e", channel)


@case("4.5", "a repeated subscribe is answered, and no event is delivered twice")
async def twice(t: CaseContext) -> None:
    socket, channel = await t.connect(), t.name("private-")
    await t.subscribe(socket, channel)
    await t.subscribe(socket, channel)
    await t.publish(channel, "e", "x")
    await socket.expect("e", channel)
    await socket.nothing("expected the event once")


@case("4.5", "one unsubscribe ends a repeated subscription")
async def twice_then_leave(t: CaseContext) -> None:
    socket, channel = await t.connect(), t.name()
    await t.subscribe(socket, channel)
    await t.subscribe(socket, channel)
    await socket.send("pusher:unsubscribe", {"channel": channel})
    await socket.nothing("expected no answer to an unsubscribe")
    await t.is_out(socket, channel)


@case("4.6", "unsubscribe is not answered, and nothing is delivered after it")
async def unsubscribe(t: CaseContext) -> None:
    socket = await t.connect()
    for channel in (t.name(), t.name("private-")):
        await t.subscribe(socket, channel)
        await socket.send("pusher:unsubscribe", {"channel": channel})
        await socket.nothing("expected no answer to an unsubscribe")
        await t.is_out(socket, channel)


@case("4.6", "unsubscribing from a channel without a subscription is ignored, also twice")
async def unsubscribe_unknown(t: CaseContext) -> None:
    socket, channel = await t.connect(), t.name()
    for name in (t.name(), t.name(), channel, "a b"):
        await socket.send("pusher:unsubscribe", {"channel": name})
    await socket.nothing("expected no answer to an unsubscribe")
    await t.subscribe(socket, channel)


@case("4.6", "unsubscribing from one channel affects no other channel and no other socket")
async def unsubscribe_one(t: CaseContext) -> None:
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


async def unchanged(t: CaseContext, data: str) -> None:
    socket, channel = await t.connect(), t.name()
    await t.subscribe(socket, channel)
    await t.publish(channel, "e", data)
    equal((await socket.expect("e", channel)).data, data, "data")


for name, data in DATA:
    case("4.7", f"data arrives as it was published: {name}")(partial(unchanged, data=data))


async def event_name(t: CaseContext, name: str) -> None:
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
async def no_more_keys(t: CaseContext) -> None:
    socket, channel = await t.connect(), t.name("private-")
    await t.subscribe(socket, channel)
    await t.publish(channel, "e", "x", tags={"a": "b"}, id="7")
    message = await socket.expect("e", channel)
    check(message.body.keys() == {"event", "channel", "data"}, f"more keys than expected: {message}")


@case("4.7", "an event goes to all subscribers of its channel, and to nobody else")
async def fan_out(t: CaseContext) -> None:
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
async def ordered(t: CaseContext) -> None:
    socket, channel = await t.connect(), t.name()
    await t.subscribe(socket, channel)
    for number in range(20):
        await t.publish(channel, "e", str(number))
    seen = [(await socket.expect("e", channel)).data for _ in range(20)]
    equal(seen, [str(number) for number in range(20)], "data")
