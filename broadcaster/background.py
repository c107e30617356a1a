"""Coroutines that run in the background, until they end or the node stops."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from legato.protocol.redis.cancellation import end_task

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


class Background:
    """Keeps their tasks: the event loop itself holds them weakly."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run it from now on."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def spawn_later(self, seconds: float, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run it after so many seconds."""
        self._loop.call_later(seconds, lambda: self.spawn(work()))

    async def wait(self, seconds: float) -> None:
        """Until all that run now have ended, for at most so long."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)

    async def close(self) -> None:
        """End all that still run."""
        for task in list(self._tasks):
            await end_task(task)
