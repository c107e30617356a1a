"""Counters of connections: plain integers, incremented on hot paths and read by the metrics."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class ConnectionFigures:
    """Counts of one process.

    :ivar by_app: open connections by the application's id.
    :ivar accepted: connections accepted since the start.
    :ivar refused: handshakes refused, by Pusher error code.
    :ivar slow: slow connections at present: they read more slowly than they are written to.
    :ivar slow_closed: connections closed because a buffer of theirs was full.
    :ivar merged_tokens: tokens that slow clients got in the frame of an earlier one, as they had asked for.
    """

    by_app: Counter[str] = field(default_factory=Counter)
    accepted: int = 0
    refused: Counter[int] = field(default_factory=Counter)
    slow: int = 0
    slow_closed: int = 0
    merged_tokens: int = 0
