"""Background tasks, which run until they finish or the node stops."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from legato.protocol.redis.cancellation import end_task

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


class Background:
    """Holds references to background tasks, since the event loop holds only weak ones."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Start a coroutine as a task."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def spawn_later(self, seconds: float, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Call ``work`` after a delay and run its coroutine as a task."""
        self._loop.call_later(seconds, lambda: self.spawn(work()))

    async def wait(self, seconds: float) -> None:
        """Wait until the current tasks have finished, for at most ``seconds``."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)

    async def close(self) -> None:
        """Cancel the tasks that still run, and wait for them."""
        for task in list(self._tasks):
            await end_task(task)
