"""How many subscriptions there are and may be: plain numbers, which the metrics read."""

from __future__ import annotations

import sys
from dataclasses import dataclass


@dataclass(slots=True)
class SubscriptionFigures:
    """Counts of one process.

    :ivar most: how many this process takes.
    :ivar open: subscriptions of clients to channels.
    :ivar refused: those refused because there are as many as there may be.
    """

    most: int = sys.maxsize
    open: int = 0
    refused: int = 0
