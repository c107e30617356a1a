"""Sections 10.5 to 10.9: queries of channels and users, and deprecated endpoints."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from .checks import NotApplicable, check, equal
from .context import encode
from .outcome import case

if TYPE_CHECKING:
    from .context import CaseContext


async def listed(t: CaseContext, prefix: str, **params: str) -> Any:
    """The channels whose names start with ``prefix``, as the API lists them."""
    answer = await t.ok("GET", "/channels", filter_by_prefix=prefix, **params)
    check(isinstance(answer.get("channels"), dict), f"channels is not an object: {answer}")
    return answer["channels"]


async def names(t: CaseContext, prefix: str) -> set[str]:
    """The names of :func:`listed`."""
    return set(await listed(t, prefix))


@case("10.5", "occupied channels, each with {}")
async def occupied(t: CaseContext) -> None:
    one, two = await t.sockets(2)
    prefix = t.name()
    for name in ("a", "b"):
        await t.subscribe(one, prefix + name)
    await t.subscribe(two, f"{prefix}a")
    expected: Any = {f"{prefix}a": {}, f"{prefix}b": {}}
    await t.eventually(lambda: listed(t, prefix), expected, "the channels")


@case("10.5", "all channels without a filter")
async def unfiltered(t: CaseContext) -> None:
    socket = await t.connect()
    channels = [t.name(), t.name("private-"), t.name("presence-")]
    for name in channels[:2]:
        await t.subscribe(socket, name)
    await t.join(socket, channels[2], "7")

    async def missing() -> set[str]:
        return set(channels) - set((await t.ok("GET", "/channels"))["channels"])

    await t.eventually(missing, set(), "the channels that are not listed")


@case("10.5", "no channels: an object")
async def empty(t: CaseContext) -> None:
    name = t.name()
    await t.publish(name, "e", "x")
    equal(await t.ok("GET", "/channels", filter_by_prefix=name), {"channels": {}}, "the answer")


@case("10.5", "the filter is a prefix, not a pattern")
async def literal_prefix(t: CaseContext) -> None:
    socket, name = await t.connect(), t.name()
    await t.subscribe(socket, name)
    equal(await listed(t, name[1:]), {}, "the channels for a part from the middle")
    equal(await listed(t, f"{name[:-1]}*"), {}, "the channels for a star")
    equal(await listed(t, f"{name[:-1]}?"), {}, "the channels for a question mark")


@case("10.5", "a channel is no longer listed when its last subscriber has left")
async def vacated(t: CaseContext) -> None:
    one, two = await t.sockets(2)
    prefix = t.name()
    for socket, name in ((one, "a"), (one, "b"), (two, "b")):
        await t.subscribe(socket, prefix + name)
    await one.send("pusher:unsubscribe", {"channel": f"{prefix}a"})
    await one.before_pong()
    await t.eventually(lambda: names(t, prefix), {f"{prefix}b"}, "after an unsubscribe")
    await one.aclose()
    await t.eventually(lambda: names(t, prefix), {f"{prefix}b"}, "with one of two subscribers")
    two.drop()
    await t.eventually(lambda: names(t, prefix), set(), "after a cut connection")


@case("10.5", "user_count of presence channels: distinct users")
async def user_counts(t: CaseContext) -> None:
    one, two, three = await t.sockets(3)
    prefix = t.name("presence-")
    for socket, name, user in ((one, "a", "7"), (one, "b", 7), (two, "a", "7"), (three, "a", "8")):
        await t.join(socket, prefix + name, user)
    expected = {f"{prefix}a": 2, f"{prefix}b": 1}

    async def look() -> dict[str, Any]:
        channels = await listed(t, prefix, info="user_count")
        return {name: channel.get("user_count") for name, channel in channels.items()}

    await t.eventually(look, expected, "user_count of the channels")


@case("10.5", "user_count without a prefix of presence-: 400")
async def user_count_of_others(t: CaseContext) -> str:
    await t.status(400, "GET", "/channels", info="user_count")
    return await t.status(400, "GET", "/channels", info="user_count", filter_by_prefix="private-")


async def becomes(t: CaseContext, channel: str, info: str, expected: Any) -> None:
    """The answer about a channel becomes as expected; in a cluster it may take a moment."""

    async def look() -> Any:
        answer = await channel_info(t, channel, info)
        return {name: answer[name] for name in expected if name in answer}

    await t.eventually(look, expected, "the answer")


async def channel_info(t: CaseContext, channel: str, info: str = "") -> Any:
    params = {"info": info} if info else {}
    return await t.ok("GET", f"/channels/{channel}", **params)


@case("10.6", "without info: occupied, and nothing else")
async def one_channel(t: CaseContext) -> None:
    socket = await t.connect()
    for prefix in ("", "private-", "private-encrypted-"):
        channel = t.name(prefix)
        equal(await channel_info(t, channel), {"occupied": False}, "before")
        await t.subscribe(socket, channel)
        await t.eventually(partial(channel_info, t, channel), {"occupied": True}, "the answer")
    channel = t.name("presence-")
    await t.join(socket, channel, "7")
    await t.eventually(partial(channel_info, t, channel), {"occupied": True}, "the answer")


@case("10.6", "user_count and subscription_count of a presence channel")
async def counts(t: CaseContext) -> None:
    one, two, three = await t.sockets(3)
    channel = t.name("presence-")
    for socket, user in ((one, "7"), (two, "7"), (three, 8)):
        await t.join(socket, channel, user)
    expected = {"occupied": True, "user_count": 2}
    await becomes(t, channel, "user_count", expected)
    answer = await channel_info(t, channel, "user_count,subscription_count")
    if "subscription_count" in answer:
        await becomes(t, channel, "user_count,subscription_count", {**expected, "subscription_count": 3})


@case("10.6", "the counts of a channel without subscribers are 0")
async def zero(t: CaseContext) -> None:
    await becomes(t, t.name("presence-"), "user_count", {"occupied": False, "user_count": 0})


@case("10.6", "subscription_count: connections")
async def subscription_count(t: CaseContext) -> None:
    one, two = await t.sockets(2)
    channel = t.name()
    for socket in (one, two):
        await t.subscribe(socket, channel)
    answer = await channel_info(t, channel, "subscription_count")
    if "subscription_count" not in answer:
        raise NotApplicable("subscription_count is not enabled for this application")
    await becomes(t, channel, "subscription_count", {"occupied": True, "subscription_count": 2})
    await two.aclose()
    await becomes(t, channel, "subscription_count", {"occupied": True, "subscription_count": 1})
    await becomes(t, t.name(), "subscription_count", {"occupied": False, "subscription_count": 0})


@case("10.6", "user_count of a channel that is not a presence channel: 400")
async def no_user_count(t: CaseContext) -> str:
    await t.status(400, "GET", f"/channels/{t.name('private-')}", info="user_count")
    return await t.status(400, "GET", f"/channels/{t.name()}", info="user_count")


@case("10.6", "cache: the data and its remaining seconds, or null")
async def cache(t: CaseContext) -> str:
    channel = t.name("cache-")
    await becomes(t, channel, "cache", {"occupied": False, "cache": None})
    await t.publish(channel, "e", '{ "a":1 }')
    answer = await channel_info(t, channel, "cache")
    cached = answer.get("cache")
    check(isinstance(cached, dict), f"no cache in the answer: {answer}")
    equal(cached.get("data"), '{ "a":1 }', "data")
    ttl = cached.get("ttl")
    check(type(ttl) is int and 0 < ttl <= 1800, f"ttl is {ttl!r}")
    return f"{answer}"


@case("10.6", "a channel name with =@,.;")
async def special_name(t: CaseContext) -> None:
    socket, channel = await t.connect(), t.name("a=b;c@d,e.f_g-")
    await t.subscribe(socket, channel)
    await becomes(t, channel, "", {"occupied": True})


@case("10.7", "users: each once, ids as strings")
async def users(t: CaseContext) -> None:
    one, two, three = await t.sockets(3)
    channel = t.name("presence-")
    for socket, user in ((one, 7), (two, 7), (three, "x")):
        await t.join(socket, channel, user)

    async def look() -> Any:
        answer = await t.ok("GET", f"/channels/{channel}/users")
        return sorted(answer["users"], key=str)

    await t.eventually(look, [{"id": "7"}, {"id": "x"}], "users")
    three.drop()
    await t.eventually(look, [{"id": "7"}], "users after one has gone")


@case("10.7", "users of a channel without subscribers: an empty list")
async def no_users(t: CaseContext) -> None:
    answer = await t.ok("GET", f"/channels/{t.name('presence-')}/users")
    equal(answer, {"users": []}, "the answer")


@case("10.7", "users of a channel that is not a presence channel: 400")
async def users_of_others(t: CaseContext) -> None:
    for prefix in ("", "private-", "xpresence-"):
        await t.status(400, "GET", f"/channels/{t.name(prefix)}/users")


@case("10.9", "deprecated: POST channels/NAME/events with the data as the body")
async def old_events(t: CaseContext) -> None:
    socket, channel = await t.connect(), t.name()
    await t.subscribe(socket, channel)
    path = f"/channels/{channel}/events"
    response = await t.api("POST", path, encode({"a": 1}), {"name": "e"})
    if response.status in (404, 405):
        raise NotApplicable(f"not there: {response.status}")
    check(response.status == 202, f"expected 202, got {response}")
    equal(response.json(), {}, "the answer")
    equal((await socket.expect("e", channel)).data, '{"a": 1}', "data")
    params = {"name": "e", "socket_id": socket.socket_id}
    await t.api("POST", path, encode({"a": 1}), params)
    await socket.nothing("expected nothing for the socket that was left out")


@case("10.9", "deprecated: GET channels/NAME/stats")
async def old_stats(t: CaseContext) -> None:
    socket, channel = await t.connect(), t.name("presence-")
    await t.join(socket, channel, "7")
    response = await t.api("GET", f"/channels/{channel}/stats", None, {"info": "user_count"})
    if response.status in (404, 405):
        raise NotApplicable(f"not there: {response.status}")
    equal(response.json(), {"occupied": True, "user_count": 1}, "the answer")


@case("10.9", "connections, as Reverb has it")
async def connections(t: CaseContext) -> str:
    await t.connect()
    response = await t.api("GET", "/connections")
    if response.status in (404, 405):
        raise NotApplicable(f"not there: {response.status}")
    check(response.status == 200, f"expected 200, got {response}")
    count = response.json().get("connections")
    check(type(count) is int and count >= 1, f"expected a count of at least 1, got {response}")
    return str(response)


@case("10.9", "the number of connections needs a signature")
async def connections_unsigned(t: CaseContext) -> None:
    response = await t.send("GET", t.path("/connections"), {})
    check(response.status in (401, 404, 405), f"expected 401, got {response}")
