"""Attacks over WebSocket."""

from __future__ import annotations

import itertools
import json
import re
import socket
from typing import TYPE_CHECKING, Any, Final

from legato.benchmarks.load.frames import client_frame
from legato.protocol.signatures import sign_channel

from .arena import Over
from .attack import UNREAD, Attack, filled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .arena import Arena, AttackSocket

GROUP: Final = "websocket"
OBSERVED: Final = "private-observed"
"""The channel of the observers and of a hostile member."""

CROWD: Final = 20
"""Sockets of a mass departure."""

CHANNELS: Final = 10_000
"""Channels to which each of them tries to subscribe."""

CHANNELS_PER_SECOND: Final = 1000

BATCH: Final = 200

MASK: Final = b"\0\0\0\0"
EMPTY_TEXT: Final = b"\x81\x80" + MASK
BEGIN: Final = b"\x01\x81" + MASK + b"x"
CONTINUE: Final = b"\x00\x81" + MASK + b"x"
CONTINUE_EMPTY: Final = b"\x00\x80" + MASK
END: Final = b"\x80\x81" + MASK + b"x"
BINARY: Final = b"\x82\x81" + MASK + b"x"
CLOSE: Final = b"\x88\x82" + MASK + b"\x03\xe8"
PING: Final = b"\x89\x80" + MASK
LONG_PING: Final = b"\x89\xfd" + MASK + b"p" * 125
PONG: Final = b"\x8a\x80" + MASK
ENDLESS: Final = b"\x81\xff" + (1 << 40).to_bytes(8) + MASK

_TOLD: Final = re.compile(rb"subscription_succeeded|subscription_error|pusher:error")


def message(event: str, **data: Any) -> bytes:
    """A text frame with a Pusher message."""
    return client_frame(json.dumps({"event": event, "data": data}, separators=(",", ":")).encode())


SAY_PING: Final = message("pusher:ping")


def _flood(unit: bytes, first: bytes = b"", *, read: bool = True) -> Callable[[Arena], None]:
    """Send ``first`` once, then ``unit`` repeatedly."""

    def run(arena: Arena) -> None:
        sock = arena.websocket().raw
        arena.write(sock, [first] if first else [], read=read)
        arena.pour(sock, filled(unit), read=read)

    return run


def _subscriptions(channels: Iterator[int]) -> Iterator[bytes]:
    """Frames that subscribe to the channels, :data:`BATCH` at a time."""
    for numbers in iter(lambda: list(itertools.islice(channels, BATCH)), []):
        yield b"".join(message("pusher:subscribe", channel=f"hostile-{number}") for number in numbers)


def _subscribe_many(arena: Arena) -> None:
    arena.write(arena.websocket().raw, _subscriptions(itertools.count()))


def _mass_departure(arena: Arena) -> None:
    """Subscribe all sockets to as many channels as the time allows, and close them at once."""
    count = min(CHANNELS, round(CHANNELS_PER_SECOND * arena.order.scale))
    sockets = [arena.websocket().raw for _ in range(CROWD)]
    for place, sock in enumerate(sockets):
        for frames in _subscriptions(iter(range(place * count, (place + 1) * count))):
            arena.write(sock, [frames], read=False)
            arena.read_count(sock, _TOLD, frames.count(b"pusher:subscribe"))
    arena.close()
    raise Over


def _member(arena: Arena) -> AttackSocket:
    """A WebSocket that is subscribed to the observers' private channel, as any member may be."""
    member = arena.websocket()
    auth = sign_channel(arena.order.key, arena.order.secret, member.id, OBSERVED)
    arena.write(member.raw, [message("pusher:subscribe", channel=OBSERVED, auth=auth)])
    arena.read_until(member.raw, re.compile(rb"subscription_succeeded"))
    return member


def _whisper(data: bytes) -> bytes:
    return b'{"event":"client-x","channel":"%s","data":%s}' % (OBSERVED.encode(), data)


def _client_events(arena: Arena) -> None:
    arena.pour(_member(arena).raw, filled(client_frame(_whisper(b'"hello"'))))


def _not_utf8(arena: Arena) -> None:
    arena.pour(_member(arena).raw, client_frame(_whisper(b'"\xff"')))


def _not_utf8_in_fragments(arena: Arena) -> None:
    text = _whisper(b'"\xff"')
    first, last = text[:-2], text[-2:]
    begin = bytes([0x01, 0x80 | len(first)]) + MASK + first
    arena.pour(_member(arena).raw, begin + bytes([0x80, 0x80 | len(last)]) + MASK + last)


def _with_handshake(arena: Arena) -> None:
    sock = arena.connect()
    arena.write(sock, [arena.upgrade() + filled(EMPTY_TEXT, 8 << 20)])
    arena.hold([sock], 1)


def _byte_by_byte(arena: Arena) -> None:
    sock = arena.websocket().raw
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    arena.write(sock, (bytes([byte]) for byte in itertools.cycle(SAY_PING)))


def _come_and_go(arena: Arena) -> None:
    while True:
        arena.websocket()
        arena.close()


_LOOP: Final = message("pusher:subscribe", channel="hostile") + message(
    "pusher:unsubscribe", channel="hostile"
)
_BIG: Final = client_frame(b'{"event":"pusher:ping","data":{"x":"%s"}}' % (b"y" * 60_000))
_DEEP: Final = client_frame(b'{"event":"pusher:subscribe","data":' + b"[" * 60_000)

ATTACKS: Final = tuple(
    Attack(name, GROUP, *rest)  # type: ignore[arg-type]
    for name, *rest in (
        ("empty-text", "empty text frames", _flood(EMPTY_TEXT)),
        ("fragments", "messages of 1,000 one-byte fragments", _flood(BEGIN + CONTINUE * 998 + END)),
        ("endless-message", "one-byte fragments of a message that never ends", _flood(CONTINUE, BEGIN)),
        ("empty-fragments", "empty fragments of a message that never ends", _flood(CONTINUE_EMPTY, BEGIN)),
        ("ping-0", "empty control pings", _flood(PING)),
        ("ping-125", "control pings of 125 bytes", _flood(LONG_PING)),
        (
            "ping-unread",
            "control pings of 125 bytes, reading nothing",
            _flood(LONG_PING, read=False),
            *UNREAD,
        ),
        ("pong", "control pongs that nobody asked for", _flood(PONG)),
        ("subscribe-loop", "subscribe and unsubscribe", _flood(_LOOP)),
        ("subscribe-many", "subscribe to ever more channels", _subscribe_many),
        ("mass-departure", "20 sockets with 10,000 channels each close at once", _mass_departure, 6.0, 96.0),
        ("pusher-ping", "pusher:ping", _flood(SAY_PING)),
        ("pusher-ping-unread", "pusher:ping, reading nothing", _flood(SAY_PING, read=False), *UNREAD),
        ("junk-text", "text that is no JSON", _flood(client_frame(b"junk"))),
        (
            "junk-unread",
            "text that is no JSON, reading nothing",
            _flood(client_frame(b"junk"), read=False),
            *UNREAD,
        ),
        ("broken-json", "JSON that ends too early", _flood(client_frame(b'{"event":"pusher:ping"'))),
        ("big-text", "messages of 60,000 bytes", _flood(_BIG)),
        ("deep-json", "JSON of 60,000 levels", _flood(_DEEP)),
        ("oversize", "a frame of a terabyte", _flood(b"x", ENDLESS)),
        ("binary", "binary frames", _flood(BINARY)),
        ("after-close", "a close frame, then text", _flood(SAY_PING, CLOSE)),
        ("client-events", "client events on a channel of others", _client_events),
        ("not-utf8", "client events that are not UTF-8", _not_utf8),
        ("not-utf8-fragments", "the same in fragments", _not_utf8_in_fragments),
        ("with-handshake", "8 MB in the same write as the handshake", _with_handshake),
        ("byte-by-byte", "one byte in each write", _byte_by_byte),
        ("come-and-go", "connect, be greeted, close, again", _come_and_go),
    )
)
