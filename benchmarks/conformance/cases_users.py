"""Section 7: sign-in, events to a user, connections that must be authorised, watchlists, termination."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from legato.protocol import signatures

from .checks import check, equal
from .context import member
from .outcome import case

if TYPE_CHECKING:
    from .client import Message, Socket
    from .context import CaseContext

SUCCESS: Final = "pusher:signin_success"
WATCHLIST: Final = "pusher_internal:watchlist_events"
TO_USER: Final = "#server-to-user-"


async def unchanged(t: CaseContext, template: str) -> None:
    socket = await t.connect()
    user_data = template.replace("ID", t.name())
    await t.ask_sign_in(socket, user_data)
    answer = await socket.expect(SUCCESS)  # the documents of the hosted service show an object
    equal(answer.fields().get("user_data"), user_data, "user_data")


USER_DATA: Final = (
    ("an id alone", '{"id":"ID"}'),
    ("white space and user_info", '{ "id" : "ID",\n"user_info":{"name":"\u00e4\U0001f600"} }'),
    ("escapes", '{"id":"ID","user_info":{"a":"\\u00e4\\/"}}'),
    ("other keys", '{"id":"ID","role":"admin","watchlist":[]}'),
)
for name, template in USER_DATA:
    case("7.1", f"signin_success has user_data as it was sent: {name}")(partial(unchanged, template=template))


@case("7.1", "an id that is a number is accepted")
async def number(t: CaseContext) -> None:
    socket = await t.connect()
    user = int.from_bytes(t.name().encode()[-6:], "big")
    await t.ask_sign_in(socket, json.dumps({"id": user}))
    await socket.expect(SUCCESS)
    await t.ask(socket, f"{TO_USER}{user}")
    await socket.expect("pusher_internal:subscription_succeeded", f"{TO_USER}{user}")


async def not_signed_in(t: CaseContext, socket: Socket, user: str) -> str:
    """Refused with 4009; the connection stays open and gets no events of the user."""
    message = await socket.error(4009)
    await t.subscribe(socket, t.name())
    await t.publish(f"{TO_USER}{user}", "e", "x")
    await socket.nothing("expected no events of a user after a refused sign-in")
    return str(message)


BAD_USERS: Final = (
    ("not JSON", "x"),
    ("a list", "[]"),
    ("a string", '"ID"'),
    ("null", "null"),
    ("no id", '{"user_info":{}}'),
    ("an empty id", '{"id":""}'),
    ("an id that is null", '{"id":null}'),
    ("an id that is an object", '{"id":{}}'),
    ("an id that is a list", '{"id":["ID"]}'),
)


async def bad_user(t: CaseContext, template: str) -> str:
    socket, user = await t.connect(), t.name()
    await t.ask_sign_in(socket, template.replace("ID", user))
    return await not_signed_in(t, socket, user)


for name, template in BAD_USERS:
    case("7.1", f"invalid user_data is refused with 4009: {name}")(partial(bad_user, template=template))


async def bad_auth(t: CaseContext, how: str) -> str:
    socket, user = await t.connect(), t.name()
    user_data = json.dumps({"id": user})
    text = f"{socket.socket_id}::user::{user_data}"
    auths: dict[str, Any] = {
        "wrong": f"{t.app.key}:{'0' * 64}",
        "empty": "",
        "null": None,
        "by another secret": f"{t.app.key}:{signatures.sign('x', text)}",
        "with another key": f"x:{signatures.sign(t.app.secret, text)}",
        "of other user_data": f"{t.app.key}:{signatures.sign(t.app.secret, text.replace(user, 'x'))}",
        "of another socket": f"{t.app.key}:{signatures.sign(t.app.secret, f'1{text}')}",
        "of a channel": f"{t.app.key}:{signatures.sign(t.app.secret, f'{socket.socket_id}:{user_data}')}",
    }
    await socket.send("pusher:signin", {"auth": auths[how], "user_data": user_data})
    return await not_signed_in(t, socket, user)


for how in (
    "wrong",
    "empty",
    "null",
    "by another secret",
    "with another key",
    "of other user_data",
    "of another socket",
    "of a channel",
):
    case("7.1", f"a bad signature is refused with 4009: {how}")(partial(bad_auth, how=how))


@case("7.1", "signing in again as the same user succeeds")
async def again(t: CaseContext) -> None:
    socket, user = await t.connect(), t.name()
    await t.sign_in(socket, user)
    await t.sign_in(socket, user)
    await t.publish(f"{TO_USER}{user}", "e", "x")
    await socket.expect("e", f"{TO_USER}{user}")
    await socket.nothing("expected the event once")


@case("7.1", "signing in as another user is refused with 4009, and the first sign-in stays")
async def other_user(t: CaseContext) -> str:
    socket, user, other = await t.connect(), t.name(), t.name()
    await t.sign_in(socket, user)
    await t.ask_sign_in(socket, json.dumps({"id": other}))
    seen = await not_signed_in(t, socket, other)
    await t.publish(f"{TO_USER}{user}", "e", "x")
    await socket.expect("e", f"{TO_USER}{user}")
    return seen


@case("7.1", "#server-to-user-: the own channel needs no signature, another user's is refused")
async def own_channel(t: CaseContext) -> None:
    socket, user = await t.connect(), t.name()
    await t.sign_in(socket, user)
    await t.ask(socket, f"{TO_USER}{user}")
    await socket.expect("pusher_internal:subscription_succeeded", f"{TO_USER}{user}")
    for other in (f"{TO_USER}{user}x", f"{TO_USER}{user[:-1]}", f"{TO_USER}"):
        await t.ask(socket, other)
        await t.refusal(socket, other)


@case("7.1", "#server-to-user- is refused before sign-in, even with a channel signature")
async def before_sign_in(t: CaseContext) -> None:
    socket, user = await t.connect(), t.name()
    channel = f"{TO_USER}{user}"
    await t.ask(socket, channel, auth=t.auth(socket, channel))
    await t.refusal(socket, channel)
    await t.is_out(socket, channel)


@case("7.2", "an event to a user reaches each of the user's sockets once, subscribed or not")
async def to_user(t: CaseContext) -> None:
    one, two, other, nobody = await t.sockets(4)
    user = t.name()
    channel = f"{TO_USER}{user}"
    for socket in (one, two):
        await t.sign_in(socket, user)
    await t.sign_in(other, t.name())
    await t.ask(one, channel)
    await one.expect("pusher_internal:subscription_succeeded", channel)
    await t.publish(channel, "hello", '{"a":1}')
    for socket in (one, two):
        message = await socket.expect("hello", channel)
        equal(message.data, '{"a":1}', "data")
    await t.publish(channel, "sentinel", "x")
    for socket in (one, two):
        await socket.expect("sentinel", channel)
    for socket in (other, nobody):
        await socket.nothing("expected nothing for another user")


@case("7.2", "an event to a user who is not connected is answered with {}")
async def to_nobody(t: CaseContext) -> None:
    await t.publish(f"{TO_USER}{t.name()}", "hello", "x")


@case("7.2", "an event to a user does not reach a presence member with that id")
async def not_to_member(t: CaseContext) -> None:
    socket, user = await t.connect(), t.name()
    await t.join(socket, t.name("presence-"), user)
    await t.publish(f"{TO_USER}{user}", "hello", "x")
    await socket.nothing("expected nothing for a member who is not signed in")


@case("7.2", "the channels of users are not listed")
async def not_listed(t: CaseContext) -> None:
    socket, user = await t.connect(), t.name()
    channel = f"{TO_USER}{user}"
    await t.sign_in(socket, user)
    await t.ask(socket, channel)
    await socket.expect("pusher_internal:subscription_succeeded", channel)
    listed = (await t.ok("GET", "/channels"))["channels"]
    check(channel not in listed, "the channel is listed")


@case("7.3", "a socket that is not authorised in time is closed with 4009", "strict", "slow")
async def unauthorised(t: CaseContext) -> None:
    app = t.target.others["strict"]
    stranger, public, private, user = [await t.connect(key=app.key) for _ in range(4)]
    for socket in (stranger, public):
        socket.seconds += 2 * t.target.patience
    await t.subscribe(public, t.name())
    channel = t.name("private-")
    await t.ask(private, channel, auth=t.auth(private, channel, app=app))
    await private.expect("pusher_internal:subscription_succeeded")
    await t.ask_sign_in(user, json.dumps({"id": t.name()}), app)
    await user.expect(SUCCESS)
    await stranger.refused(4009)
    await public.refused(4009)
    await private.nothing("expected the private subscriber to stay")
    await user.nothing("expected the signed-in user to stay")


def events(message: Message) -> dict[str, list[str]]:
    """Name -> user ids of a watchlist message, whose data may be an object too."""
    data = message.fields()
    found = {event["name"]: sorted(event["user_ids"]) for event in data["events"]}
    check(len(found) == len(data["events"]), f"a name twice: {message}")
    check(message.channel is None, f"a channel in a watchlist event: {message}")
    return found


async def watcher(t: CaseContext, watched: list[str]) -> tuple[Socket, dict[str, list[str]]]:
    """A signed-in watcher and its snapshot."""
    socket = await t.connect(hear=[WATCHLIST])
    await t.sign_in(socket, t.name(), watchlist=watched)
    return socket, events(await socket.expect(WATCHLIST))


@case("7.4", "after signin_success: the watched users who are online, and those who are not", "watchlist")
async def snapshot(t: CaseContext) -> None:
    here, away = t.name(), t.name()
    other = await t.connect()
    await t.sign_in(other, here)
    _, seen = await watcher(t, [here, away])
    equal(seen, {"online": [here], "offline": [away]}, "the snapshot")


@case("7.4", "watchlist events without users are left out", "watchlist")
async def no_empty_lists(t: CaseContext) -> None:
    away = t.name()
    socket, seen = await watcher(t, [away])
    equal(seen, {"offline": [away]}, "the snapshot")
    other = await t.connect(hear=[WATCHLIST])
    await t.sign_in(other, t.name(), watchlist=[])
    await other.nothing("expected nothing for an empty watchlist")
    await socket.nothing("expected nothing of people who are not watched")


@case("7.4", "a watched user is online with the first socket, offline after the last", "watchlist")
async def first_and_last(t: CaseContext) -> None:
    user = t.name()
    socket, _ = await watcher(t, [user])
    one, two = await t.sockets(2)
    await t.sign_in(one, user)
    equal(events(await socket.expect(WATCHLIST)), {"online": [user]}, "after the first sign-in")
    await t.sign_in(two, user)
    await one.aclose()
    await socket.nothing("expected nothing while one of two sockets is there")
    socket.seconds += t.target.patience  # offline may be held back
    await two.aclose()
    equal(events(await socket.expect(WATCHLIST)), {"offline": [user]}, "after the last has gone")


@case("7.4", "presence members who are not signed in are not online", "watchlist")
async def members_are_not_online(t: CaseContext) -> None:
    user = t.name()
    other = await t.connect()
    await t.subscribe(other, t.name("presence-"), member(user))
    _, seen = await watcher(t, [user])
    equal(seen, {"offline": [user]}, "the snapshot")


@case("7.4", "a watchlist of more than 100: 4302, and the sign-in succeeds", "watchlist")
async def long_watchlist(t: CaseContext) -> None:
    socket = await t.connect(hear=[WATCHLIST])
    users = [t.name() for _ in range(101)]
    await t.ask_sign_in(socket, json.dumps({"id": t.name(), "watchlist": users}))
    messages = {message.event: message for message in [await socket.next() for _ in range(3)]}
    equal(sorted(messages), sorted([SUCCESS, "pusher:error", WATCHLIST]), "the answers")
    equal(messages["pusher:error"].fields().get("code"), 4302, "the code")
    equal(events(messages[WATCHLIST]), {"offline": sorted(users[:100])}, "the snapshot")


@case("10.8", "terminate_connections closes a user's sockets: the error, then 4009")
async def terminate(t: CaseContext) -> None:
    one, two, other = await t.sockets(3)
    user = t.name()
    for socket in (one, two):
        await t.sign_in(socket, user)
    await t.sign_in(other, t.name())
    await t.done(f"/users/{user}/terminate_connections", {})
    for socket in (one, two):
        await socket.refused(4009)
    await other.nothing("expected other users to stay")


@case("10.8", "terminate_connections does not affect presence members")
async def terminate_not_members(t: CaseContext) -> None:
    socket, user = await t.connect(), t.name()
    channel = t.name("presence-")
    await t.join(socket, channel, user)
    await t.done(f"/users/{user}/terminate_connections", {})
    await t.publish(channel, "sentinel", "x")
    await socket.expect("sentinel", channel)


@case("10.8", "terminate_connections of a user who is not connected is answered with {}")
async def terminate_nobody(t: CaseContext) -> None:
    equal(await t.ok("POST", f"/users/{t.name()}/terminate_connections", {}), {}, "the answer")


@case("10.8", "terminate_connections accepts an empty body")
async def terminate_empty(t: CaseContext) -> None:
    await t.done(f"/users/{t.name()}/terminate_connections")


@case("10.8", "terminate_connections under the Python SDK's path, without /apps/ID")
async def terminate_alias(t: CaseContext) -> None:
    socket, user = await t.connect(), t.name()
    await t.sign_in(socket, user)
    path, content = f"{t.prefix}/users/{user}/terminate_connections", b"{}"
    response = await t.send("POST", path, t.sign("POST", path, content, {}), content)
    check(response.status == 200, f"expected 200, got {response}")
    await socket.refused(4009)


@case("10.8", "the Python SDK's path is signed too")
async def terminate_alias_signed(t: CaseContext) -> None:
    path, content = f"{t.prefix}/users/{t.name()}/terminate_connections", b"{}"
    wrong = t.app._replace(secret="x")  # noqa: S106 - wrong on purpose
    response = await t.send("POST", path, t.sign("POST", path, content, {}, wrong), content)
    check(response.status == 401, f"expected 401, got {response}")


@case("10.8", "a user id with spaces and non-ASCII letters, escaped after signing")
async def terminate_escaped(t: CaseContext) -> None:
    socket, user = await t.connect(), f"{t.name()} b@c"
    await t.sign_in(socket, user)
    signed = t.path(f"/users/{user}/terminate_connections")
    content = b"{}"
    params = t.sign("POST", signed, content, {})
    response = await t.send("POST", signed.replace(" ", "%20"), params, content)
    check(response.status == 200, f"expected 200, got {response}")
    await socket.refused(4009)
