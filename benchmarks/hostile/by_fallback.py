"""Attacks over the HTTP fallback transports."""

from __future__ import annotations

import json
import re
import secrets
from typing import TYPE_CHECKING, Final

from .attack import UNREAD, Attack, filled
from .by_http import request

if TYPE_CHECKING:
    from collections.abc import Callable
    from socket import socket

    from .arena import Arena

GROUP: Final = "fallback"
MANY: Final = 1000
"""Largest number of messages in one body."""

TOO_MANY: Final = 20_000
LETTERS: Final = "0123456789abcdefghijklmnopqrstuv"
OPEN: Final = "protocol=7&client=js&version=8.4.0"
"""The query with which pusher-js opens a session."""


def session_path(key: str) -> str:
    """The path of a new session, without the action."""
    name = "".join(secrets.choice(LETTERS) for _ in range(8))
    return f"/pusher/app/{key}/{secrets.randbelow(1000):03}/{name}"


def _session(arena: Arena) -> tuple[str, socket]:
    """Open a session: its path and its stream."""
    path, stream = session_path(arena.order.key), arena.connect()
    arena.write(stream, [request(f"POST {path}/xhr_streaming?{OPEN}")])
    arena.read_until(stream, re.compile(rb"connection_established"))
    return path, stream


def _sends(message: dict[str, object], count: int, *, read: bool = True) -> Callable[[Arena], None]:
    """Send bodies with ``count`` messages each. ``read``: whether to read the stream."""
    body = json.dumps([json.dumps(message)] * count).encode()

    def run(arena: Arena) -> None:
        path, stream = _session(arena)
        data = filled(request(f"POST {path}/xhr_send", "", body))
        sock = arena.connect()
        while b" 404 " not in arena.heard:  # the session is over: open the next one
            arena.write(sock, [data], also=[stream] if read else [])

    return run


def _empty_sends(arena: Arena) -> None:
    path, _ = _session(arena)
    arena.pour(arena.connect(), filled(request(f"POST {path}/xhr_send", "", b"[]")))


def _sessions(arena: Arena) -> None:
    """Open sessions without receiving from them."""
    while True:
        _session(arena)
        arena.close()


_PING: Final[dict[str, object]] = {"event": "pusher:ping", "data": {}}
_SUBSCRIBE: Final[dict[str, object]] = {"event": "pusher:subscribe", "data": {"channel": "hostile"}}

ATTACKS: Final = tuple(
    Attack(name, GROUP, *rest)  # type: ignore[arg-type]
    for name, *rest in (
        ("send-many", "bodies of 1,000 pusher:ping", _sends(_PING, MANY)),
        ("send-too-many", "bodies of 20,000 messages", _sends(_PING, TOO_MANY)),
        ("send-subscribe", "bodies of 1,000 subscriptions", _sends(_SUBSCRIBE, MANY)),
        ("send-empty", "pipelined empty bodies", _empty_sends),
        (
            "stream-unread",
            "bodies of 1,000 pusher:ping, and the stream unread",
            _sends(_PING, MANY, read=False),
            *UNREAD,
        ),
        ("sessions", "sessions that are opened and left", _sessions),
    )
)
