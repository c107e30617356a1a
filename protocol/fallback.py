"""The words of pusher-js's HTTP fallback transports, both ways (protocol section 12).

A receive answer is lines of one frame each, the first character being its type. A send is a JSON array of
messages.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, cast

import msgspec

from .text import decode_json

if TYPE_CHECKING:
    from collections.abc import Iterable

OPEN: Final = b"o{}\n"
"""The first frame of a session; what pins later requests to a host is left out."""

HEARTBEAT: Final = b"h\n"
"""Something to receive; over a stream the client answers it with an empty send."""

PRELUDE: Final = b"h" * 2048 + b"\n"
"""A heartbeat long enough that what buffers the first bytes of an answer passes it on."""

STREAM_LIMIT: Final = 256 * 1024
"""UTF-16 code units of one stream past which the client abandons it and opens another."""

MAX_MESSAGES: Final = 1000
"""Messages that one send may carry; pusher-js sends one each time."""

Action = Literal["xhr", "xhr_streaming", "xhr_send"]

_ADDRESS: Final = re.compile(r"([^/]+)/([0-9]{1,3})/([0-9a-v]{8})/(xhr|xhr_streaming|xhr_send)")

_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(list[str])


class Handle(NamedTuple):
    """What names a session: the key as the path spells it, and two parts that the client has drawn."""

    key: str
    server: str
    session: str


class SendError(ValueError):
    """A send that cannot be used. ``status`` is the HTTP status."""

    def __init__(self, reason: str, status: int) -> None:
        super().__init__(reason)
        self.status = status


def parse_address(path: str) -> tuple[Handle, Action] | None:
    """The session and what is asked of it, from a path behind ``/app/``; None if there is no such path."""
    match = _ADDRESS.fullmatch(path)
    if match is None:
        return None
    key, server, session, action = match.groups()
    return Handle(key, server, session), cast("Action", action)


def messages_frame(payloads: Iterable[bytes]) -> bytes:
    """One line with all the messages, UTF-8 JSON each: the client has either none of them or all."""
    return b"a" + _encoder.encode([payload.decode("utf-8", "replace") for payload in payloads]) + b"\n"


def close_frame(code: int, reason: str) -> bytes:
    """The last line of a session."""
    return b"c" + _encoder.encode([code, reason]) + b"\n"


def code_units(frame: bytes) -> int:
    """Length of a frame as the client counts it, to know when it abandons the stream."""
    return len(frame.decode().encode("utf-16-le")) // 2


def parse_send(body: bytes, max_message_bytes: int) -> list[bytes]:
    """The messages of a send, as they would have been in text frames.

    :raises SendError: 400 for what is no array of strings, 413 for too many of them or too long ones.
    """
    if _strings(body) > MAX_MESSAGES:  # before they are made: a megabyte may have 300,000 of them
        raise SendError(f"Expected at most {MAX_MESSAGES} messages", 413)
    try:
        messages = [text.encode() for text in decode_json(_decoder, body)]
    except (msgspec.DecodeError, UnicodeError) as error:
        raise SendError("Expected a JSON array of strings", 400) from error
    if any(len(message) > max_message_bytes for message in messages):
        raise SendError(f"A message is larger than {max_message_bytes} bytes", 413)
    return messages


def _strings(body: bytes) -> int:
    """How many strings an array has, at most: half of the quotation marks that no backslash escapes."""
    quotes = body.count(b'"')
    if quotes > 2 * MAX_MESSAGES:
        body = body.replace(rb"\\", b"")
        quotes = body.count(b'"') - body.count(rb"\"")
    return (quotes + 1) // 2
