"""Section 8: cache channels and subscription counts."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from .checks import check, equal
from .context import member
from .outcome import case

if TYPE_CHECKING:
    from .client import Socket
    from .context import CaseContext

KINDS: Final = ("cache-", "private-cache-", "private-encrypted-cache-", "presence-cache-")
OTHERS: Final = ("", "private-", "private-encrypted-", "cachefoo", "xcache-", "xprivate-cache-", "presence-")
MISS: Final = "pusher:cache_miss"
COUNT: Final = "pusher_internal:subscription_count"


async def late(t: CaseContext, channel: str) -> Socket:
    """A socket that has just subscribed."""
    socket = await t.connect()
    channel_data = member(t.name()) if channel.startswith("presence-") else None
    await t.subscribe(socket, channel, channel_data)
    return socket


async def miss(t: CaseContext, prefix: str) -> None:
    channel = t.name(prefix)
    socket = await late(t, channel)
    message = await socket.expect(MISS, channel)
    check(message.data in (None, "{}"), f"data in a cache_miss: {message}")
    await socket.nothing("expected one cache_miss")


async def replay(t: CaseContext, prefix: str) -> None:
    channel = t.name(prefix)
    data = '{ "a":\t1.0, "b":"\u00e4" }'
    await t.publish(channel, "first", "x")
    await t.publish(channel, "App\\Last", data)
    socket = await late(t, channel)
    message = await socket.expect("App\\Last", channel)
    equal(message.body, {"event": "App\\Last", "channel": channel, "data": data}, "the replayed event")
    await socket.nothing("expected the last event alone")


async def none(t: CaseContext, prefix: str) -> None:
    channel = t.name(prefix)
    await t.publish(channel, "e", "x")
    await (await late(t, channel)).nothing("expected nothing after the subscription")


for prefix in KINDS:
    case("8.1", f"{prefix}…: cache_miss when nothing is cached")(partial(miss, prefix=prefix))
    case("8.1", f"{prefix}…: the last event is replayed after subscription_succeeded")(
        partial(replay, prefix=prefix)
    )
for prefix in OTHERS:
    shown = prefix or "a name without a prefix"
    case("8.1", f"{shown}…: neither replay nor cache_miss")(partial(none, prefix=prefix))


@case("8.1", "the event is kept while subscribers come and go")
async def kept(t: CaseContext) -> None:
    channel = t.name("cache-")
    first = await late(t, channel)
    await first.expect(MISS, channel)
    await t.publish(channel, "e", "x")
    await first.expect("e", channel)
    await first.aclose()
    await (await late(t, channel)).expect("e", channel)


@case("8.1", "the replay goes to the new subscriber alone")
async def alone(t: CaseContext) -> None:
    channel = t.name("cache-")
    first = await late(t, channel)
    await first.expect(MISS, channel)
    await t.publish(channel, "e", "x")
    await first.expect("e", channel)
    await (await late(t, channel)).expect("e", channel)
    await t.publish(channel, "sentinel", "x")
    await first.expect("sentinel", channel)


@case("8.1", "events of a batch are cached")
async def batch(t: CaseContext) -> None:
    channel = t.name("cache-")
    events = [{"name": "e", "channel": channel, "data": data} for data in ("1", "2")]
    await t.ok("POST", "/batch_events", {"batch": events})
    equal((await (await late(t, channel)).expect("e", channel)).data, "2", "data")


@case("8.1", "an event that excluded a socket is cached")
async def excluded(t: CaseContext) -> None:
    channel = t.name("cache-")
    first = await late(t, channel)
    await first.expect(MISS, channel)
    await t.publish(channel, "e", "x", socket_id=first.socket_id)
    await (await late(t, channel)).expect("e", channel)
    await first.nothing("expected nothing for the socket that was left out")


@case("8.1", "an event of several channels is cached on each cache channel")
async def several(t: CaseContext) -> None:
    one, two = t.name("cache-"), t.name("private-cache-")
    await t.publish([one, two, t.name()], "e", "x")
    for channel in (one, two):
        await (await late(t, channel)).expect("e", channel)


@case("8.1", "joining and leaving members are not cached")
async def members(t: CaseContext) -> None:
    channel = t.name("presence-cache-")
    first = await late(t, channel)
    await first.expect(MISS, channel)
    second = await late(t, channel)
    await second.expect(MISS, channel)
    await first.expect("pusher_internal:member_added", channel)


async def count(socket: Socket, channel: str, expected: int) -> None:
    """Wait for the count; in a cluster, an older one may come first."""
    seen: Any = None
    while seen != {"subscription_count": expected}:
        seen = (await socket.expect(COUNT, channel)).parsed()


@case("8.2", "all subscribers get the count when one comes and when one goes", "subscription_count")
async def counted(t: CaseContext) -> None:
    one, two = [await t.connect(hear=[COUNT]) for _ in range(2)]
    channel = t.name("private-")
    await t.subscribe(one, channel)
    await count(one, channel, 1)
    await t.subscribe(two, channel)
    await count(two, channel, 2)
    await count(one, channel, 2)
    await two.send("pusher:unsubscribe", {"channel": channel})
    await count(one, channel, 1)
    await two.nothing("expected nothing for one who has left")
    await t.subscribe(two, channel)
    await count(two, channel, 2)
    await count(one, channel, 2)
    await two.aclose()
    await count(one, channel, 1)


@case("8.2", "the count comes after the cached event", "subscription_count")
async def count_after_cache(t: CaseContext) -> None:
    socket, channel = await t.connect(hear=[COUNT]), t.name("cache-")
    await t.publish(channel, "e", "x")
    await t.subscribe(socket, channel)
    await socket.expect("e", channel)
    await count(socket, channel, 1)


@case("8.2", "presence channels have no counts", "subscription_count")
async def no_count(t: CaseContext) -> None:
    socket, channel = await t.connect(hear=[COUNT]), t.name("presence-")
    await t.subscribe(socket, channel, member("7"))
    await t.publish(channel, "sentinel", "x")
    await socket.expect("sentinel", channel)


@case("8.2", "a repeated subscribe changes no count", "subscription_count")
async def count_again(t: CaseContext) -> None:
    one, two = [await t.connect(hear=[COUNT]) for _ in range(2)]
    channel = t.name()
    await t.subscribe(one, channel)
    await count(one, channel, 1)
    await t.ask(one, channel)
    await one.expect("pusher_internal:subscription_succeeded", channel)
    await one.before_pong()
    await t.subscribe(two, channel)
    await count(two, channel, 2)
