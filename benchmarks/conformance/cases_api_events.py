"""Sections 10.3 and 10.4: publishing."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from .checks import check, equal
from .client import ABSENT
from .context import encode
from .outcome import case

if TYPE_CHECKING:
    from .client import Socket
    from .context import CaseContext

LIMIT: Final = 10_240


@case("10.3", "the answer is exactly {}")
async def exactly(t: CaseContext) -> None:
    body = {"name": "e", "channels": [t.name()], "data": "x"}
    response = await t.api("POST", "/events", body)
    check(response.status == 200 and response.text.strip() == "{}", f"expected 200 {{}}, got {response}")


async def subscribed(t: CaseContext, *channels: str) -> Socket:
    socket = await t.connect()
    for channel in channels:
        await t.subscribe(socket, channel)
    return socket


@case("10.3", "one channel in `channel`, as from the PHP SDK")
async def one_channel(t: CaseContext) -> None:
    channel = t.name()
    socket = await subscribed(t, channel)
    await t.done("/events", {"name": "e", "channel": channel, "data": "x"})
    await socket.expect("e", channel)


@case("10.3", "100 channels at once")
async def many(t: CaseContext) -> None:
    channels = [t.name() for _ in range(100)]
    socket = await subscribed(t, channels[0], channels[99])
    await t.publish(channels, "e", "x")
    equal({(await socket.expect("e")).channel for _ in range(2)}, {channels[0], channels[99]}, "the channels")


@case("10.3", "a channel that is named twice gets the event once")
async def duplicates(t: CaseContext) -> None:
    channel = t.name()
    socket = await subscribed(t, channel)
    await t.publish([channel, channel], "e", "x")
    await socket.expect("e", channel)
    await socket.nothing("expected the event once")


async def bad(t: CaseContext, change: dict[str, Any]) -> str:
    channel = t.name()
    socket = await subscribed(t, channel)
    body = {"name": "e", "channels": [channel], "data": "x"} | change
    body = {name: value for name, value in body.items() if value is not ABSENT}
    seen = await t.status(400, "POST", "/events", body)
    await socket.nothing("expected nothing to be published")
    return seen


BAD: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ("no name", {"name": ABSENT}),
    ("a name that is a number", {"name": 7}),
    ("an empty name", {"name": ""}),
    ("a name of 201 characters", {"name": "x" * 201}),
    ("a name reserved for the protocol: pusher:", {"name": "pusher:ping"}),
    ("a name reserved for the protocol: pusher_internal:", {"name": "pusher_internal:member_added"}),
    ("no data", {"data": ABSENT}),
    ("no channels", {"channels": ABSENT}),
    ("an empty list of channels", {"channels": []}),
    ("channels that are text", {"channels": "x"}),
    ("channels that are numbers", {"channels": [7]}),
    ("an empty channel name", {"channels": [""]}),
    ("a channel name with a space", {"channels": ["a b"]}),
    ("a channel name with a slash", {"channels": ["a/b"]}),
    ("a channel name with a line feed", {"channels": ["a\n"]}),
    ("a channel name of 201 characters", {"channels": ["x" * 201]}),
    ("a channel name with #", {"channels": ["#private"]}),
    ("101 channels", {"channels": [f"conformance-{number}" for number in range(101)]}),
    ("socket_id of one number", {"socket_id": "123"}),
    ("socket_id with letters", {"socket_id": "1.x"}),
    ("socket_id with a line feed", {"socket_id": "1.2\n"}),
    ("socket_id that is empty", {"socket_id": ""}),
    ("socket_id that is a number", {"socket_id": 1.2}),
)
for name, change in BAD:
    case("10.3", f"{name}: 400")(partial(bad, change=change))


@case("10.3", "one bad channel among good ones: 400, and nothing is sent")
async def one_bad(t: CaseContext) -> None:
    channel = t.name()
    socket = await subscribed(t, channel)
    await t.status(400, "POST", "/events", {"name": "e", "channels": [channel, "a b"], "data": "x"})
    await socket.nothing("expected nothing to be published")


async def bad_body(t: CaseContext, content: bytes) -> str:
    return await t.status(400, "POST", "/events", content)


for name, content in (
    ("not JSON", b"hello"),
    ("truncated JSON", b'{"name":"e"'),
    ("a list", b"[]"),
    ("null", b"null"),
    ("not UTF-8", b'{"name":"e","channel":"c","data":"\xff"}'),
    ("empty", b""),
):
    case("10.3", f"a body that is {name}: 400")(partial(bad_body, content=content))


async def encoded(t: CaseContext, value: Any) -> None:
    channel = t.name()
    socket = await subscribed(t, channel)
    await t.publish(channel, "e", value)
    data = (await socket.expect("e", channel)).data
    equal(data, json.dumps(value, separators=(",", ":")), "data")


for name, value in (("an object", {"a": [1, "x"]}), ("a list", [1, 2]), ("a number", 7), ("true", True)):
    case("10.3", f"data that is {name} is sent as its JSON")(partial(encoded, value=value))


@case("10.3", "data: 10 240 bytes are allowed, one more is 413")
async def size(t: CaseContext) -> str:
    channel = t.name()
    socket = await subscribed(t, channel)
    await t.publish(channel, "e", "x" * LIMIT)
    equal(len((await socket.expect("e", channel)).data), LIMIT, "the length of data")
    body = {"name": "e", "channel": channel, "data": "x" * (LIMIT + 1)}
    seen = await t.status(413, "POST", "/events", body)
    await socket.nothing("expected nothing to be published")
    return seen


@case("10.3", "data is measured after decoding: 10 240 bytes in a body of 120 KB")
async def escaped_size(t: CaseContext) -> None:
    channel = t.name()
    socket = await subscribed(t, channel)
    content = encode({"name": "e", "channel": channel, "data": "DATA"})
    escapes = b"\\u0001" * (LIMIT // 2) + b"\\u00e9" * (LIMIT // 4)
    await t.ok("POST", "/events", content.replace(b"DATA", escapes))
    equal((await socket.expect("e", channel)).data, "\x01" * (LIMIT // 2) + "\u00e9" * (LIMIT // 4), "data")


@case("10.3", "data is measured in bytes of UTF-8, not in characters")
async def bytes_not_characters(t: CaseContext) -> None:
    body = {"name": "e", "channel": t.name(), "data": "\u00e9" * (LIMIT // 2)}
    await t.ok("POST", "/events", body)
    await t.status(413, "POST", "/events", body | {"data": "\u00e9" * (LIMIT // 2 + 1)})


@case("10.3", "socket_id is excluded on all channels")
async def exclusion(t: CaseContext) -> None:
    one, two = t.name(), t.name()
    left_out, other = await subscribed(t, one, two), await subscribed(t, one, two)
    await t.publish([one, two], "e", "x", socket_id=left_out.socket_id)
    equal({(await other.expect("e")).channel for _ in range(2)}, {one, two}, "what the other socket got")
    await t.publish(one, "sentinel", "x")
    await left_out.expect("sentinel", one)


@case("10.3", "a socket_id that is null or unknown excludes nobody")
async def no_exclusion(t: CaseContext) -> None:
    channel = t.name()
    socket = await subscribed(t, channel)
    for socket_id in (None, "1.1", "99999999999999999999.1"[-21:]):
        await t.publish(channel, "e", "x", socket_id=socket_id)
        await socket.expect("e", channel)


@case("10.3", "an encrypted event is delivered unchanged")
async def encrypted(t: CaseContext) -> None:
    channel = t.name("private-encrypted-")
    socket = await subscribed(t, channel)
    data = '{"nonce":"AAAA","ciphertext":"BBBB"}'
    await t.publish(channel, "e", data)
    equal((await socket.expect("e", channel)).data, data, "data")


@case("10.3", "unknown keys are ignored")
async def unknown_keys(t: CaseContext) -> None:
    await t.publish(t.name(), "e", "x", tags={"a": "b"}, idempotency_key="x")


@case("10.3", "info: user_count and subscription_count, one entry for each channel")
async def info(t: CaseContext) -> str:
    one, two, three = await t.sockets(3)
    presence, public, empty = t.name("presence-"), t.name(), t.name()
    await t.subscribe(one, public)
    for socket, user in ((one, "7"), (two, "7"), (three, "8")):
        await t.join(socket, presence, user)
    body = {
        "name": "e",
        "data": "x",
        "channels": [presence, public, empty, public],
        "info": "user_count,subscription_count",
    }
    answer = await t.ok("POST", "/events", body)
    check(isinstance(answer.get("channels"), dict), f"no channels in the answer: {answer}")
    channels = answer["channels"]
    equal(sorted(channels), sorted([presence, public, empty]), "the channels of the answer")
    equal(channels[presence].get("user_count"), 2, "user_count")
    check("user_count" not in channels[public], f"user_count of a public channel: {answer}")
    counts = [channels[name].get("subscription_count") for name in (public, empty)]
    check(counts in ([1, 0], [None, None], [1, None]), f"subscription_count: {answer}")
    return f"{answer}"


@case("10.3", "info: user_count alone")
async def user_count(t: CaseContext) -> None:
    socket, channel = await t.connect(), t.name("presence-")
    await t.join(socket, channel, "7")
    body = {"name": "e", "data": "x", "channels": [channel], "info": "user_count"}
    equal(await t.ok("POST", "/events", body), {"channels": {channel: {"user_count": 1}}}, "the answer")


@case("10.4", "a batch is answered with exactly {}")
async def batch(t: CaseContext) -> None:
    one, two = t.name(), t.name()
    socket = await subscribed(t, one, two)
    events = [{"name": "e", "channel": one, "data": "1"}, {"name": "f", "channel": two, "data": "2"}]
    response = await t.api("POST", "/batch_events", {"batch": events})
    check(response.status == 200 and response.text.strip() == "{}", f"expected 200 {{}}, got {response}")
    seen = {(message.event, message.data) for message in [await socket.next() for _ in range(2)]}
    equal(seen, {("e", "1"), ("f", "2")}, "what arrived")


@case("10.4", "a batch of 10 events arrives in order")
async def ten(t: CaseContext) -> None:
    channel = t.name()
    socket = await subscribed(t, channel)
    events = [{"name": "e", "channel": channel, "data": str(number)} for number in range(10)]
    await t.done("/batch_events", {"batch": events})
    equal([(await socket.expect("e", channel)).data for _ in range(10)], [*map(str, range(10))], "data")


@case("10.4", "each event of a batch excludes its own socket_id")
async def batch_exclusion(t: CaseContext) -> None:
    channel = t.name()
    one, two = await subscribed(t, channel), await subscribed(t, channel)
    events = [
        {"name": "e", "channel": channel, "data": "1", "socket_id": one.socket_id},
        {"name": "e", "channel": channel, "data": "2", "socket_id": two.socket_id},
    ]
    await t.done("/batch_events", {"batch": events})
    for socket, data in ((one, "2"), (two, "1")):
        equal((await socket.expect("e", channel)).data, data, "data")
    await t.publish(channel, "sentinel", "x")
    await one.expect("sentinel", channel)


@case("10.4", "a batch with info: an entry for each event, in order")
async def batch_info(t: CaseContext) -> None:
    socket, channel = await t.connect(), t.name("presence-")
    await t.join(socket, channel, "7")
    events = [
        {"name": "e", "channel": channel, "data": "1", "info": "user_count"},
        {"name": "e", "channel": t.name(), "data": "2"},
    ]
    equal(
        await t.ok("POST", "/batch_events", {"batch": events}),
        {"batch": [{"user_count": 1}, {}]},
        "the answer",
    )


async def bad_batch(t: CaseContext, change: dict[str, Any], status: int) -> str:
    """The second of two events is bad: neither is sent."""
    channel = t.name()
    socket = await subscribed(t, channel)
    event = {"name": "e", "channel": channel, "data": "x"}
    second = {name: value for name, value in (event | change).items() if value is not ABSENT}
    seen = await t.status(status, "POST", "/batch_events", {"batch": [event, second]})
    await socket.nothing("expected nothing to be published")
    return seen


BAD_BATCH: Final[tuple[tuple[str, dict[str, Any], int], ...]] = (
    ("without a name", {"name": ABSENT}, 400),
    ("without data", {"data": ABSENT}, 400),
    ("without a channel", {"channel": ABSENT}, 400),
    ("with a bad channel", {"channel": "a b"}, 400),
    ("with a bad socket_id", {"socket_id": "x"}, 400),
    ("with a reserved name", {"name": "pusher:x"}, 400),
    ("with too much data", {"data": "x" * (LIMIT + 1)}, 413),
)
for name, change, status in BAD_BATCH:
    case("10.4", f"a batch with an event {name}: {status}, and nothing is sent")(
        partial(bad_batch, change=change, status=status)
    )


@case("10.4", "a batch of 11 events, or of none: 400")
async def eleven(t: CaseContext) -> None:
    event = {"name": "e", "channel": t.name(), "data": "x"}
    await t.status(400, "POST", "/batch_events", {"batch": [event] * 11})
    await t.status(400, "POST", "/batch_events", {"batch": []})
    await t.status(400, "POST", "/batch_events", {"batch": "x"})
    await t.status(400, "POST", "/batch_events", {})
