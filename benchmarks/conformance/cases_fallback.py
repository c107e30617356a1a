"""Section 12: the HTTP fallback transports of pusher-js."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from . import http
from .checks import check, equal
from .outcome import case
from .transports import HEADERS, QUERY, Poller, Stream, frames, messages, poll, push, session_path

if TYPE_CHECKING:
    from .context import CaseContext

ON: Final = "fallback"
SUCCEEDED: Final = "pusher_internal:subscription_succeeded"


@case("12", "a preflight is answered", ON)
async def preflight(t: CaseContext) -> None:
    headers = {
        "origin": "http://localhost",
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type",
    }
    for kind in ("xhr", "xhr_streaming", "xhr_send"):
        target = f"{session_path(t)}/{kind}"
        response = await http.request("OPTIONS", t.target.api, target, headers, b"", t.target.timeout)
        check(response.status in (200, 204), f"expected 200 or 204 for {kind}, got {response}")
        allowed = {
            name: response.headers.get(f"access-control-allow-{name}", "")
            for name in ("origin", "methods", "headers")
        }
        check(allowed["origin"] in ("*", "http://localhost"), f"the origin is not allowed: {allowed}")
        check("POST" in allowed["methods"], f"POST is not allowed: {allowed}")
        check("content-type" in allowed["headers"].lower(), f"Content-Type is not allowed: {allowed}")


@case("12", "answers have CORS headers for every origin, and are not cached", ON)
async def headers(t: CaseContext) -> None:
    response = await poll(t, session_path(t))
    equal(response.status, 200, "the status")
    check(response.headers.get("access-control-allow-origin") in ("*", "http://localhost"), "no CORS header")
    check("no-store" in response.headers.get("cache-control", ""), "no Cache-Control: no-store")


@case("12", "the first poll opens the session: an open frame, then connection_established", ON)
async def opening(t: CaseContext) -> None:
    poller = Poller(t)
    await poller.start()
    check(poller.socket_id, "no socket_id")


@case("12", "polls: subscribe, receive, ping", ON)
async def polls(t: CaseContext) -> None:
    poller, channel = Poller(t), t.name()
    await poller.start()
    await poller.send("pusher:subscribe", {"channel": channel})
    await poller.expect(SUCCEEDED)
    await t.publish(channel, "e", '{ "a":1 }')
    equal((await poller.expect("e")).data, '{ "a":1 }', "data")
    await poller.send("pusher:ping", {})
    await poller.expect("pusher:pong")


@case("12", "polls: what is sent between two of them is not lost", ON)
async def between_polls(t: CaseContext) -> None:
    poller, channel = Poller(t), t.name()
    await poller.start()
    await poller.send("pusher:subscribe", {"channel": channel})
    await poller.expect(SUCCEEDED)
    for number in range(3):
        await t.publish(channel, "e", str(number))
    equal([(await poller.expect("e")).data for _ in range(3)], ["0", "1", "2"], "data")


@case("12", "an unknown key: a close frame with 4001", ON)
async def unknown_key(t: CaseContext) -> str:
    path = session_path(t, t.name())
    found = frames((await poll(t, path)).text)
    if all(kind != "c" for kind, _ in found):
        found += frames((await poll(t, path)).text)
    check(found and found[-1][0] == "c", f"expected a close frame, got {found}")
    equal(found[-1][1][0], 4001, "the code")
    return str(found)


@case("12", "an unsupported version: a close frame with 4007", ON)
async def bad_version(t: CaseContext) -> None:
    path, query = session_path(t), QUERY.replace("protocol=7", "protocol=99")
    found = frames((await poll(t, path, query)).text)
    if all(kind != "c" for kind, _ in found):
        found += frames((await poll(t, path, query)).text)
    check(found and found[-1][0] == "c", f"expected a close frame, got {found}")
    equal(found[-1][1][0], 4007, "the code")


@case("12", "streaming: one answer delivers several messages", ON)
async def streaming(t: CaseContext) -> None:
    stream, channel = Stream(t, session_path(t)), t.name()
    started = await stream.start()
    check(started.headers.get("access-control-allow-origin") in ("*", "http://localhost"), "no CORS header")
    equal((await stream.frame())[0], "o", "the first frame")
    await stream.expect("pusher:connection_established")
    response = await push(t, stream.path, [{"event": "pusher:subscribe", "data": {"channel": channel}}])
    check(response.status in (200, 204), f"expected 204 for a send, got {response}")
    await stream.expect(SUCCEEDED)
    for number in range(3):
        await t.publish(channel, "e", str(number))
        equal((await stream.expect("e")).data, str(number), "data")


@case("12", "streaming: a new stream of the same session continues where the last one ended", ON)
async def next_stream(t: CaseContext) -> None:
    first, channel = Stream(t, session_path(t)), t.name()
    await first.start()
    equal((await first.frame())[0], "o", "the first frame")
    await first.expect("pusher:connection_established")
    await push(t, first.path, [{"event": "pusher:subscribe", "data": {"channel": channel}}])
    await first.expect(SUCCEEDED)
    await first.abort()
    second = Stream(t, first.path)
    await second.start()
    await t.publish(channel, "e", "x")
    await second.expect("e")


@case("12", "several messages in one send", ON)
async def several(t: CaseContext) -> None:
    poller, one, two = Poller(t), t.name(), t.name()
    await poller.start()
    subscribes = [{"event": "pusher:subscribe", "data": {"channel": channel}} for channel in (one, two)]
    response = await push(t, poller.path, subscribes)
    check(response.status in (200, 204), f"expected 204 for a send, got {response}")
    equal([(await poller.expect(SUCCEEDED)).channel for _ in range(2)], [one, two], "the channels")


@case("12", "an empty send is a ping", ON)
async def empty_send(t: CaseContext) -> None:
    poller = Poller(t)
    await poller.start()
    response = await push(t, poller.path, [])
    check(response.status in (200, 204), f"expected 204 for an empty send, got {response}")


@case("12", "a send to an unknown session: 404", ON)
async def unknown_session(t: CaseContext) -> None:
    response = await push(t, session_path(t), [])
    equal(response.status, 404, "the status")


@case("12", "an invalid send does not end the session", ON)
async def nonsense(t: CaseContext) -> None:
    poller = Poller(t)
    await poller.start()
    for body in (b"x", b"{}", b"[1]", b'["x"]', b""):
        target = f"{poller.path}/xhr_send?t=1&n=1"
        response = await http.request("POST", t.target.api, target, HEADERS, body, t.target.timeout)
        check(response.status < 500, f"expected no server fault, got {response}")
    await poller.send("pusher:ping", {})
    found = messages(frames((await poll(t, poller.path)).text))
    while found and found[0].event == "pusher:error":
        found.pop(0)
    check(
        found and found[0].event == "pusher:pong",
        f"expected a pong, got {[str(message) for message in found]}",
    )


@case("12", "a subscriber over HTTP is a presence member like any other", ON)
async def presence(t: CaseContext) -> None:
    socket, channel, poller = await t.connect(), t.name("presence-"), Poller(t)
    await t.join(socket, channel, "7")
    await poller.start()
    channel_data = '{"user_id":"8"}'
    auth = t.auth(poller, channel, channel_data)
    await poller.send("pusher:subscribe", {"channel": channel, "auth": auth, "channel_data": channel_data})
    roster = (await poller.expect(SUCCEEDED)).parsed()["presence"]
    equal(sorted(roster["ids"]), ["7", "8"], "ids")
    added = (await socket.expect("pusher_internal:member_added", channel)).parsed()
    equal(added, {"user_id": "8"}, "member_added")
