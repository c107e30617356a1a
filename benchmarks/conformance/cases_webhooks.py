"""Sections 11 and 16: webhooks. Needs a server that sends them to this program."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from legato.protocol import signatures

from .checks import check, equal
from .context import member
from .outcome import case

if TYPE_CHECKING:
    from .client import Socket
    from .context import CaseContext
    from .hooks import HookRequest

ON: Final = "webhooks"
HOLD_BACK: Final = 3.0
"""Seconds for which the webhook of a departure may be held back."""


async def wait(t: CaseContext, channel: str, name: str, **fields: Any) -> tuple[HookRequest, dict[str, Any]]:
    return await t.hooks.wait(channel, t.target.timeout + t.target.patience, name=name, **fields)


async def event(t: CaseContext, channel: str, name: str, **fields: Any) -> None:
    """Wait for an event with exactly these fields."""
    _, seen = await wait(t, channel, name)
    equal(seen, {"name": name, "channel": channel} | fields, "the event")


async def occupied(t: CaseContext, prefix: str = "", user: str | None = None) -> tuple[Socket, str]:
    socket, channel = await t.connect(), t.name(prefix)
    await t.subscribe(socket, channel, None if user is None else member(user))
    return socket, channel


@case("11.1", "the content type is application/json, without a charset", ON)
async def content_type(t: CaseContext) -> None:
    _, channel = await occupied(t)
    hook, _ = await wait(t, channel, "channel_occupied")
    equal(hook.headers.get("content-type"), "application/json", "content-type")


@case("11.1", "the key and a signature over the body's bytes", ON)
async def signature(t: CaseContext) -> None:
    _, channel = await occupied(t)
    hook, _ = await wait(t, channel, "channel_occupied")
    equal(hook.headers.get("x-pusher-key"), t.app.key, "X-Pusher-Key")
    expected = signatures.sign(t.app.secret, hook.body.decode("utf-8", "surrogateescape"))
    equal(hook.headers.get("x-pusher-signature"), expected, "X-Pusher-Signature")


@case("11.1", "time_ms is an integer", ON)
async def time_ms(t: CaseContext) -> str:
    _, channel = await occupied(t)
    hook, _ = await wait(t, channel, "channel_occupied")
    seen = hook.json().get("time_ms")
    check(type(seen) is int and seen > 1_000_000_000_000, f"time_ms is {seen!r}")
    return str(seen)


async def first_and_last(t: CaseContext, prefix: str) -> None:
    one, channel = await occupied(t, prefix)
    two = await t.connect()
    await t.subscribe(two, channel)
    await event(t, channel, "channel_occupied")
    for socket in (one, two):
        await socket.send("pusher:unsubscribe", {"channel": channel})
        await socket.before_pong()
    await event(t, channel, "channel_vacated")
    equal([name for name in t.hooks.names(channel) if name.startswith("channel_")], ENDS, "the events")


ENDS: Final = ["channel_occupied", "channel_vacated"]
for prefix in ("", "private-", "cache-"):
    shown = prefix or "a public name"
    case("11.2", f"channel_occupied with the first, channel_vacated with the last: {shown}", ON)(
        partial(first_and_last, prefix=prefix)
    )


@case("11.2", "member_added with a user's first connection, member_removed with the last", ON)
async def members(t: CaseContext) -> None:
    one, channel = await occupied(t, "presence-", "7")
    two = await t.connect()
    await t.subscribe(two, channel, member("7"))
    await event(t, channel, "member_added", user_id="7")
    for socket in (one, two):
        await socket.send("pusher:unsubscribe", {"channel": channel})
        await socket.before_pong()
    await event(t, channel, "member_removed", user_id="7")
    await wait(t, channel, "channel_vacated")
    equal(t.hooks.names(channel), ORDER, "the events")


ORDER: Final = ["channel_occupied", "member_added", "member_removed", "channel_vacated"]


@case("11.2", "user_id is a string, even if it was a number", ON)
async def user_id(t: CaseContext) -> None:
    socket, channel = await t.connect(), t.name("presence-")
    await t.subscribe(socket, channel, member(7))
    await event(t, channel, "member_added", user_id="7")


@case("11.2", "client_event: data is a string", ON, "client events")
async def client_event(t: CaseContext) -> None:
    one, channel = await occupied(t, "private-")
    await one.send("client-x", {"a": 1}, channel=channel)
    _, seen = await wait(t, channel, "client_event")
    data = seen.pop("data", None)
    check(isinstance(data, str), f"data is not a string: {data!r}")
    equal(json.loads(data), {"a": 1}, "data")
    expected = {"name": "client_event", "channel": channel, "event": "client-x", "socket_id": one.socket_id}
    equal(seen, expected, "the event")


@case(
    "11.2",
    "client_event on a presence channel: has user_id, and text unchanged",
    ON,
    "client events",
)
async def presence_client_event(t: CaseContext) -> None:
    one, channel = await occupied(t, "presence-", "7")
    await one.send("client-x", "text", channel=channel)
    fields = {"event": "client-x", "data": "text", "socket_id": one.socket_id, "user_id": "7"}
    await event(t, channel, "client_event", **fields)


@case("11.2", "a refused client event sends no webhook", ON, "client events")
async def refused_client_event(t: CaseContext) -> None:
    one, channel = await occupied(t, "private-")
    await one.send("client-", {}, channel=channel)
    await one.before_pong()
    await one.send("client-good", {}, channel=channel)
    _, seen = await wait(t, channel, "client_event")
    equal(seen.get("event"), "client-good", "the event")


@case("11.2", "cache_miss when nothing is cached", ON)
async def cache_miss(t: CaseContext) -> None:
    _, channel = await occupied(t, "cache-")
    await event(t, channel, "cache_miss")


@case("11.2", "subscription_count when it changes", ON, "subscription_count")
async def subscription_count(t: CaseContext) -> None:
    _, channel = await occupied(t)
    await event(t, channel, "subscription_count", subscription_count=1)


@case("11.2", "a refused subscription sends no webhook", ON)
async def refused_subscription(t: CaseContext) -> None:
    socket, channel = await t.connect(), t.name("private-")
    await t.ask(socket, channel, auth="x")
    await t.refusal(socket, channel)
    other = t.name()
    await t.subscribe(socket, other)
    await wait(t, other, "channel_occupied")
    equal(t.hooks.names(channel), [], "the events of the refused channel")


@case("11.3", "an answer other than 2xx: the same webhook again, with the same time_ms", ON)
async def retry(t: CaseContext) -> None:
    channel = t.name()
    t.hooks.refuse_once(channel)
    await t.subscribe(await t.connect(), channel)
    hook, _ = await wait(t, channel, "channel_occupied")
    refused = t.hooks.refused(channel)
    check(refused is not None, "the first request was not about this channel")
    assert refused is not None  # noqa: S101 - checked above
    equal(hook.json().get("time_ms"), refused.json().get("time_ms"), "time_ms")


@case("11.3", "a channel's webhooks stay in order after an answer other than 2xx", ON)
async def order(t: CaseContext) -> None:
    channel = t.name("presence-")
    t.hooks.refuse_once(channel)
    socket = await t.connect()
    await t.subscribe(socket, channel, member("7"))
    await socket.send("pusher:unsubscribe", {"channel": channel})
    await socket.before_pong()
    await wait(t, channel, "channel_vacated")
    equal(t.hooks.names(channel), ORDER, "the events")


@case("11.4", "a return within the hold-back: neither channel_vacated nor channel_occupied", ON)
async def hold_back(t: CaseContext) -> None:
    one, channel = await occupied(t, "presence-", "7")
    await wait(t, channel, "member_added")
    await one.aclose()
    two, three = await t.sockets(2)
    await t.subscribe(two, channel, member("7"))
    await t.subscribe(three, channel, member("8"))
    await wait(t, channel, "member_added", user_id="8")
    equal(t.hooks.names(channel), ["channel_occupied", "member_added", "member_added"], "the events")


@case("11.4", "a disconnect without a return: channel_vacated after the hold-back", ON)
async def cut(t: CaseContext) -> None:
    one, channel = await occupied(t, "presence-", "7")
    await wait(t, channel, "member_added")
    one.drop()
    await wait(t, channel, "channel_vacated")
    equal(t.hooks.names(channel), ORDER, "the events")


@case("11.4", "WebSocket events are not held back", ON)
async def not_delayed(t: CaseContext) -> None:
    one, channel = await occupied(t, "presence-", "7")
    two = await t.connect()
    await t.subscribe(two, channel, member("8"))
    await one.expect("pusher_internal:member_added", channel)
    await two.aclose()
    one.seconds = min(one.seconds, HOLD_BACK - 0.5)
    await one.expect("pusher_internal:member_removed", channel)
