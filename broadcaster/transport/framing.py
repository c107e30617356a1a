"""Splits a byte stream into HTTP/1.1 messages (RFC 9112): heads, and bodies by length or in chunks.

llhttp parses the heads, one complete head at a time. It never sees a body: after an upgrade request it would
take the body for another protocol, but a server may ignore the upgrade (RFC 9110, 7.8).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

import httptools

from legato.broadcaster.limits import (
    CHUNKS_PER_READ,
    MAX_HEAD_BYTES,
    MAX_HEADER_FIELDS,
    MAX_URL_ESCAPES,
    MAX_URL_PARTS,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

INVALID: Final = "Invalid HTTP request received."

_HEAD_END: Final = b"\r\n\r\n"
_NO_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_CHUNK_LINE: Final = re.compile(
    rb"([0-9A-Fa-f]{1,8})"
    rb"(?:;[!#-'*+\-.0-9A-Z^-z|~]+(?:=(?:[!#-'*+\-.0-9A-Z^-z|~]+|\"[\t !#-\[\]-~\x80-\xff]*\"))?)*"
)
_TRAILER: Final = re.compile(rb"[!#-'*+\-.0-9A-Z^-z|~]+:[\t\x20-\x7e\x80-\xff]*")


class FramingRefusal(Exception):  # noqa: N818 - an answer to the client, not an internal error
    """The message is refused, and the rest of it not read. The text is for the peer."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Head(NamedTuple):
    """The head of a request.

    :ivar headers: names in lower case.
    :ivar websocket: it requests an upgrade to ``websocket`` only.
    :ivar length: the length of the body in bytes; None if it is chunked.
    :ivar size: the length of the head itself in bytes.
    """

    method: bytes
    target: bytes
    headers: Sequence[tuple[bytes, bytes]]
    version: str
    keep_alive: bool
    websocket: bool
    expects: bool
    length: int | None
    size: int


class _Fields:
    """Collects the parser's callbacks. Reads keep-alive at once: the parser forgets it after the message."""

    __slots__ = ("complete", "headers", "keep_alive", "parser", "target")

    parser: httptools.HttpRequestParser

    def __init__(self) -> None:
        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.complete = self.keep_alive = False

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.complete = True
        self.keep_alive = self.parser.should_keep_alive()


def take_head(unread: bytearray, searched: int = 0) -> bytes | None:
    """Take a head from the front, and skip up to two empty lines before it. None if it is incomplete.

    :param searched: the number of bytes already searched for the end of the head.
    :raises FramingRefusal: the head is too large.
    """
    if not searched and unread.startswith((b"\r", b"\n")):
        start = unread[:4]
        del unread[: len(start) - len(start.lstrip(b"\r\n"))]
    end = unread.find(_HEAD_END, max(searched - 3, 0), MAX_HEAD_BYTES)
    if end >= 0:
        head = bytes(unread[: end + 4])
        del unread[: end + 4]
        if head.count(b"\n") <= MAX_HEADER_FIELDS + 2:
            return head
    elif len(unread) < MAX_HEAD_BYTES:
        return None
    raise FramingRefusal(431, "The head of the request is too large.")


def parse_head(data: bytes) -> Head:
    """Parse one complete head.

    :raises FramingRefusal: the head is invalid, or requires something that is not supported.
    """
    fields = _Fields()
    fields.parser = parser = httptools.HttpRequestParser(fields)
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        pass  # decided below
    except httptools.HttpParserError as error:
        raise FramingRefusal(400, INVALID) from error
    finally:
        del fields.parser  # breaks the reference cycle
    if not fields.complete:
        raise FramingRefusal(400, INVALID)
    _check_target(fields.target)
    version, headers = parser.get_http_version(), fields.headers
    by_name = dict(headers)
    # The parser refuses two lengths, a length that is no number, and one beside a Transfer-Encoding.
    length = int(by_name.get(b"content-length", b"0"))
    in_chunks = b"transfer-encoding" in by_name and _in_chunks(headers, version)
    websocket = parser.should_upgrade() and _asks(headers, version, b"upgrade", b"websocket")
    if websocket and (length or in_chunks):
        raise FramingRefusal(400, "A request for a WebSocket has no body.")
    return Head(
        method=parser.get_method(),
        target=fields.target,
        headers=headers,
        version=version,
        keep_alive=version != "1.0" and fields.keep_alive,
        websocket=websocket,
        expects=b"expect" in by_name and _asks(headers, version, b"expect", b"100-continue"),
        length=None if in_chunks else length,
        size=len(data),
    )


def _check_target(target: bytes) -> None:
    """Refuse URLs that are expensive to decode: with many small parts, or with invalid escapes."""
    if target.count(b"&") + target.count(b"/") > MAX_URL_PARTS:
        raise FramingRefusal(414, "The address of the request has too many parts.")
    escapes = target.count(b"%")
    if escapes > MAX_URL_ESCAPES:
        raise FramingRefusal(414, "The address of the request has too many escapes.")
    if escapes and _NO_ESCAPE.search(target) is not None:
        raise FramingRefusal(400, INVALID)


def _named(headers: Sequence[tuple[bytes, bytes]], wanted: bytes) -> list[bytes]:
    return [value.strip(b" \t").lower() for name, value in headers if name == wanted]


def _asks(headers: Sequence[tuple[bytes, bytes]], version: str, name: bytes, what: bytes) -> bool:
    """Whether a field has this value only. Always false in HTTP/1.0, which lacks these fields."""
    return version == "1.1" and _named(headers, name) == [what]


def _in_chunks(headers: Sequence[tuple[bytes, bytes]], version: str) -> bool:
    if version == "1.0":
        raise FramingRefusal(400, INVALID)  # RFC 9112, 6.1: faulty framing
    if _named(headers, b"transfer-encoding") != [b"chunked"]:
        raise FramingRefusal(501, "Expected no other Transfer-Encoding than chunked.")
    return True


class Sized:
    """A body of a known length.

    :ivar left: bytes that are not taken yet.
    """

    __slots__ = ("left",)

    def __init__(self, length: int) -> None:
        self.left = length

    @property
    def done(self) -> bool:
        """Whether the whole body has been taken."""
        return self.left == 0

    def take(self, unread: bytearray, most: int) -> bytes:
        """Take what is available from the front, at most ``most`` bytes."""
        data = bytes(unread[: min(most, self.left)])
        del unread[: len(data)]
        self.left -= len(data)
        return data


class Chunked:
    """A chunked body (RFC 9112, 7.1). Extensions and trailers are ignored.

    :param room: maximum bytes of extensions and trailers.
    """

    __slots__ = ("_data_left", "_room", "_state", "done")

    left: Final = None
    """Unknown."""

    def __init__(self, room: int) -> None:
        self.done = False
        self._room = room
        self._data_left = 0
        self._state: Callable[[bytearray, bytearray, int], bool] = self._size

    def take(self, unread: bytearray, most: int) -> bytes:
        """Take content from the front, at most ``most`` bytes, or of :data:`CHUNKS_PER_READ` chunks.

        :raises FramingRefusal: the chunks are invalid, or extensions and trailers are too large.
        """
        content = bytearray()
        for _ in range(3 * CHUNKS_PER_READ):
            if len(content) >= most or not self._state(unread, content, most):
                break
        return bytes(content)

    def _line(self, unread: bytearray) -> bytes | None:
        end = unread.find(b"\r\n", 0, self._room + 16)
        if end < 0:
            if len(unread) >= self._room + 16:
                raise FramingRefusal(431, "Chunk extensions and trailers are too large.")
            return None
        line = bytes(unread[:end])
        del unread[: end + 2]
        return line

    def _use(self, room: int) -> None:
        self._room -= room
        if self._room < 0:
            raise FramingRefusal(431, "Chunk extensions and trailers are too large.")

    def _size(self, unread: bytearray, _content: bytearray, _most: int) -> bool:
        line = self._line(unread)
        if line is None:
            return False
        found = _CHUNK_LINE.fullmatch(line)
        if found is None:
            raise FramingRefusal(400, INVALID)
        self._use(len(line) - found.end(1))
        self._data_left = int(found[1], 16)
        self._state = self._data if self._data_left else self._trailer
        return True

    def _data(self, unread: bytearray, content: bytearray, most: int) -> bool:
        size = min(self._data_left, most - len(content), len(unread))
        content += unread[:size]
        del unread[:size]
        self._data_left -= size
        if not self._data_left:
            self._state = self._end
        return size > 0

    def _end(self, unread: bytearray, _content: bytearray, _most: int) -> bool:
        if len(unread) < 2:
            return False
        if unread[:2] != b"\r\n":
            raise FramingRefusal(400, INVALID)
        del unread[:2]
        self._state = self._size
        return True

    def _trailer(self, unread: bytearray, _content: bytearray, _most: int) -> bool:
        line = self._line(unread)
        if line is None:
            return False
        if not line:
            self.done = True
            return False
        if _TRAILER.fullmatch(line) is None:
            raise FramingRefusal(400, INVALID)
        self._use(len(line) + 2)
        return True


Body = Sized | Chunked


def body_of(head: Head) -> Body | None:
    """Return the reader of the body; None if there is no body."""
    if head.length is None:
        return Chunked(max(MAX_HEAD_BYTES - head.size, 0))
    return Sized(head.length) if head.length else None
