"""Wraps the Sans-I/O ``Protocol`` of ``websockets``, and feeds it one frame at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from websockets.frames import Frame
from websockets.protocol import Protocol, Side, State

from legato.broadcaster.clients.ends import DROPPED

from . import handshake
from .frames import Edges

if TYPE_CHECKING:
    from collections.abc import Iterator


class Library:
    """Reads everything but plain messages: fragments, control frames, invalid frames.

    :param limit: maximum size of a message in bytes.
    :ivar fragments: the incomplete message so far.
    """

    __slots__ = ("_edges", "_protocol", "fragments")

    def __init__(self, limit: int) -> None:
        self._protocol = Protocol(Side.SERVER, state=State.OPEN, max_size=limit, logger=handshake.silent)
        self._edges = Edges()
        self.fragments = bytearray()

    @property
    def is_open(self) -> bool:
        """Whether no close frame has been received or sent."""
        return self._protocol.state is State.OPEN

    @property
    def within_message(self) -> bool:
        """Whether a fragmented message is incomplete."""
        return self._protocol.current_size is not None

    def read(self, data: bytes, start: int) -> int:
        """Read the frame at ``start``, as far as it has arrived. Returns where the next one begins."""
        stop = self._edges.next(data, start)
        self._protocol.receive_data(data[start:stop])
        return stop

    def frames(self) -> Iterator[Frame]:
        """Take the frames that are complete."""
        return (event for event in self._protocol.events_received() if isinstance(event, Frame))

    def answers(self) -> list[bytes]:
        """Take the data to be written. Empty bytes mean that the connection has to be closed now."""
        return self._protocol.data_to_send()

    def send_close(self, code: int, reason: str) -> None:
        """Start the close handshake, unless it has begun."""
        if self.is_open:
            self._protocol.send_close(code, reason)

    def fail(self, code: int, reason: str) -> None:
        """Fail the connection because of invalid input (RFC 6455 section 7.1.7)."""
        self._protocol.fail(code, reason)

    @property
    def close_code(self) -> int:
        """The code of our close frame, which repeats that of the peer's, if it has sent one."""
        close = self._protocol.close_sent
        return DROPPED if close is None else close.code

    @property
    def fault(self) -> tuple[int, str] | None:
        """Code and reason, if the library itself has refused a frame. They repeat nothing of the frame."""
        error = self._protocol.parser_exc
        close = self._protocol.close_sent
        if error is None or close is None:
            return None
        return close.code, close.reason

    def end(self) -> None:
        """Note the end of the stream."""
        self._protocol.receive_eof()
