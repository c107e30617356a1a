"""Builds WebSocket frames, and parses the most common ones.

A frame is built once per message and shared by all receivers: server frames are unmasked and no extension is
negotiated, so the bytes are the same for all.
"""

from __future__ import annotations

from typing import Final

try:
    from websockets.speedups import apply_mask
except ImportError:  # as websockets itself does
    from websockets.utils import apply_mask

EXTENDED: Final = 126
"""The length byte 126 announces a length in 2 bytes, 127 one in 8 bytes."""


_LONG: Final = 65_536
_HEADS: Final = [bytes((0x81, size)) for size in range(EXTENDED)]


def text_frame(payload: bytes) -> bytes:
    """Build the text frame of a UTF-8 ``payload`` (RFC 6455 section 5.2)."""
    size = len(payload)
    if size < EXTENDED:
        return _HEADS[size] + payload
    if size < _LONG:
        return b"\x81\x7e" + size.to_bytes(2) + payload
    return b"\x81\x7f" + size.to_bytes(8) + payload


def split(data: bytes) -> list[tuple[bytes, bytes]]:
    """The server's frames in ``data``, which are complete, each with its payload."""
    found, at = [], 0
    while at < len(data):
        size = data[at + 1]
        start = at + 2
        if size >= EXTENDED:
            width = 2 if size == EXTENDED else 8
            size = int.from_bytes(data[start : start + width])
            start += width
        found.append((data[at : start + size], data[start : start + size]))
        at = start + size
    return found


def payloads(data: bytes) -> list[bytes]:
    """The inverse of :func:`text_frame`, for concatenated frames."""
    return [payload for _, payload in split(data)]


def is_text(frame: bytes) -> bool:
    """Whether it is a complete text frame."""
    return frame[0] == _TEXT


_TEXT: Final = 0x81
_MASKED: Final = 0x80


def plain_text(data: bytes, start: int, limit: int) -> tuple[bytes, int] | None:
    """Return the payload and the end of a client's complete text frame that begins at ``start``.

    Returns None for anything else (RFC 6455 section 5.2): an incomplete frame, a fragment, a control frame,
    an unmasked frame, one of 64 KiB or more, one longer than ``limit`` bytes, or one whose length is not
    encoded in the shortest form.
    """
    end = len(data)
    if end - start < 6 or data[start] != _TEXT:
        return None
    size = data[start + 1] - _MASKED
    if size < 0:
        return None
    begin = start + 6
    if size >= EXTENDED:
        size = int.from_bytes(data[start + 2 : start + 4]) if size == EXTENDED else 0
        if size < EXTENDED:
            return None
        begin = start + 8
    stop = begin + size
    if stop > end or size > limit:
        return None
    return apply_mask(data[begin:stop], data[begin - 4 : begin]), stop


def is_utf8(text: bytes) -> bool:
    """Whether ``text`` is valid UTF-8 (RFC 6455 section 8.1). Tests ASCII first, the usual case."""
    if not text.isascii():
        try:
            text.decode()
        except UnicodeDecodeError:
            return False
    return True


_HEAD: Final = 14
"""Length of the longest frame header in bytes."""


class Edges:
    """Finds the frame boundaries in a stream of bytes, without interpreting the frames."""

    __slots__ = ("_head", "_missing")

    def __init__(self) -> None:
        self._head = b""
        self._missing = 0

    def next(self, data: bytes, start: int) -> int:
        """Return the end of the frame that ``start`` is in, or of ``data`` if that comes first.

        Must be called for consecutive parts of the stream.
        """
        if not self._missing:
            known = len(self._head)
            head = self._head + data[start : start + _HEAD - known]
            size = _frame_size(head)
            if size is None:
                self._head = head
                return len(data)
            self._head, self._missing = b"", size - known
        stop = min(start + self._missing, len(data))
        self._missing -= stop - start
        return stop


def _frame_size(head: bytes) -> int | None:
    """Return the size of the frame that begins with ``head``; None if ``head`` is too short to tell."""
    if len(head) < 2:
        return None
    masked, size = divmod(head[1], _MASKED)
    begin = 2 + (0 if size < EXTENDED else 2 if size == EXTENDED else 8)
    if len(head) < begin:
        return None
    return begin + 4 * masked + (size if size < EXTENDED else int.from_bytes(head[2:begin]))


_CLOSE: Final = 0x88
_CODES: Final = frozenset(code.to_bytes(2) for code in (1000, 1001))


def goodbye(data: bytes) -> bytes | None:
    """Return the answer to a client's close frame, if ``data`` is exactly one of the usual form.

    The usual form has no reason, and no code or one of 1000 (normal closure) and 1001 (going away).
    """
    size = len(data) - 6
    if size not in (0, 2) or data[0] != _CLOSE or data[1] != _MASKED + size:
        return None
    code = apply_mask(data[6:], data[2:6])
    return bytes((_CLOSE, size)) + code if not code or code in _CODES else None
