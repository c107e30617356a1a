"""Any bytes of a client: no exception escapes, no private channel opens, the socket works or is closed."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from legato.broadcaster.composition import running
from legato.broadcaster.transport.websocket import Connection
from tests.broadcaster.conftest import APP, local_settings
from tests.broadcaster.transport.test_websocket import UPGRADE
from tests.tiers import amount

if TYPE_CHECKING:
    from collections.abc import Iterator

CLOSE = 8

_REQUEST, *_LINES = UPGRADE.split(b"\r\n\r\n")[0].split(b"\r\n")
TARGET = _REQUEST.split(b" ")[1]
HEADERS = [(name.lower(), value) for name, _, value in (line.partition(b": ") for line in _LINES)]


class Transport:
    """A transport that accepts writes, as an open connection does."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.closing = False

    def write(self, data: bytes) -> None:
        self.written += data

    def get_extra_info(self, name: str) -> None:
        pass

    def set_write_buffer_limits(self, high: int) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = True


def frame(opcode: int, payload: bytes, fin: bool, masked: bool) -> bytes:
    """A client's frame, with a mask of zeros. Without a mask it violates RFC 6455 section 5.1."""
    size = len(payload)
    length = bytes([size]) if size < 126 else bytes([126]) + struct.pack(">H", size)
    head = bytes([fin << 7 | opcode, masked << 7 | length[0]]) + length[1:]
    return head + bytes(4 * masked) + payload


NAMES = st.builds(
    str.__add__,
    st.sampled_from(["", "private-", "presence-", "private-encrypted-", "cache-", "#server-to-user-"]),
    st.text("ab-", max_size=4),
)
MESSAGES = st.builds(
    lambda event, data: msgspec.json.encode({"event": event, "data": data}),
    st.sampled_from(
        ["pusher:subscribe", "pusher:unsubscribe", "pusher:ping", "pusher:signin", "client-a", ""]
    ),
    st.none() | st.fixed_dictionaries({"channel": NAMES}, optional={"auth": st.text(max_size=9)}),
)
FRAMES = st.builds(
    frame,
    st.sampled_from([0, 1, 1, 1, 2, 8, 9, 10, 3]),
    MESSAGES | st.binary(max_size=40),
    st.integers(0, 9).map(bool),
    st.integers(0, 9).map(bool),
)


def opcodes(written: bytes) -> Iterator[int]:
    """The content of each frame that the server wrote. All of them must be complete."""
    at = 0
    while at < len(written):
        yield written[at] & 0x0F
        size = written[at + 1]
        at += 2
        if size == 126:
            (size,) = struct.unpack_from(">H", written, at)
            at += 2
        at += size
    assert at == len(written)


@pytest.mark.proof
async def test_any_bytes_after_the_handshake():
    async with running(local_settings()) as server:
        node = server.node
        node.context.budget.refill = lambda: True  # else most of it would wait for the loop

        @given(st.lists(FRAMES | st.binary(max_size=20), max_size=12), st.integers(1, 60))
        @settings(max_examples=amount(150, 5_000))
        def any_bytes(parts: list[bytes], size: int) -> None:
            transport = Transport()
            connection = Connection(node.context, set())
            connection.connection_made(transport)
            connection.upgrade(b"GET", TARGET, HEADERS)
            answered = transport.written.index(b"\r\n\r\n") + 4
            sent = b"".join(parts)
            for at in range(0, len(sent), size):
                if not transport.closing:
                    connection.data_received(sent[at : at + size])
                while node.context.budget:
                    node.context.budget._turn()
            written = list(opcodes(bytes(transport.written[answered:])))
            ended = connection.session is None
            assert (CLOSE in written) == ended
            assert CLOSE not in written[:-1]
            assert not any(key.channel.startswith(("private", "presence", "#")) for key in node.hub._channels)
            connection.connection_lost(None)
            assert (node.connections.by_app[APP.id], len(node.hub)) == (0, 0)

        any_bytes()
