"""WebSocket frames: built once per message and shared by every receiver, and read where they are plain.

Server frames are unmasked and no extension is negotiated, so the bytes are the same for all.
"""

from __future__ import annotations

from typing import Final

try:
    from websockets.speedups import apply_mask
except ImportError:  # as websockets itself does
    from websockets.utils import apply_mask

EXTENDED: Final = 126
"""From this length on the header has the length in 2 bytes of its own, or in 8 for this length + 1."""


_LONG: Final = 65_536
_HEADS: Final = [bytes((0x81, size)) for size in range(EXTENDED)]


def text_frame(payload: bytes) -> bytes:
    """The whole text frame around UTF-8 ``payload`` (RFC 6455 section 5.2)."""
    size = len(payload)
    if size < EXTENDED:
        return _HEADS[size] + payload
    if size < _LONG:
        return b"\x81\x7e" + size.to_bytes(2) + payload
    return b"\x81\x7f" + size.to_bytes(8) + payload


def payloads(data: bytes) -> list[bytes]:
    """The inverse of :func:`text_frame`, for all the frames that are joined in ``data``."""
    found, start = [], 0
    while start < len(data):
        size = data[start + 1]
        start += 2
        if size >= EXTENDED:
            width = 2 if size == EXTENDED else 8
            size = int.from_bytes(data[start : start + width])
            start += width
        found.append(data[start : start + size])
        start += size
    return found


_TEXT: Final = 0x81
_MASKED: Final = 0x80


def whole_texts(data: bytes, limit: int) -> list[bytes] | None:
    """The payloads, if ``data`` is nothing but whole text frames of a client (RFC 6455 section 5.2).

    None if there is anything else in it: a part of a frame, a fragment, a control frame, a frame without
    mask, of 64 KiB and more, of more than ``limit`` bytes, or whose length is not in its shortest form.
    """
    texts, at, end = [], 0, len(data)
    while at < end:
        if end - at < 6 or data[at] != _TEXT or data[at + 1] < _MASKED:
            return None
        size, begin = data[at + 1] - _MASKED, at + 6
        if size >= EXTENDED:
            size = int.from_bytes(data[at + 2 : at + 4]) if size == EXTENDED else 0
            if size < EXTENDED:
                return None
            begin = at + 8
        at = begin + size
        if at > end or size > limit:
            return None
        texts.append(apply_mask(data[begin:at], data[begin - 4 : begin]))
    return texts


_CLOSE: Final = 0x88
_CODES: Final = frozenset(code.to_bytes(2) for code in (1000, 1001))


def goodbye(data: bytes) -> bytes | None:
    """The answer, if ``data`` is a client's close frame as nearly all are: without a reason.

    That is: whole, alone, and without a code, or with that for what is over or for who goes away.
    """
    size = len(data) - 6
    if size not in (0, 2) or data[0] != _CLOSE or data[1] != _MASKED + size:
        return None
    code = apply_mask(data[6:], data[2:6])
    return bytes((_CLOSE, size)) + code if not code or code in _CODES else None
