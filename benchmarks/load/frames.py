"""Parses WebSocket frames from a server, and the stamps of events in them.

Many connections of one process receive the same bytes if a channel has many subscribers. Whole pieces are
cached, so that each is parsed once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from . import stamp

TEXT: Final = 1
CLOSE: Final = 8
PING: Final = 9

REMEMBERED: Final = 256
"""Size of the cache in pieces. When full, it is cleared: repeated pieces arrive within moments."""

BEGINNING: Final = 128
"""Length of the prefix that is the key of the cache, with the length; hashing a whole piece costs more."""


class EventRun(NamedTuple):
    """Consecutive events of one stream: ``first`` to ``last``."""

    stream: int
    first: int
    last: int


@dataclass(frozen=True, eq=False, slots=True)
class Piece:
    """A parsed piece. Compared by identity: equal pieces of many connections are one object.

    :ivar runs: in the order in which they came, of each stream.
    :ivar times: of the stamps of all events, in microseconds.
    :ivar others: frames without a stamp, as opcode and payload.
    :ivar used: bytes of whole frames.
    :ivar arrivals: how often it has come, by moment; see :meth:`.tally.Tally.delivered`.
    """

    runs: tuple[EventRun, ...]
    times: tuple[int, ...]
    others: tuple[tuple[int, bytes], ...]
    used: int
    arrivals: dict[int, int] = field(default_factory=dict)


def take_apart(data: bytes) -> Piece:
    """Parse all complete frames of ``data`` (RFC 6455 section 5.2; servers do not mask)."""
    stamps, others, at, length = [], [], 0, len(data)
    while at + 2 <= length:
        size, begin = data[at + 1] & 127, at + 2
        if size > 125:
            begin += 2 if size == 126 else 8
            size = int.from_bytes(data[at + 2 : begin])
        end = begin + size
        if end > length:
            break
        opcode = data[at] & 15
        mark = data.find(stamp.MARK, begin, end) if opcode == TEXT else -1
        if mark < 0 or mark + stamp.SIZE > end:
            others.append((opcode, data[begin:end]))
        else:
            stamps.append(stamp.read(data, mark))
        at = end
    return Piece(_runs(stamps), tuple(found.time for found in stamps), tuple(others), at)


def _runs(stamps: list[stamp.Stamp]) -> tuple[EventRun, ...]:
    runs: list[EventRun] = []
    latest: dict[int, int] = {}
    for stream, sequence, _ in stamps:
        place = latest.get(stream)
        if place is not None and runs[place].last + 1 == sequence:
            runs[place] = EventRun(stream, runs[place].first, sequence)
        else:
            latest[stream] = len(runs)
            runs.append(EventRun(stream, sequence, sequence))
    return tuple(runs)


class PieceReader:
    """Parses pieces for all connections of a process, with a cache."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[tuple[int, bytes], tuple[bytes, Piece]] = {}

    def read(self, data: bytes) -> Piece:
        """As :func:`take_apart`."""
        key = (len(data), data[:BEGINNING])
        known = self._known.get(key)
        if known is not None and known[0] == data:
            return known[1]
        if len(self._known) >= REMEMBERED:
            self._known.clear()
        piece = take_apart(data)
        self._known[key] = (data, piece)
        return piece


def client_frame(text: bytes, opcode: int = TEXT) -> bytes:
    """A frame of a client, masked with zeros, so that its bytes are those of ``text``."""
    size = len(text)
    head = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2)
    return bytes([0x80 | opcode]) + head + b"\0\0\0\0" + text
