"""Attacks over HTTP, on the port of the server and on that of its metrics."""

from __future__ import annotations

import hashlib
import itertools
import time
from typing import TYPE_CHECKING, Final

from legato.protocol.signatures import sign

from .arena import HOST
from .attack import UNREAD, Attack, filled

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable

    from .arena import Arena

GROUP: Final = "http"
METRICS: Final = "metrics"
CROWD: Final = 300
"""Sockets that withhold a body."""

CROWDED: Final = (1.0, 96.0)
"""``times`` and ``memory`` for that: over TLS each socket has buffers of 0.2 MB."""

SLOW: Final = 100
SCRAPERS: Final = 200
BODY: Final = 1 << 20
PUBLISH_SECONDS: Final = 0.02
WHOLE: Final = b'"whole"'
"""The required data of an event named :data:`HOSTILE`."""

HOSTILE: Final = "hostile"


def request(line: str, headers: str = "", body: bytes = b"", length: int | None = None) -> bytes:
    """A request. ``length``: a wrong Content-Length, if given."""
    said = len(body) if length is None else length
    sized = f"Content-Length: {said}\r\n" if body or said else ""
    return f"{line} HTTP/1.1\r\nHost: {HOST}\r\n{headers}{sized}\r\n".encode() + body


def _pipelined(
    line: str, headers: str = "", body: bytes = b"", *, read: bool = True
) -> Callable[[Arena], None]:
    """Repeat a request on one connection. ``APP`` in ``line`` is the application's path."""

    def run(arena: Arena) -> None:
        one = request(line.replace("APP", arena.app), headers, body)
        arena.pour(arena.connect(), filled(one), read=read)

    return run


def _begun(first: str, unit: bytes) -> Callable[[Arena], None]:
    """A request that begins and never ends."""

    def run(arena: Arena) -> None:
        sock = arena.connect()
        arena.write(sock, [first.replace("APP", arena.app).encode()])
        arena.pour(sock, filled(unit))

    return run


def _plausible(arena: Arena) -> str:
    """A publish request with the public key but without the secret."""
    query = f"auth_key={arena.order.key}&auth_timestamp={int(time.time())}&auth_version=1.0"
    return f"POST {arena.app}/events?{query}&body_md5={'0' * 32}&auth_signature={'0' * 64}"


def _held_back(line: str) -> Callable[[Arena], None]:
    """Send bodies of a megabyte without their last byte, on many sockets."""

    def run(arena: Arena) -> None:
        data = request(line.replace("APP", arena.app) or _plausible(arena), "", b"x" * (BODY - 1), BODY)
        sockets = [arena.connect() for _ in range(CROWD)]
        for sock in sockets:
            try:
                arena.write(sock, [data])
            except OSError:
                arena.outcome.refused += 1
        arena.hold(sockets)

    return run


def _slow_bodies(arena: Arena) -> None:
    head = request("POST /api/chat/send", "", b"", BODY)
    sockets = [arena.connect() for _ in range(SLOW)]
    _drip(arena, sockets, itertools.chain([head], itertools.repeat(b"x")), 0.05)


def _drip(arena: Arena, sockets: list[socket.socket], pieces: Iterable[bytes], pause: float) -> None:
    """Write each piece to all sockets, ``pause`` seconds apart, until the server has closed them all."""
    for data in pieces:
        for sock in list(sockets):
            try:
                arena.write(sock, [data])
            except OSError:
                sockets.remove(sock)
        if not sockets:
            return
        arena.hold(sockets, pause)


def _byte_by_byte(arena: Arena) -> None:
    data = request("GET /up") + request(f"POST {arena.app}/events", "", b"{}")
    arena.write(arena.connect(), (bytes([byte]) for byte in itertools.cycle(data)))


def _h2c(arena: Arena) -> None:
    """Publish with a client that offers HTTP/2: each event must arrive whole or not at all."""
    path = f"{arena.app}/channels/observed/events"
    headers = (
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\nContent-Type: application/json\r\n"
    )
    md5 = hashlib.md5(WHOLE, usedforsecurity=False).hexdigest()
    query = (
        f"auth_key={arena.order.key}&auth_timestamp={int(time.time())}&auth_version=1.0"
        f"&body_md5={md5}&name={HOSTILE}"
    )
    signature = sign(arena.order.secret, f"POST\n{path}\n{query}")
    line = f"POST {path}?{query}&auth_signature={signature}"
    sock = arena.connect()
    while True:
        arena.write(sock, [request(line, headers, b"", len(WHOLE)), WHOLE])
        arena.hold([sock], PUBLISH_SECONDS)


def _scrapers(arena: Arena) -> None:
    """Send endless requests to the metrics port."""
    sockets = [arena.connect(arena.order.metrics_port, plain=True) for _ in range(SCRAPERS)]
    pieces = itertools.chain([b"GET /metrics HTTP/1.1\r\n"], (b"X-%d: x\r\n" % n for n in itertools.count()))
    _drip(arena, sockets, pieces, 0.2)


_EVENT: Final = b'{"name":"e","channel":"c","data":"x"}'
_CHUNKED: Final = "POST APP/events HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
_H2C: Final = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"

ATTACKS: Final = tuple(
    Attack(name, group, *rest)  # type: ignore[arg-type]
    for name, group, *rest in (
        (
            "unsigned-events",
            GROUP,
            "pipelined POST of events, unsigned",
            _pipelined("POST APP/events", "", _EVENT),
        ),
        ("up", GROUP, "pipelined GET /up", _pipelined("GET /up")),
        ("up-unread", GROUP, "the same, reading nothing", _pipelined("GET /up", read=False), *UNREAD),
        ("not-found", GROUP, "pipelined GET of what is not there", _pipelined("GET /nowhere")),
        ("options", GROUP, "pipelined OPTIONS", _pipelined("OPTIONS /api/chat/send")),
        (
            "chat",
            GROUP,
            "pipelined chat messages without a token",
            _pipelined("POST /api/chat/send", "", b"{}"),
        ),
        (
            "huge-head",
            GROUP,
            "headers without end",
            _begun("GET /up HTTP/1.1\r\nHost: x\r\n", b"X-A: aaaa\r\n"),
        ),
        ("huge-header", GROUP, "one header without end", _begun("GET /up HTTP/1.1\r\nX-A: ", b"a")),
        ("huge-url", GROUP, "a URL without end", _begun("GET /", b"a")),
        ("trailers", GROUP, "trailers without end", _begun(_CHUNKED + "1\r\nx\r\n0\r\n", b"X-A: aaaa\r\n")),
        ("chunk-extension", GROUP, "a chunk extension without end", _begun(_CHUNKED + "1;", b"a")),
        ("tiny-chunks", GROUP, "chunks of one byte", _begun(_CHUNKED, b"1\r\nx\r\n")),
        ("unended-bodies", GROUP, "300 bodies that lack a byte", _held_back("POST APP/events"), *CROWDED),
        ("unended-signed", GROUP, "the same, with a forged signature", _held_back(""), *CROWDED),
        ("unended-chat", GROUP, "the same, as chat messages", _held_back("POST /api/chat/send"), *CROWDED),
        ("slow-bodies", GROUP, "100 bodies, a byte now and then", _slow_bodies),
        ("http-byte-by-byte", GROUP, "requests with one byte in each write", _byte_by_byte),
        ("h2c-events", GROUP, "signed events with an offer of HTTP/2", _h2c),
        (
            "h2c-flood",
            GROUP,
            "pipelined offers of HTTP/2 with bodies",
            _pipelined("POST APP/events", _H2C, _EVENT),
        ),
        ("scrapers", METRICS, "200 requests to /metrics that never end", _scrapers, 3.0),
    )
)
