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

from protocol.apps import SUBPROTOCOL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from websockets.typing import Subprotocol

KEY_BYTES: Final = 16
_VERSION: Final = b"13"
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

silent: Final = logging.getLogger("legato.websocket.protocol")
silent.setLevel(logging.CRITICAL)  # a client's broken frame is not an event of the server's


class Handshake(NamedTuple):
    """What is answered, and whether the connection is a WebSocket from then on."""

    response: bytes
    accepted: bool


def answer(method: bytes, target: bytes, headers: Sequence[tuple[bytes, bytes]]) -> Handshake:
    """Answer a request for an upgrade to ``websocket``.

    :param headers: names in lower case.
    """
    fields = dict(headers)
    key = fields.get(b"sec-websocket-key", b"")
    usual = method == b"GET" and len(fields) == len(headers) and b"sec-websocket-protocol" not in fields
    if not usual or fields.get(b"sec-websocket-version") != _VERSION or not _is_key(key):
        return _judged(method, target, headers)
    response = (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %b\r\n\r\n" % _accept(key)
    )
    return Handshake(response, accepted=True)


def select_subprotocol(offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """The first offered Pusher sub-protocol, else none; never required (protocol section 1.3)."""
    return next((name for name in offered if SUBPROTOCOL.fullmatch(name)), None)


def _accept(key: bytes) -> bytes:
    """The proof that the request was understood (section 4.2.2, step 5.4)."""
    digest = hashlib.sha1(key + _GUID, usedforsecurity=False).digest()
    return binascii.b2a_base64(digest, newline=False)


def _is_key(key: bytes) -> bool:
    try:
        return len(key) == 24 and len(binascii.a2b_base64(key, strict_mode=True)) == KEY_BYTES
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
