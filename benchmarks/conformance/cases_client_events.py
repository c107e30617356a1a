"""Section 6: client events."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from .checks import NotApplicable, check, equal
from .client import ABSENT
from .context import member
from .outcome import case

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .client import Message, Socket
    from .context import CaseContext

ON: Final = "client events"

VALUES: Final[tuple[tuple[str, Any], ...]] = (
    ("an object", {"x": 1, "y": [1.5, None, "\u00e4"]}),
    ("an empty object", {}),
    ("a list", [1, 2]),
    ("a string", "x"),
    ("an empty string", ""),
    ("JSON in a string", '{"x":1}'),
    ("a number", 7),
    ("a big number", 12345678901234567890),
    ("false", False),
)


async def two_on(t: CaseContext, prefix: str) -> tuple[Socket, Socket, str]:
    """Two subscribers of a channel; on a presence channel they are 7 and 8."""
    one, two = await t.sockets(2)
    channel = t.name(prefix)
    presence = prefix.startswith("presence-")
    for socket, user in ((one, "7"), (two, "8")):
        await t.enter_channel(socket, channel, member(user) if presence else None)
    if presence:
        await one.expect("pusher_internal:member_added", channel)
    return one, two, channel


async def rejected(
    t: CaseContext, sender: Socket, other: Socket, channel: str, code: int | None = None
) -> Message:
    """The sender gets an error, the other client gets nothing, and both stay connected."""
    message = await sender.error(code)
    equal(message.channel, channel, "the channel of the error")
    await t.publish(t.name(), "e", "x")
    await other.nothing("expected a rejected message to reach nobody")
    await sender.nothing("expected one error")
    return message


async def relayed(t: CaseContext, data: Any) -> None:
    one, two, channel = await two_on(t, "private-")
    await one.send("client-x", data, channel=channel)
    message = await two.expect("client-x", channel)
    equal(message.body, {"event": "client-x", "channel": channel, "data": data}, "the message")
    await one.nothing("expected nothing for the sender")


for name, value in VALUES:
    case("6", f"relayed unchanged: {name}", ON)(partial(relayed, data=value))


async def without_data(t: CaseContext, data: Any) -> None:
    one, two, channel = await two_on(t, "private-")
    await one.send("client-x", data, channel=channel)
    message = await two.expect("client-x", channel)
    check(message.data is None, f"data that nobody sent: {message}")


for name, value in (("absent", ABSENT), ("null", None)):
    case("6", f"relayed with data {name}", ON)(partial(without_data, data=value))


async def on_kind(t: CaseContext, prefix: str) -> None:
    one, two, channel = await two_on(t, prefix)
    await one.send("client-x", {"a": 1}, channel=channel)
    equal((await two.expect("client-x", channel)).data, {"a": 1}, "data")


KINDS: Final = (
    "private-",
    "private-cache-",
    "private-encrypted-",
    "private-encrypted-cache-",
    "presence-",
    "presence-cache-",
)
for prefix in KINDS:
    case("6", f"relayed on {prefix}…", ON)(partial(on_kind, prefix=prefix))


@case("6", "relayed to all other subscribers, never to the sender", ON)
async def to_all(t: CaseContext) -> None:
    one, two, channel = await two_on(t, "private-")
    third = await t.connect()
    await t.subscribe(third, channel)
    await one.send("client-x", 1, channel=channel)
    await two.expect("client-x", channel)
    await third.expect("client-x", channel)
    await t.publish(channel, "sentinel", "x")
    for socket in (one, two, third):
        await socket.expect("sentinel", channel)


@case("6", "other keys of the message are dropped, user_id in particular", ON)
async def forged(t: CaseContext) -> None:
    one, two, channel = await two_on(t, "private-")
    await one.send("client-x", 1, channel=channel, user_id="8", socket_id="1.1", tags={})
    message = await two.expect("client-x", channel)
    equal(message.body, {"event": "client-x", "channel": channel, "data": 1}, "the message")


@case("6", "on a presence channel user_id is the sender's, even if the message has another", ON)
async def user_id(t: CaseContext) -> None:
    one, two, channel = await two_on(t, "presence-")
    for more in ({}, {"user_id": "8"}):
        await one.send("client-x", 1, channel=channel, **more)
        message = await two.expect("client-x", channel)
        expected = {"event": "client-x", "channel": channel, "data": 1, "user_id": "7"}
        equal(message.body, expected, "the message")


@case("6", "refused if the application disables client events; the connection is kept", "quiet")
async def switched_off(t: CaseContext) -> str:
    app = t.target.others["quiet"]
    one, two = [await t.connect(key=app.key) for _ in range(2)]
    channel = t.name("private-")
    for socket in (one, two):
        await t.ask(socket, channel, auth=t.auth(socket, channel, app=app))
        await socket.expect("pusher_internal:subscription_succeeded", channel)
    await one.send("client-x", {}, channel=channel)
    message = await one.expect("pusher:error")
    await two.nothing("expected the message to reach nobody")
    await one.nothing("expected one error")
    return str(message)


async def bad_name(t: CaseContext, name: str) -> str:
    one, two, channel = await two_on(t, "private-")
    await one.send(name, {}, channel=channel)
    message = await one.error(None)
    await t.publish(channel, "sentinel", "x")
    await two.expect("sentinel", channel)
    await one.expect("sentinel", channel)
    return str(message)


for name in (
    "client-",
    "xclient-x",
    "Client-x",
    "client_x",
    " client-x",
    "pusher:x",
    "client-".ljust(201, "x"),
):
    shown = name if len(name) < 50 else "201 characters"
    case("6", f"refused: the name {shown!r}", ON)(partial(bad_name, name=name))


@case("6", "a name of 200 characters is allowed", ON)
async def long_name(t: CaseContext) -> None:
    one, two, channel = await two_on(t, "private-")
    name = "client-".ljust(200, "x")
    await one.send(name, {}, channel=channel)
    await two.expect(name, channel)


async def public(t: CaseContext, prefix: str) -> str:
    one, two, channel = await two_on(t, prefix)
    await one.send("client-x", {}, channel=channel)
    return str(await rejected(t, one, two, channel))


for prefix in ("", "cache-", "xprivate-", "privatefoo", "presence"):
    case("6", f"refused on a public channel: {prefix}…", ON)(partial(public, prefix=prefix))


async def outsider(t: CaseContext, before: Callable[[CaseContext, Socket, str], Awaitable[None]]) -> str:
    one, two = await t.sockets(2)
    channel = t.name("private-")
    await t.subscribe(two, channel)
    await before(t, one, channel)
    await one.send("client-x", {}, channel=channel)
    return str(await rejected(t, one, two, channel))


async def never_in(_t: CaseContext, _socket: Socket, _channel: str) -> None:
    """The client has not subscribed."""


async def left(t: CaseContext, socket: Socket, channel: str) -> None:
    await t.subscribe(socket, channel)
    await socket.send("pusher:unsubscribe", {"channel": channel})


async def kept_out(t: CaseContext, socket: Socket, channel: str) -> None:
    await t.ask(socket, channel, auth="x")
    await t.refusal(socket, channel)


for name, before in (("has not subscribed", never_in), ("has unsubscribed", left), ("was refused", kept_out)):
    case("6", f"refused from a client that {name}", ON)(partial(outsider, before=before))


@case("6", "refused if the message has no channel", ON)
async def no_channel(t: CaseContext) -> str:
    one = await t.connect()
    await one.send("client-x", {})
    message = await one.error(None)
    await t.subscribe(one, t.name())
    return str(message)


@case("6", "data: 10 240 bytes are allowed, more are not", ON)
async def size(t: CaseContext) -> str:
    one, two, channel = await two_on(t, "private-")
    await one.send("client-x", "x" * 10_238, channel=channel)
    equal(len((await two.expect("client-x", channel)).data), 10_238, "the length of data")
    await one.send("client-x", "x" * 10_239, channel=channel)
    return str(await rejected(t, one, two, channel))


@case("6", "10 client events a second; more are refused with 4301, the connection is kept", ON)
async def rate(t: CaseContext) -> str:
    one, two, channel = await two_on(t, "private-")
    for number in range(30):
        await one.send("client-x", number, channel=channel)
    errors = await one.before_pong()
    for message in errors:
        equal((message.event, message.channel), ("pusher:error", channel), "the answer")
        equal(message.fields().get("code"), 4301, "the code")
    await t.publish(channel, "sentinel", "x")
    seen = []
    while (message := await two.next("the relayed messages")).event == "client-x":
        seen.append(message.data)
    equal(message.event, "sentinel", "the event after the relayed ones")
    check(errors, f"{len(seen)} of 30 at once were relayed, none refused")
    equal(seen[:10], list(range(10)), "the first ten")
    equal(len(seen) + len(errors), 30, "relayed and refused together")
    check(len(seen) <= 20, f"{len(seen)} of 30 at once were relayed")
    return f"{len(seen)} of 30 relayed"


@case("6", "the rate limit is per connection", ON)
async def own_rate(t: CaseContext) -> None:
    one, two, channel = await two_on(t, "private-")
    for number in range(10):
        await one.send("client-x", number, channel=channel)
    for _ in range(10):
        await two.expect("client-x", channel)
    await two.send("client-x", "mine", channel=channel)
    equal((await one.expect("client-x", channel)).data, "mine", "data")


@case("6", "client events are never cached", ON)
async def not_cached(t: CaseContext) -> None:
    one, two, channel = await two_on(t, "private-cache-")
    await one.send("client-x", {}, channel=channel)
    await two.expect("client-x", channel)
    late = await t.connect()
    await t.subscribe(late, channel)
    await late.expect("pusher:cache_miss", channel)


@case("6", "client events of one sender arrive in order", ON)
async def ordered(t: CaseContext) -> None:
    one, two, channel = await two_on(t, "private-")
    for number in range(8):
        await one.send("client-x", number, channel=channel)
    equal([(await two.expect("client-x", channel)).data for _ in range(8)], list(range(8)), "data")


@case("6", "a client event and an HTTP publish that excludes the sender reach the right sockets", ON)
async def with_exclusion(t: CaseContext) -> None:
    one, two, channel = await two_on(t, "private-")
    if not one.socket_id:
        raise NotApplicable("no socket_id")
    await t.publish(channel, "e", "x", socket_id=one.socket_id)
    await one.send("client-x", 1, channel=channel)
    await two.expect("e", channel)
    await two.expect("client-x", channel)
    await one.nothing("expected neither")
