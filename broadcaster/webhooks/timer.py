"""A timer that fires at the earliest time it was set to."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Timer:
    """Calls ``fire`` once, at the earliest time since it last fired. Times are those of the event loop."""

    def __init__(self, fire: Callable[[], None]) -> None:
        self._fire = fire
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.TimerHandle | None = None
        self._at = 0.0

    def set(self, at: float | None) -> None:
        """Fire no later than this; None is ignored."""
        if at is not None and (self._handle is None or at < self._at):
            self.cancel()
            self._handle = self._loop.call_at(at, self._due)
            self._at = at

    def cancel(self) -> None:
        """Do not fire until it is set again."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _due(self) -> None:
        self._handle = None
        self._fire()
