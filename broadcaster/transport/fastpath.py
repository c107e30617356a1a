"""Parses the most common forms of HTTP/1.1 requests (RFC 9112) in a few calls, without the general parser.

A function here recognises one complete message and gives the same result as the general parser, which needs a
call per header field. None means that the general parser has to read the data.
"""

from __future__ import annotations

import re
from typing import Final

from legato.broadcaster.limits import CACHED_HEADER_SECTIONS, MAX_CACHED_HEADER_BYTES

from .memo import recognised

_TARGET: Final = re.compile(rb"/[!-$&-~]{0,1024}")  # no percent escapes: parse_head bounds them
_LINE_END: Final = b" HTTP/1.1\r\n"
_HEAD_END: Final = b"\r\n\r\n"
_FIELDS: Final = re.compile(rb"(?:[!#-'*+\-.0-9A-Z^-z|~]{1,64}:[ \t!-~]{0,1000}\r\n){1,32}")
_NOT_PLAIN: Final = re.compile(
    rb"(?i)^(?:connection:(?![ \t]*keep-alive[ \t]*\r)|"
    rb"(?:expect|proxy-connection|te|trailer|transfer-encoding|upgrade):)",
    re.MULTILINE,
)
_LENGTH: Final = re.compile(rb"(?i)^content-length:[ \t]*([0-9]{1,9})[ \t]*\r$", re.MULTILINE)
_ANY_LENGTH: Final = re.compile(rb"(?i)^content-length", re.MULTILINE)

_NO_UPGRADE: Final = frozenset(
    (b"content-length", b"expect", b"proxy-connection", b"te", b"trailer", b"transfer-encoding")
)


def plain_post(data: bytes) -> tuple[bytes, bytes] | None:
    """Return target and body, if ``data`` is exactly one complete plain POST request.

    Plain means HTTP/1.1, a path, a content length, and no other header that affects framing or connection.
    """
    if not data.startswith(b"POST /"):
        return None
    line_end = data.find(_LINE_END)
    head_end = data.find(_HEAD_END, line_end)
    if line_end < 0 or head_end < 0:
        return None
    fields = data[line_end + len(_LINE_END) : head_end + 2]
    length = _known_length(fields)
    body = head_end + len(_HEAD_END)
    target = data[5:line_end]
    if len(data) - body != length or not _TARGET.fullmatch(target):
        return None
    return target, data[body:]


def _length(fields: bytes) -> int | None:
    """Return the length of the body, if no other field affects its framing."""
    if _FIELDS.fullmatch(fields) is None or _NOT_PLAIN.search(fields) is not None:
        return None
    length = _LENGTH.search(fields)
    return None if length is None or len(_ANY_LENGTH.findall(fields)) > 1 else int(length[1])


_known_length: Final = recognised(CACHED_HEADER_SECTIONS, MAX_CACHED_HEADER_BYTES, _length)


def plain_upgrade(data: bytes) -> tuple[bytes, list[tuple[bytes, bytes]]] | None:
    """Return target and header fields (names in lower case), if ``data`` is a plain WebSocket upgrade.

    Plain means exactly the head of a GET request, no repeated field, ``Upgrade: websocket``, and no body.
    """
    if not data.startswith(b"GET /") or not data.endswith(_HEAD_END):
        return None
    line_end = data.find(_LINE_END)
    fields = data[line_end + len(_LINE_END) : -2]
    target = data[4:line_end]
    if line_end < 0 or not _TARGET.fullmatch(target) or not _FIELDS.fullmatch(fields):
        return None
    lines = [line.partition(b":") for line in fields.split(b"\r\n")]
    lines.pop()  # the empty part after the last line
    headers = [(name.lower(), value.lstrip(b" \t")) for name, _, value in lines]
    by_name = dict(headers)
    if len(by_name) < len(headers) or not _NO_UPGRADE.isdisjoint(by_name):
        return None
    if by_name.get(b"upgrade", b"").lower() != b"websocket":
        return None
    tokens = by_name.get(b"connection", b"").lower().split(b",")
    return (target, headers) if b"upgrade" in [token.strip() for token in tokens] else None
