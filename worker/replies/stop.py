"""Stopping one reply from outside."""

from __future__ import annotations

import enum
from typing import Protocol


class Stop(enum.Enum):
    """Why a reply is stopped from outside."""

    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    DRAIN = "drain"


class Request(Protocol):
    """A request to the model."""

    @property
    def closed(self) -> bool:
        """Whether nothing of it is left."""

    def stop(self) -> None:
        """Begin to close it."""

    async def close(self, seconds: float) -> bool:
        """Close it, and wait for that no longer than ``seconds``. Answers whether it is closed."""


class Control:
    """Stops one reply from outside. The first reason stands.

    :ivar request: the reply's last request to the model.
    """

    def __init__(self) -> None:
        self.reason: Stop | None = None
        self.request: Request | None = None

    def stop(self, reason: Stop) -> None:
        """Close the request to the model now; the reply ends as ``reason`` says."""
        if self.reason is None:
            self.reason = reason
            if self.request is not None:
                self.request.stop()

    def asks(self, request: Request) -> None:
        """From now on, stopping stops ``request``; at once if the reply has been stopped already."""
        self.request = request
        if self.reason is not None:
            request.stop()
