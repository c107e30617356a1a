"""Sections 2 and 3: valid and invalid messages, and liveness."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from .checks import Failure, check, equal
from .client import ABSENT
from .outcome import case

if TYPE_CHECKING:
    from .client import Socket
    from .context import CaseContext

NONSENSE: Final = (
    ("not JSON", "hello"),
    ("an empty frame", ""),
    ("a truncated message", '{"event":"pusher:ping"'),
    ("a list", '["pusher:ping"]'),
    ("a number", "7"),
    ("null", "null"),
    ("no event", '{"data":{}}'),
    ("an event that is a number", '{"event":7,"data":{}}'),
    ("an event that is null", '{"event":null}'),
    ("an unknown event", '{"event":"pusher:nope","data":{}}'),
    ("an event that only the server sends", '{"event":"pusher_internal:member_added","data":"{}"}'),
)

BAD_SUBSCRIBES: Final[tuple[tuple[str, Any], ...]] = (
    ("a subscribe without data", ABSENT),
    ("a subscribe with null", None),
    ("a subscribe with a list", []),
    ("a subscribe with text that is not JSON", "x"),
    ("a subscribe without a channel", {"auth": ""}),
    ("a subscribe with a number for a channel", {"channel": 7}),
    ("a subscribe with null for a channel", {"channel": None}),
)

PINGS: Final[tuple[tuple[str, Any], ...]] = (
    ("an object", {}),
    ("an empty string", ""),
    ("absent", ABSENT),
    ("an object in a string", "{}"),
    ("null", None),
)


async def still_good(t: CaseContext, socket: Socket) -> None:
    """The connection still works."""
    await t.subscribe(socket, t.name())
    await socket.nothing("expected nothing after the subscription")


async def nonsense(t: CaseContext, text: str) -> str:
    socket = await t.connect()
    await socket.send_text(text)
    message = await socket.error(None)
    await still_good(t, socket)
    return str(message)


@case("2", "data of pusher:error is an object, as pysher and .NET need it")
async def error_object(t: CaseContext) -> None:
    socket = await t.connect()
    await socket.send("pusher:nope", {})
    message = await socket.expect("pusher:error")
    check(isinstance(message.data, dict), f"data is not an object: {message}")


for name, text in NONSENSE:
    case("2", f"{name}: pusher:error with code null, the connection is kept")(partial(nonsense, text=text))


async def bad_subscribe(t: CaseContext, data: Any) -> str:
    socket = await t.connect()
    await socket.send("pusher:subscribe", data)
    message = await socket.next("an error")
    check(message.event in ("pusher:error", "pusher:subscription_error"), f"expected an error, got {message}")
    if message.event == "pusher:error":
        equal(message.fields().get("code"), None, "the code")
    await still_good(t, socket)
    return str(message)


for name, data in BAD_SUBSCRIBES:
    case("2", f"{name}: an error, the connection is kept")(partial(bad_subscribe, data=data))


@case("2", "data of a pusher:* message may be a JSON string")
async def data_as_string(t: CaseContext) -> None:
    socket, channel = await t.connect(), t.name()
    await socket.send("pusher:subscribe", json.dumps({"channel": channel}))
    await socket.expect("pusher_internal:subscription_succeeded", channel)


@case("2", "unknown keys are ignored")
async def unknown_keys(t: CaseContext) -> None:
    socket, channel = await t.connect(), t.name()
    await socket.send("pusher:subscribe", {"channel": channel, "x": 1}, id=7, tags={"a": "b"})
    await socket.expect("pusher_internal:subscription_succeeded", channel)


@case("2", "any JSON escapes and white space are accepted in a message")
async def escapes(t: CaseContext) -> None:
    socket, channel = await t.connect(), t.name()
    escaped = "".join(f"\\u{ord(char):04x}" for char in channel)
    await socket.send_text(f' {{ "data" :\n{{"channel":"{escaped}"}} ,\t"event":"\\u0070usher:subscribe" }} ')
    await socket.expect("pusher_internal:subscription_succeeded", channel)


async def ping(t: CaseContext, data: Any) -> None:
    socket = await t.connect()
    await socket.send("pusher:ping", data)
    message = await socket.expect("pusher:pong")
    check(message.channel is None, f"a channel in a pong: {message}")


for name, data in PINGS:
    case("3.2", f"pusher:ping is answered; its data: {name}")(partial(ping, data=data))


@case("3.2", "pusher:pong is not answered")
async def pong(t: CaseContext) -> None:
    socket = await t.connect()
    await socket.send("pusher:pong", {})
    await socket.send("pusher:pong")
    await socket.nothing("expected no answer to a pong")


MARGIN: Final = 2.0


async def pinged(t: CaseContext, socket: Socket, count: int) -> None:
    """Wait for a ping of the server: a message or a WebSocket frame."""
    limit = socket.activity_timeout + t.target.patience
    try:
        async with asyncio.timeout(limit):
            while socket.pings + socket.wire.pings < count:
                await asyncio.sleep(0.02)
                check(socket.wire.close_code is None, f"closed with {socket.wire.close_code} without a ping")
    except TimeoutError:
        raise Failure(f"not pinged after {limit:g} s of silence") from None


@case("3.2", "a silent client is pinged, and kept if it answers", "slow")
async def silent(t: CaseContext) -> str:
    socket = await t.connect()
    await pinged(t, socket, 2)  # the second one is proof that the answer to the first counted
    await socket.nothing("expected the connection to be kept")
    return "pusher:ping" if socket.pings else "WebSocket pings"


@case("3.2", "a WebSocket pong frame counts as an answer", "slow")
async def frame_answer(t: CaseContext) -> None:
    socket = await t.connect()
    socket.mute = True
    await pinged(t, socket, 1)
    for number in range(2, 4):
        await socket.wire.pong()
        await pinged(t, socket, number)
    await socket.nothing("expected the connection to be kept")


@case("3.2", "a client that only receives and answers pings is not closed", "slow")
async def busy(t: CaseContext) -> None:
    socket, channel = await t.connect(), t.name()
    await t.subscribe(socket, channel)
    end = asyncio.get_running_loop().time() + 2 * socket.activity_timeout + MARGIN
    while asyncio.get_running_loop().time() < end:
        await t.publish(channel, "e", "x")
        await socket.expect("e", channel)
        await asyncio.sleep(min(1.0, socket.activity_timeout / 4))


@case("3.2", "a client that answers nothing is closed with 4201", "slow")
async def dead(t: CaseContext) -> None:
    socket = await t.connect(hear=["pusher:ping"])
    socket.mute = socket.wire.mute = True
    await pinged(t, socket, 1)
    socket.seconds = socket.activity_timeout + t.target.patience
    message = await socket.next("pusher:ping or an error")
    while message.event == "pusher:ping":
        message = await socket.next("an error with 4201")
    check(message.event == "pusher:error", f"expected an error with 4201, got {message}")
    check(message.fields().get("code") == 4201, f"not 4201: {message}")
    equal((await socket.closed()).code, 4201, "the close code")
