"""Stops one reply from outside."""

from __future__ import annotations

import enum
from typing import Protocol


class StopReason(enum.Enum):
    """Why a reply is stopped from outside."""

    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    DRAIN = "drain"


class StoppableRequest(Protocol):
    """A request to the model."""

    @property
    def closed(self) -> bool:
        """Whether nothing of it is left."""

    def stop(self) -> None:
        """Start to close it."""

    async def close(self, seconds: float) -> bool:
        """Close it, and wait at most ``seconds``. Answers whether it is closed."""


class Control:
    """Stops one reply from outside. The first reason counts.

    :ivar request: the reply's latest request to the model.
    """

    def __init__(self) -> None:
        self.reason: StopReason | None = None
        self.request: StoppableRequest | None = None

    def stop(self, reason: StopReason) -> None:
        """Close the request to the model now; the reply ends as ``reason`` says."""
        if self.reason is None:
            self.reason = reason
            if self.request is not None:
                self.request.stop()

    def attach(self, request: StoppableRequest) -> None:
        """Make ``request`` the one that is stopped; at once if the reply has been stopped already."""
        self.request = request
        if self.reason is not None:
            request.stop()
