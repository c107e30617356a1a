"""Section 1: addresses, versions, sub-protocols, frames, the handshake and its refusals."""

from __future__ import annotations

import json
import re
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from websockets.exceptions import InvalidHandshake
from websockets.typing import Origin, Subprotocol

from .checks import Failure, NotApplicable, check, equal
from .client import Closed
from .context import QUERY
from .outcome import case

if TYPE_CHECKING:
    from .context import CaseContext

SOCKET_ID: Final = re.compile(r"[0-9]+\.[0-9]+")
SWIFT: Final = "pusher-channels-protocol-7"

CLIENTS: Final = (
    "protocol=7&client=js&version=8.6.0&flash=false",
    "client=java-client&protocol=5&version=2.4.4",
    "protocol=5&client=pusher-dotnet-client&version=2.1.0",
    "client=Pysher&version=1.0.8&protocol=6",
    "protocol=7&client=asyncpusher&version=0.1.0",
)


@case("1.1", "the query strings of real clients are accepted")
async def real_clients(t: CaseContext) -> None:
    for query in CLIENTS:
        await t.connect(query)


@case("1.1", "unknown query parameters are ignored")
async def unknown_parameters(t: CaseContext) -> None:
    await t.connect(f"{QUERY}&nope=1&empty=&=&x")


@case("1.1", "the application's id is not its key")
async def id_is_no_key(t: CaseContext) -> None:
    if t.app.id == t.app.key:
        raise NotApplicable("this application has the same id and key")
    await (await t.dial(key=t.app.id)).refused(4001)


@case("1.1", "an unknown path is refused")
async def no_such_path(t: CaseContext) -> str:
    try:
        socket = await t.dial(path=f"/{t.name()}")
    except Failure as failure:
        cause = failure.__cause__
        check(isinstance(cause, InvalidHandshake), str(failure))
        return f"no upgrade: {cause}"
    await socket.refused(4005)
    return "4005"


async def accepted(t: CaseContext, query: str | None) -> None:
    socket = await t.connect(query)
    await socket.nothing("expected silence after the greeting")


async def refused(t: CaseContext, query: str, code: int) -> str:
    return str(await (await t.dial(query)).refused(code))


case("1.2", "no query at all: accepted as protocol 7")(partial(accepted, query=None))
case("1.2", "no protocol: accepted as 7")(partial(accepted, query="client=js&version=8.6.0"))
for version in (4, 5, 6, 7):
    case("1.2", f"protocol {version} is accepted")(
        partial(accepted, query=f"protocol={version}&client=x&version=1")
    )
for version in (1, 2, 3, 8, 99):
    case("1.2", f"protocol {version}: refused with 4007")(
        partial(refused, query=f"protocol={version}&client=x&version=1", code=4007)
    )
for text in ("x", "7x", "7.0"):
    case("1.2", f"protocol {text!r} is not an integer: refused with 4006")(
        partial(refused, query=f"protocol={text}&client=x&version=1", code=4006)
    )


async def subprotocol(t: CaseContext, offered: tuple[str, ...], selected: str | None) -> None:
    socket = await t.connect(subprotocols=[Subprotocol(name) for name in offered] or None)
    equal(socket.wire.subprotocol, selected, "the sub-protocol")


OFFERS: Final = (
    ("no subprotocol offered: none selected", (), None),
    ("the subprotocol that the Swift client offers is selected", (SWIFT,), SWIFT),
    (
        "the first matching subprotocol is selected",
        ("x", "pusher-channels-protocol-5", SWIFT),
        "pusher-channels-protocol-5",
    ),
    ("an unknown subprotocol is not selected, and the connection is accepted", ("x",), None),
    ("a subprotocol with an unsupported version is not selected", ("pusher-channels-protocol-8",), None),
)
for name, offered, selected in OFFERS:
    case("1.3", name)(partial(subprotocol, offered=offered, selected=selected))


@case("1.4", "a binary frame is ignored, or closed with 1003")
async def binary(t: CaseContext) -> str:
    socket, message = await t.connect(), {"event": "pusher:subscribe", "data": {"channel": t.name()}}
    await socket.wire.send(json.dumps(message).encode())
    await socket.send("pusher:ping", {})
    try:
        await socket.expect("pusher:pong")
    except Failure:
        code = socket.wire.close_code
        check(code == 1003, f"expected to be ignored or closed with 1003, got {code}")
        return "closed with 1003"
    return "ignored"


@case("1.4", "a WebSocket ping frame is answered")
async def protocol_ping(t: CaseContext) -> None:
    socket = await t.connect()
    waiter = await socket.wire.ping()
    try:
        await t.within(waiter)
    except TimeoutError:
        raise Failure("no pong frame") from None


@case("1.4", "a message in several frames is one message")
async def fragments(t: CaseContext) -> None:
    socket = await t.connect()
    await socket.wire.send(['{"event":"pusher:', "ping", '","data":{}}'])
    await socket.expect("pusher:pong")


@case("1.4", "each message is a text frame of its own")
async def one_frame_each(t: CaseContext) -> None:
    socket, channel = await t.connect(), t.name()
    await t.subscribe(socket, channel)
    batch = [{"name": "e", "channel": channel, "data": str(number)} for number in range(5)]
    await t.ok("POST", "/batch_events", {"batch": batch})
    for number in range(5):
        equal((await socket.expect("e", channel)).data, str(number), "data")


@case("1.4", "permessage-deflate offered: accepted or declined, and messages pass")
async def deflate(t: CaseContext) -> str:
    socket = await t.connect(compression="deflate")
    channel = t.name()
    await t.subscribe(socket, channel)
    await t.publish(channel, "e", "x" * 5000)
    equal((await socket.expect("e", channel)).data, "x" * 5000, "data")
    return "accepted" if socket.wire.protocol.extensions else "declined"


@case("1.4", "permessage-deflate not offered: none is used")
async def no_deflate(t: CaseContext) -> None:
    socket = await t.connect(compression=None)
    await socket.nothing("expected silence after the greeting")


@case("1.4", "an origin that is not allowed is refused with 4009", "refused origin")
async def origin(t: CaseContext) -> None:
    await (await t.dial(origin=Origin(t.target.refused_origin))).refused(4009)


@case("1.5", "connection_established comes first, even if the client speaks at once")
async def greeting_first(t: CaseContext) -> None:
    socket = await t.dial()
    await socket.send("pusher:ping", {})
    await socket.expect("pusher:connection_established")
    await socket.expect("pusher:pong")


@case("1.5", "data of connection_established is a JSON string")
async def greeting_is_a_string(t: CaseContext) -> None:
    socket = await t.dial()
    message = await socket.expect("pusher:connection_established")
    check(isinstance(message.parsed(), dict), f"not an object in a string: {message}")
    check(message.channel is None, f"a channel in the greeting: {message}")


@case("1.5", "socket_id is two numbers with a dot")
async def socket_id_form(t: CaseContext) -> str:
    socket = await t.connect()
    check(SOCKET_ID.fullmatch(socket.socket_id), f"socket_id is {socket.socket_id!r}")
    return socket.socket_id


@case("1.5", "socket_id is new on every connection, and not counted")
async def socket_id_unique(t: CaseContext) -> None:
    ids = [socket.socket_id for socket in await t.sockets(10)]
    check(len(set(ids)) == len(ids), f"the same socket_id twice: {ids}")
    pairs = [[int(part) for part in socket_id.split(".")] for socket_id in ids]
    steps = [max(abs(b[0] - a[0]), abs(b[1] - a[1])) for a, b in pairwise(pairs)]
    check(max(steps) > 1000, f"socket_ids can be guessed: {ids}")


@case("1.5", "activity_timeout is an integer of at least 1")
async def activity_timeout(t: CaseContext) -> str:
    socket = await t.connect()
    seen = socket.activity_timeout
    check(type(seen) is int and seen >= 1, f"activity_timeout is {seen!r}")
    return f"{seen} s"


@case("1.5", "an unknown key is refused with 4001: the error, then a close with the same code")
async def unknown_key(t: CaseContext) -> str:
    return str(await (await t.dial(key=t.name())).refused(4001))


@case("1.5", "a refusal's error has an object as data, as pysher and .NET need it")
async def refusal_object(t: CaseContext) -> None:
    message = await (await t.dial(key=t.name())).expect("pusher:error")
    check(isinstance(message.data, dict), f"data is not an object: {message}")


@case("1.5", "a refusal is a close frame with a reason of at most 123 bytes")
async def close_frame(t: CaseContext) -> str:
    socket = await t.dial(key=t.name())
    await socket.expect("pusher:error")
    closed = await socket.closed()
    check(socket.wire.protocol.close_rcvd is not None, "the connection was cut without a close frame")
    return str(closed)


@case("1.5", "after a refusal, the socket's messages have no effect")
async def refused_is_useless(t: CaseContext) -> None:
    socket = await t.dial(key=t.name())
    await socket.send("pusher:subscribe", {"channel": t.name()})
    await socket.error(4001)
    item = await socket.closed("a close, and no answer")
    check(isinstance(item, Closed), "no close")


@case("1.5", "an unknown key is reported before a bad version")
async def order_key_version(t: CaseContext) -> None:
    await (await t.dial("protocol=x", key=t.name())).refused(4001)


@case("1.5", "a disabled application is refused with 4003", "disabled")
async def disabled(t: CaseContext) -> None:
    await (await t.dial(key=t.target.others["disabled"].key)).refused(4003)


@case("1.5", "a disabled application is reported before a bad version", "disabled")
async def order_disabled_version(t: CaseContext) -> None:
    await (await t.dial("protocol=99", key=t.target.others["disabled"].key)).refused(4003)


@case("1.5", "a bad version is reported before the origin", "refused origin")
async def order_version_origin(t: CaseContext) -> None:
    await (await t.dial("protocol=99", origin=Origin(t.target.refused_origin))).refused(4007)


@case("1.5", "an application over its connection quota is refused with 4004 or 4100", "full")
async def quota(t: CaseContext) -> str:
    key = t.target.others["full"].key
    first = await t.connect(key=key)
    socket = await t.dial(key=key)
    message = await socket.expect("pusher:error")
    code = message.fields().get("code")
    check(code in (4004, 4100), f"expected 4004 or 4100, got {message}")
    equal((await socket.closed()).code, code, "the close code")
    await first.nothing("expected the first connection to stay")
    await first.aclose()

    async def let_in() -> bool:
        again = await t.dial(key=key)
        return bool((await again.next()).event == "pusher:connection_established")

    await t.eventually(let_in, True, "let in when the first has left")
    return f"{code}"
