"""What the metrics say of connections: plain numbers, which the hot paths count."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class ConnectionFigures:
    """Counts of one process.

    :ivar by_app: open connections by the application's id.
    :ivar accepted: connections accepted since the start.
    :ivar refused: handshakes refused, by Pusher error code.
    :ivar slow: connections that do not take what is written to them right now.
    :ivar slow_closed: connections closed for that.
    """

    by_app: Counter[str] = field(default_factory=Counter)
    accepted: int = 0
    refused: Counter[int] = field(default_factory=Counter)
    slow: int = 0
    slow_closed: int = 0
