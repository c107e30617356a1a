"""``websockets``' Sans-I/O ``Protocol``, given one frame at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from websockets.frames import Frame
from websockets.protocol import Protocol, Side, State

from . import handshake
from .frames import Edges

if TYPE_CHECKING:
    from collections.abc import Iterator


class Library:
    """What reads all that is not a plain message: fragments, control frames, what breaks a rule.

    :param limit: bytes of a message.
    :ivar fragments: the message that is not complete.
    """

    __slots__ = ("_edges", "_protocol", "fragments")

    def __init__(self, limit: int) -> None:
        self._protocol = Protocol(Side.SERVER, state=State.OPEN, max_size=limit, logger=handshake.silent)
        self._edges = Edges()
        self.fragments = bytearray()

    @property
    def is_open(self) -> bool:
        """Whether no close frame has come or gone."""
        return self._protocol.state is State.OPEN

    @property
    def within_message(self) -> bool:
        """Whether a message has begun and has not ended."""
        return self._protocol.current_size is not None

    def read(self, data: bytes, start: int) -> int:
        """Read the frame that begins or goes on there, as far as it has come. Where the next one begins."""
        stop = self._edges.next(data, start)
        self._protocol.receive_data(data[start:stop])
        return stop

    def frames(self) -> Iterator[Frame]:
        """Those that are complete, each once."""
        return (event for event in self._protocol.events_received() if isinstance(event, Frame))

    def answers(self) -> list[bytes]:
        """What is to be written, each once; empty bytes say that the connection is to be closed now."""
        return self._protocol.data_to_send()

    def send_close(self, code: int, reason: str) -> None:
        """Begin the close handshake, unless that is done."""
        if self.is_open:
            self._protocol.send_close(code, reason)

    def fail(self, code: int, reason: str) -> None:
        """Close for what has been read (RFC 6455 section 7.1.7)."""
        self._protocol.fail(code, reason)

    def end(self) -> None:
        """Nothing more comes."""
        self._protocol.receive_eof()
