"""Encodes and decodes pusher-js's HTTP fallback transports (protocol section 12).

The body of a receive response has one frame per line; the first character is the frame's type. The body of a
send request is a JSON array of messages.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, cast

import msgspec

from .text import decode_json

if TYPE_CHECKING:
    from collections.abc import Iterable

OPEN: Final = b"o{}\n"
"""The first frame of a session, without the optional host for later requests."""

HEARTBEAT: Final = b"h\n"
"""A frame without a message; a streaming client answers it with an empty send."""

PRELUDE: Final = b"h" * 2048 + b"\n"
"""A heartbeat long enough to fill buffers that hold back the first bytes of a response."""

STREAM_LIMIT: Final = 256 * 1024
"""Length of a stream after which the client opens another, in UTF-16 code units."""

MAX_MESSAGES: Final = 1000
"""Largest number of messages in one send; pusher-js sends one each time."""

Action = Literal["xhr", "xhr_streaming", "xhr_send"]

_ADDRESS: Final = re.compile(r"([^/]+)/([0-9]{1,3})/([0-9a-v]{8})/(xhr|xhr_streaming|xhr_send)")

_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(list[str])


class Handle(NamedTuple):
    """Identifies a session: the key in the path, and two random parts that the client chose."""

    key: str
    server: str
    session: str


class SendError(ValueError):
    """An invalid send. ``status`` is the HTTP status."""

    def __init__(self, reason: str, status: int) -> None:
        super().__init__(reason)
        self.status = status


def parse_address(path: str) -> tuple[Handle, Action] | None:
    """Parse the part of a path after ``/app/``: the session and the action; None if it is invalid."""
    match = _ADDRESS.fullmatch(path)
    if match is None:
        return None
    key, server, session, action = match.groups()
    return Handle(key, server, session), cast("Action", action)


def messages_frame(payloads: Iterable[bytes]) -> bytes:
    """One line with all messages, each UTF-8 JSON, so that the client receives all of them or none."""
    return b"a" + _encoder.encode([payload.decode("utf-8", "replace") for payload in payloads]) + b"\n"


def close_frame(code: int, reason: str) -> bytes:
    """The closing line of a session."""
    return b"c" + _encoder.encode([code, reason]) + b"\n"


def code_units(frame: bytes) -> int:
    """Length of a frame as the client counts it for :data:`STREAM_LIMIT`."""
    return len(frame.decode().encode("utf-16-le")) // 2


def parse_send(body: bytes, max_message_bytes: int) -> list[bytes]:
    """The messages of a send, as the payloads of text frames.

    :raises SendError: 400 if it is not an array of strings; 413 for too many or too long messages.
    """
    if _strings(body) > MAX_MESSAGES:  # before decoding: a megabyte may contain 300,000 of them
        raise SendError(f"Expected at most {MAX_MESSAGES} messages", 413)
    try:
        messages = [text.encode() for text in decode_json(_decoder, body)]
    except (msgspec.DecodeError, UnicodeError) as error:
        raise SendError("Expected a JSON array of strings", 400) from error
    if any(len(message) > max_message_bytes for message in messages):
        raise SendError(f"A message is larger than {max_message_bytes} bytes", 413)
    return messages


def _strings(body: bytes) -> int:
    """Upper bound of the strings in an array: half of the unescaped quotation marks."""
    quotes = body.count(b'"')
    if quotes > 2 * MAX_MESSAGES:
        body = body.replace(rb"\\", b"")
        quotes = body.count(b'"') - body.count(rb"\"")
    return (quotes + 1) // 2
