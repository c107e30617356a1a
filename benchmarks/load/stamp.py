"""The stamp in an event: its stream, its index there, and its scheduled send time.

``LGT`` and three hexadecimal numbers of fixed width, then padding. It is found by a search for three
bytes and read by position, whatever JSON a server wraps around it. Nothing in it needs an escape in JSON.
"""

from __future__ import annotations

from typing import Final, NamedTuple

MARK: Final = b"LGT"
SIZE: Final = 3 + 6 + 8 + 14
FILLING: Final = "x"


class Stamp(NamedTuple):
    """``time``: microseconds of this machine's monotonic clock."""

    stream: int
    sequence: int
    time: int


def written(stream: int, sequence: int, time: int, size: int) -> str:
    """The data of an event, ``size`` characters long; at least :data:`SIZE`."""
    return f"LGT{stream:06x}{sequence:08x}{time:014x}".ljust(size, FILLING)


def read(data: bytes, at: int) -> Stamp:
    """Read the stamp at position ``at``, where a :data:`MARK` is.

    :raises ValueError: no numbers follow it.
    """
    at += 3
    return Stamp(
        int(data[at : at + 6], 16), int(data[at + 6 : at + 14], 16), int(data[at + 14 : at + 28], 16)
    )
