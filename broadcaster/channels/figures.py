"""Counters of subscriptions: plain integers, read by the metrics."""

from __future__ import annotations

import sys
from dataclasses import dataclass


@dataclass(slots=True)
class SubscriptionFigures:
    """Counts of one process.

    :ivar most: the maximum number of subscriptions of this process.
    :ivar open: current subscriptions of clients to channels.
    :ivar refused: subscriptions refused because the maximum was reached.
    """

    most: int = sys.maxsize
    open: int = 0
    refused: int = 0

    def limit(self, most: int) -> None:
        """Change the maximum. 0 is no limit."""
        self.most = most or sys.maxsize
