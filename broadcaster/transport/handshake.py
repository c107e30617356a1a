"""The opening handshake of a WebSocket (RFC 6455 section 4.2), from a request that uvicorn has parsed.

What browsers and SDKs send is answered here in one go. Whatever differs is for ``websockets`` to judge: it
accepts what it may, and says why it refuses the rest.
"""

from __future__ import annotations

import binascii
import hashlib
import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, NamedTuple

from websockets.datastructures import Headers
from websockets.http11 import Request
from websockets.server import ServerProtocol

from legato.protocol.apps import SUBPROTOCOL
from legato.protocol.signatures import parse_query

from .fastpath import plain_upgrade
from .memo import recognised, remembered

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from websockets.typing import Subprotocol

KEY_BYTES: Final = 16
KEY_LENGTH: Final = 24
"""Characters of a key, which is Base64."""

KNOWN_REQUESTS: Final = 512
KNOWN_BYTES: Final = 1024
"""Requests, and their targets, that are remembered, and how long they may be."""

_KEY_FIELDS: Final = (b"\r\nSec-WebSocket-Key: ", b"\r\nsec-websocket-key: ")
_VERSION: Final = b"13"
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

silent: Final = logging.getLogger("legato.websocket.protocol")
silent.setLevel(logging.CRITICAL)  # a client's broken frame is not an event of the server's


class Handshake(NamedTuple):
    """What is answered, and whether the connection is a WebSocket from then on."""

    response: bytes
    accepted: bool


class UpgradeRequest(NamedTuple):
    """What a client wants to be let in to. ``params``: the query, keys in lower case.

    ``origin`` is empty if it has said none. More than one is none that could be trusted.
    """

    path: str
    params: Mapping[str, str]
    origin: str


def answer(method: bytes, target: bytes, headers: Sequence[tuple[bytes, bytes]]) -> Handshake:
    """Answer a request for an upgrade to ``websocket``.

    :param headers: names in lower case.
    """
    fields = dict(headers)
    key = fields.get(b"sec-websocket-key", b"")
    if method != b"GET" or len(fields) < len(headers) or not _usual(fields) or not _is_key(key):
        return _judged(method, target, headers)
    return Handshake(_accept(key), accepted=True)


def asked(target: bytes, headers: Sequence[tuple[bytes, bytes]]) -> UpgradeRequest:
    """What a request for an upgrade asks for."""
    path, params = _known_target(target)
    origins = [value for name, value in headers if name == b"origin"]
    origin = origins[0].decode("latin-1") if origins else ""
    return UpgradeRequest(path, params, "null" if len(origins) > 1 else origin)


def _target(target: bytes) -> tuple[str, Mapping[str, str]]:
    path, _, query = target.partition(b"?")
    return path.decode("latin-1"), parse_query(query)


_known_target: Final = remembered(KNOWN_REQUESTS, KNOWN_BYTES, _target)


def at_once(data: bytes) -> tuple[bytes, UpgradeRequest] | None:
    """The answer, and what is asked for, if ``data`` is a plain and usual request for an upgrade.

    All clients of a page send the same but for the key. So what the rest means is remembered, without it.
    """
    for field in _KEY_FIELDS:
        begin = data.find(field) + len(field)
        if begin < len(field):
            continue
        key, rest = data[begin : begin + KEY_LENGTH], data[:begin] + data[begin + KEY_LENGTH :]
        found = _known_rest(rest)
        return (_accept(key), found) if found is not None and _is_key(key) else None
    return None


def _rest(data: bytes) -> UpgradeRequest | None:
    """Of a request of which the key has been taken out: where it was there is nothing left."""
    plain = plain_upgrade(data)
    if plain is None:
        return None
    fields = dict(plain[1])
    return asked(*plain) if fields.get(b"sec-websocket-key") == b"" and _usual(fields) else None


_known_rest: Final = recognised(KNOWN_REQUESTS, KNOWN_BYTES, _rest)


def select_subprotocol(offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """The first offered Pusher sub-protocol, else none; never required (protocol section 1.3)."""
    return next((name for name in offered if SUBPROTOCOL.fullmatch(name)), None)


def _usual(fields: Mapping[bytes, bytes]) -> bool:
    return fields.get(b"sec-websocket-version") == _VERSION and b"sec-websocket-protocol" not in fields


def _accept(key: bytes) -> bytes:
    """The answer, with the proof that the request was understood (section 4.2.2, step 5.4)."""
    digest = hashlib.sha1(key + _GUID, usedforsecurity=False).digest()
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %b\r\n\r\n" % binascii.b2a_base64(digest, newline=False)
    )


def _is_key(key: bytes) -> bool:
    try:
        return len(key) == KEY_LENGTH and len(binascii.a2b_base64(key, strict_mode=True)) == KEY_BYTES
    except binascii.Error:
        return False


def _judged(method: bytes, target: bytes, headers: Sequence[tuple[bytes, bytes]]) -> Handshake:
    protocol = ServerProtocol(
        select_subprotocol=lambda _, offered: select_subprotocol(offered), logger=silent
    )
    given = Headers([(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers])
    request = Request(target.decode("latin-1"), given, method.decode("latin-1"))
    response = protocol.accept(request)
    protocol.send_response(response)
    return Handshake(
        b"".join(protocol.data_to_send()), response.status_code == HTTPStatus.SWITCHING_PROTOCOLS
    )
