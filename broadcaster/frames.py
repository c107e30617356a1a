"""A WebSocket frame, built once per message and shared by every receiver.

Server frames are unmasked and no extension is negotiated, so the bytes are the same for all.
"""

from __future__ import annotations

from websockets.frames import Frame, Opcode


def text_frame(payload: bytes) -> bytes:
    """The whole text frame around UTF-8 ``payload`` (RFC 6455 section 5.2)."""
    return Frame(Opcode.TEXT, payload).serialize(mask=False)
