"""The opening handshake of a WebSocket (RFC 6455 section 4.2).

The requests that browsers and SDKs send are answered here directly. All others go to the library
``websockets``, which accepts the valid ones and explains why it refuses the rest.
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

from legato.broadcaster.addresses.callers import forwarded
from legato.broadcaster.limits import CACHED_HANDSHAKES, MAX_CACHED_HANDSHAKE_BYTES
from legato.protocol.apps import SUBPROTOCOL
from legato.protocol.signatures import parse_query

from .fastpath import plain_upgrade
from .memo import recognised, remembered

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from websockets.typing import Subprotocol

KEY_BYTES: Final = 16
"""Length of a decoded ``Sec-WebSocket-Key``."""

KEY_LENGTH: Final = 24
"""Length of a ``Sec-WebSocket-Key`` in Base64."""

_KEY_FIELDS: Final = (b"\r\nSec-WebSocket-Key: ", b"\r\nsec-websocket-key: ")
_VERSION: Final = b"13"
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

silent: Final = logging.getLogger("legato.websocket.protocol")
silent.setLevel(logging.CRITICAL)  # a client's invalid frame is not worth a log line


class Handshake(NamedTuple):
    """The answer to an upgrade request, and whether it was accepted."""

    response: bytes
    accepted: bool


class UpgradeRequest(NamedTuple):
    """The content of an upgrade request, for admission.

    :ivar params: the parameters of the query, with keys in lower case.
    :ivar origin: empty without an ``Origin`` header, ``null`` with several.
    :ivar forwarded: the fields ``X-Forwarded-For``, as received: anybody may send one.
    """

    path: str
    params: Mapping[str, str]
    origin: str
    forwarded: bytes = b""


def answer(method: bytes, target: bytes, headers: Sequence[tuple[bytes, bytes]]) -> Handshake:
    """Answer a request for an upgrade to ``websocket``.

    :param headers: names in lower case.
    """
    fields = dict(headers)
    key = fields.get(b"sec-websocket-key", b"")
    if method != b"GET" or len(fields) < len(headers) or not _is_usual(fields) or not _is_key(key):
        return _by_library(method, target, headers)
    return Handshake(_accept(key), accepted=True)


def asked(target: bytes, headers: Sequence[tuple[bytes, bytes]]) -> UpgradeRequest:
    """Return the content of an upgrade request."""
    path, params = _known_target(target)
    origins = [value for name, value in headers if name == b"origin"]
    origin = origins[0].decode("latin-1") if origins else ""
    return UpgradeRequest(path, params, "null" if len(origins) > 1 else origin, forwarded(headers))


def _parse_target(target: bytes) -> tuple[str, Mapping[str, str]]:
    path, _, query = target.partition(b"?")
    return path.decode("latin-1"), parse_query(query)


_known_target: Final = remembered(CACHED_HANDSHAKES, MAX_CACHED_HANDSHAKE_BYTES, _parse_target)


def at_once(data: bytes) -> tuple[bytes, UpgradeRequest] | None:
    """Return answer and content, if ``data`` is an upgrade request of the usual form.

    The requests of a page's clients differ only in the key. So the parsed rest of a request is cached.
    """
    for field in _KEY_FIELDS:
        begin = data.find(field) + len(field)
        if begin < len(field):
            continue
        key, rest = data[begin : begin + KEY_LENGTH], data[:begin] + data[begin + KEY_LENGTH :]
        found = _known_rest(rest)
        return (_accept(key), found) if found is not None and _is_key(key) else None
    return None


def _parse_rest(data: bytes) -> UpgradeRequest | None:
    """Parse a request whose key was removed, so that its value is empty."""
    plain = plain_upgrade(data)
    if plain is None:
        return None
    fields = dict(plain[1])
    return asked(*plain) if fields.get(b"sec-websocket-key") == b"" and _is_usual(fields) else None


_known_rest: Final = recognised(CACHED_HANDSHAKES, MAX_CACHED_HANDSHAKE_BYTES, _parse_rest)


def select_subprotocol(offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """Select the first offered Pusher sub-protocol, if any. It is optional (protocol section 1.3)."""
    return next((name for name in offered if SUBPROTOCOL.fullmatch(name)), None)


def _is_usual(fields: Mapping[bytes, bytes]) -> bool:
    return fields.get(b"sec-websocket-version") == _VERSION and b"sec-websocket-protocol" not in fields


def _accept(key: bytes) -> bytes:
    """Build the accepting answer, with the key's digest (RFC 6455 section 4.2.2, step 5.4)."""
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


def _by_library(method: bytes, target: bytes, headers: Sequence[tuple[bytes, bytes]]) -> Handshake:
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
