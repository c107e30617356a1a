"""Stopping one reply from outside."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Stop(enum.Enum):
    """Why a reply is stopped from outside."""

    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    DRAIN = "drain"


class Control:
    """Stops one reply from outside. The first reason stands."""

    def __init__(self) -> None:
        self.reason: Stop | None = None
        self._close: Callable[[], None] | None = None

    def stop(self, reason: Stop) -> None:
        """Close the request to the model now; the reply ends as ``reason`` says."""
        if self.reason is None:
            self.reason = reason
            if self._close is not None:
                self._close()

    def closes(self, close: Callable[[], None]) -> None:
        """From now on, stopping calls ``close``; at once if it has been stopped already."""
        self._close = close
        if self.reason is not None:
            close()
