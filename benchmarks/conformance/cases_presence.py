"""Section 5: presence channels and their notifications."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from .checks import check, equal
from .context import member
from .outcome import case

if TYPE_CHECKING:
    from .client import Socket
    from .context import CaseContext

ADDED: Final = "pusher_internal:member_added"
REMOVED: Final = "pusher_internal:member_removed"

BAD_DATA: Final = (
    ("no channel_data", None),
    ("text that is not JSON", "x"),
    ("a list", "[]"),
    ("no user_id", '{"user_info":{}}'),
    ("user_id null", '{"user_id":null}'),
    ("user_id true", '{"user_id":true}'),
    ("user_id an object", '{"user_id":{}}'),
    ("user_id a list", '{"user_id":[7]}'),
)


async def bad_data(t: CaseContext, channel_data: str | None) -> str:
    socket, channel = await t.connect(), t.name("presence-")
    await t.ask(socket, channel, channel_data)
    message = await t.refusal(socket, channel)
    await t.is_out(socket, channel)
    return str(message)


for name, channel_data in BAD_DATA:
    case("5.1", f"refused: {name}")(partial(bad_data, channel_data=channel_data))


@case("5.1", "other keys of channel_data are ignored")
async def other_keys(t: CaseContext) -> None:
    socket, channel = await t.connect(), t.name("presence-")
    await t.subscribe(socket, channel, member("7", role="x", user_information=1))


INFOS: Final[tuple[tuple[str, Any], ...]] = (
    ("an object", {"name": "Ann \u00e4", "tags": [1, 2.5, None, {}]}),
    ("an empty object", {}),
    ("a string", "Ann"),
    ("a list", [1, "2"]),
    ("a number", 7),
    ("false", False),
)


async def info(t: CaseContext, value: Any) -> None:
    one, two = await t.sockets(2)
    channel = t.name("presence-")
    await t.join(two, channel, "8")
    roster = await t.join(one, channel, "7", user_info=value)
    equal(roster["hash"]["7"], value, "user_info in the roster")
    added = (await two.expect(ADDED, channel)).parsed()
    equal(added, {"user_id": "7", "user_info": value}, "member_added")


for name, value in INFOS:
    case("5.1", f"user_info is delivered unchanged: {name}")(partial(info, value=value))


@case("5.1", "a signed-in user needs no channel_data")
async def signed_in(t: CaseContext) -> None:
    one, two = await t.sockets(2)
    channel, user = t.name("presence-"), t.name()
    await t.join(two, channel, "8")
    await t.sign_in(one, user, user_info={"name": "Ann"})
    roster = (await t.subscribe(one, channel)).parsed()["presence"]
    equal(roster["hash"].get(user), {"name": "Ann"}, "user_info in the roster")
    added = (await two.expect(ADDED, channel)).parsed()
    equal(added, {"user_id": user, "user_info": {"name": "Ann"}}, "member_added")


@case("5.1", "channel_data overrides the signed-in user")
async def override(t: CaseContext) -> None:
    socket, channel = await t.connect(), t.name("presence-")
    await t.sign_in(socket, t.name(), user_info={"name": "Ann"})
    roster = await t.join(socket, channel, "9", user_info={"name": "Bob"})
    equal(roster["hash"], {"9": {"name": "Bob"}}, "hash")


@case("5.1", "a signed-in user also needs the signature")
async def signed_in_unsigned(t: CaseContext) -> None:
    socket, channel = await t.connect(), t.name("presence-")
    await t.sign_in(socket, t.name())
    await t.ask(socket, channel, auth="")
    await t.refusal(socket, channel)
    await t.is_out(socket, channel)


@case("5.1", '7 and "7" are the same member')
async def same_member(t: CaseContext) -> None:
    one, two, third = await t.sockets(3)
    channel = t.name("presence-")
    await t.join(third, channel, "8")
    await t.join(one, channel, 7)
    equal((await third.expect(ADDED, channel)).parsed()["user_id"], 7, "user_id")
    equal((await t.join(two, channel, "7"))["count"], 2, "count")
    await t.publish(channel, "sentinel", "x")
    await third.expect("sentinel", channel)


@case("5.1", "an integer id stays an integer")
async def integer_id(t: CaseContext) -> None:
    one, two = await t.sockets(2)
    channel = t.name("presence-")
    await t.join(one, channel, "8")
    roster = await t.join(two, channel, 12345678901)
    check("12345678901" in roster["hash"], f"not in hash: {roster}")
    equal((await one.expect(ADDED, channel)).parsed(), {"user_id": 12345678901}, "member_added")
    await two.send("pusher:unsubscribe", {"channel": channel})
    equal((await one.expect(REMOVED, channel)).parsed(), {"user_id": 12345678901}, "member_removed")


@case("5.1", "an integer id stays an integer in the roster's ids")
async def integer_in_ids(t: CaseContext) -> None:
    one, two = await t.sockets(2)
    channel = t.name("presence-")
    await t.join(one, channel, 7)
    roster = await t.join(two, channel, "8")
    equal(sorted(roster["ids"], key=str), [7, "8"], "ids")


@case("5.1", "a string id stays a string")
async def string_id(t: CaseContext) -> None:
    one, two = await t.sockets(2)
    channel = t.name("presence-")
    await t.join(one, channel, "8")
    roster = await t.join(two, channel, "007")
    equal(sorted(roster["ids"]), ["007", "8"], "ids")
    equal((await one.expect(ADDED, channel)).parsed(), {"user_id": "007"}, "member_added")


@case("5.1", "user_id: 128 characters are allowed, 129 are not")
async def id_length(t: CaseContext) -> str:
    socket, channel = await t.connect(), t.name("presence-")
    await t.join(socket, t.name("presence-"), "x" * 128)
    await t.ask(socket, channel, member("x" * 129))
    message = await t.refusal(socket, channel)
    await t.is_out(socket, channel)
    return str(message)


@case("5.1", "user_info: 1024 bytes of JSON are allowed, more are not")
async def info_size(t: CaseContext) -> str:
    socket, channel = await t.connect(), t.name("presence-")
    await t.join(socket, t.name("presence-"), "7", user_info="x" * 1022)
    await t.ask(socket, channel, member("7", user_info="x" * 1023))
    message = await t.refusal(socket, channel)
    await t.is_out(socket, channel)
    return str(message)


@case("4.5", "user_info that is too large: pusher:subscription_error, LimitReached, 4301")
async def info_error(t: CaseContext) -> str:
    socket, channel = await t.connect(), t.name("presence-")
    await t.ask(socket, channel, member("7", user_info="x" * 2000))
    return await limit_reached(t, socket, channel, 4301)


@case("4.5", "a user_id that is too long: pusher:subscription_error, LimitReached, 4301")
async def id_error(t: CaseContext) -> str:
    socket, channel = await t.connect(), t.name("presence-")
    await t.ask(socket, channel, member("x" * 129))
    return await limit_reached(t, socket, channel, 4301)


async def limit_reached(t: CaseContext, socket: Socket, channel: str, status: int) -> str:
    message = await t.refusal(socket, channel)
    check(message.event == "pusher:subscription_error", f"not pusher:subscription_error: {message}")
    equal(message.data.get("type"), "LimitReached", "type")
    equal(message.data.get("status"), status, "status")
    return str(message)


@case(
    "15",
    "100 distinct members; another is refused with 4100, another connection of a member is not",
    "slow",
)
async def full(t: CaseContext) -> str:
    channel = t.name("presence-")
    for number in range(100):
        await t.join(await t.connect(), channel, str(number))
    late = await t.connect()
    await t.ask(late, channel, member("late"))
    seen = await limit_reached(t, late, channel, 4100)
    equal((await t.join(late, channel, "7"))["count"], 100, "count")
    return seen


@case("5.2", "the first member is in its own roster")
async def alone(t: CaseContext) -> None:
    socket, channel = await t.connect(), t.name("presence-")
    roster = await t.join(socket, channel, "7", user_info={"name": "Ann"})
    expected = {"ids": ["7"], "hash": {"7": {"name": "Ann"}}, "count": 1}
    equal(roster, expected, "presence")


@case("5.2", "the roster has each user once, with user_info or null")
async def roster_of_two(t: CaseContext) -> None:
    one, again, two = await t.sockets(3)
    channel = t.name("presence-")
    await t.join(one, channel, "7", user_info={"name": "Ann"})
    await t.join(again, channel, "7", user_info={"name": "Ann"})
    roster = await t.join(two, channel, "8")
    equal(sorted(roster["ids"]), ["7", "8"], "ids")
    equal(roster["hash"], {"7": {"name": "Ann"}, "8": None}, "hash")
    equal(roster["count"], 2, "count")


@case("5.2", "members of other channels are not in the roster")
async def channels_apart(t: CaseContext) -> None:
    one, two = await t.sockets(2)
    await t.join(one, t.name("presence-"), "7")
    equal((await t.join(two, t.name("presence-"), "8"))["ids"], ["8"], "ids")


@case("5.3", "member_added goes to the others, not to the member itself")
async def added(t: CaseContext) -> None:
    one, two = await t.sockets(2)
    channel = t.name("presence-")
    await t.join(one, channel, "7", user_info={"name": "Ann"})
    await t.join(two, channel, "8", user_info={"name": "Bob"})
    message = await one.expect(ADDED, channel)
    equal(message.parsed(), {"user_id": "8", "user_info": {"name": "Bob"}}, "member_added")
    await t.publish(channel, "sentinel", "x")
    await two.expect("sentinel", channel)
    await one.expect("sentinel", channel)


@case("5.3", "user_info is left out of member_added if it was not given")
async def added_without_info(t: CaseContext) -> None:
    one, two = await t.sockets(2)
    channel = t.name("presence-")
    await t.join(one, channel, "7")
    await t.join(two, channel, "8")
    equal((await one.expect(ADDED, channel)).parsed(), {"user_id": "8"}, "member_added")


async def leave(t: CaseContext, how: str) -> None:
    one, two = await t.sockets(2)
    channel = t.name("presence-")
    await t.join(one, channel, "7")
    await t.join(two, channel, "8")
    await one.expect(ADDED, channel)
    if how == "unsubscribes":
        await two.send("pusher:unsubscribe", {"channel": channel})
    elif how == "closes":
        await two.aclose()
    else:
        two.drop()
    equal((await one.expect(REMOVED, channel)).parsed(), {"user_id": "8"}, "member_removed")
    if how == "unsubscribes":
        await two.nothing("expected nothing for the member itself")
        equal((await t.join(two, channel, "8"))["count"], 2, "count after coming back")
        await one.expect(ADDED, channel)
    else:
        await t.publish(channel, "sentinel", "x")
        await one.expect("sentinel", channel)


for how in ("unsubscribes", "closes", "loses the connection"):
    case("5.3", f"member_removed when a member {how}")(partial(leave, how=how))


async def last_out(t: CaseContext, prefix: str) -> None:
    watcher, one, two = await t.sockets(3)
    channel = t.name(prefix)
    await t.enter_channel(watcher, channel, member("8"))
    for socket in (one, two):
        await t.enter_channel(socket, channel, member("7"))
    await watcher.expect(ADDED, channel)
    await one.send("pusher:unsubscribe", {"channel": channel})
    await one.before_pong()
    await t.publish(channel, "sentinel", "x")
    await watcher.expect("sentinel", channel)
    await two.send("pusher:unsubscribe", {"channel": channel})
    equal((await watcher.expect(REMOVED, channel)).parsed(), {"user_id": "7"}, "member_removed")


for prefix in ("presence-", "presence-cache-"):
    case("5.3", f"added with the first connection, removed with the last: {prefix}…")(
        partial(last_out, prefix=prefix)
    )


@case("5.3", "subscribing again changes nothing")
async def again(t: CaseContext) -> None:
    watcher, one = await t.sockets(2)
    channel = t.name("presence-")
    await t.join(watcher, channel, "8")
    for _ in range(2):
        equal((await t.join(one, channel, "7"))["count"], 2, "count")
    await watcher.expect(ADDED, channel)
    await t.publish(channel, "sentinel", "x")
    await watcher.expect("sentinel", channel)
    await one.send("pusher:unsubscribe", {"channel": channel})
    await watcher.expect(REMOVED, channel)


@case("5.3", "user_info of a second connection is ignored until the user has left")
async def later_info(t: CaseContext) -> None:
    one, two, third = await t.sockets(3)
    channel = t.name("presence-")
    await t.join(one, channel, "7", user_info={"name": "Ann"})
    await t.join(two, channel, "7", user_info={"name": "Other"})
    equal((await t.join(third, channel, "8"))["hash"]["7"], {"name": "Ann"}, "user_info")
    await one.send("pusher:unsubscribe", {"channel": channel})
    await one.before_pong()
    fourth = await t.connect()
    roster = await t.join(fourth, channel, "9")
    equal(roster["hash"]["7"], {"name": "Ann"}, "user_info when the first connection has gone")


@case("5.3", "a refused subscriber is not a member")
async def refused_is_no_member(t: CaseContext) -> None:
    one, two = await t.sockets(2)
    channel = t.name("presence-")
    await t.join(one, channel, "7")
    await t.ask(two, channel, member("8"), auth="x")
    await t.refusal(two, channel)
    await t.publish(channel, "sentinel", "x")
    await one.expect("sentinel", channel)
