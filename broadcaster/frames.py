"""A WebSocket frame, built once per message and shared by every receiver.

Server frames are unmasked and no extension is negotiated, so the bytes are the same for all.
"""

from __future__ import annotations

from typing import Final

from websockets.frames import Frame, Opcode

EXTENDED: Final = 126
"""From this length on the header has the length in 2 bytes of its own, or in 8 for this length + 1."""


def text_frame(payload: bytes) -> bytes:
    """The whole text frame around UTF-8 ``payload`` (RFC 6455 section 5.2)."""
    return Frame(Opcode.TEXT, payload).serialize(mask=False)


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
