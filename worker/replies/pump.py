"""Reads a provider ahead of the writer, as far as a bound allows."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from legato.worker.providers.base import Event

AHEAD: Final = 64
"""Events that may wait for the writer. At the bound the model's stream is read no further: back-pressure."""


class Arrival(NamedTuple):
    """An event, and the loop's time at which it came."""

    at: float
    event: Event


class Pump:
    """One task reads events; one other takes all that wait whenever it is ready for more."""

    def __init__(self, events: AsyncGenerator[Event, None], ahead: int = AHEAD) -> None:
        self._events = events
        self._ahead = ahead
        self._waiting: list[Arrival] = []
        self._room = asyncio.Event()
        self._news = asyncio.Event()
        self._stopped = False
        self._task = asyncio.create_task(self._read())
        self._task.add_done_callback(self._ended)

    async def _read(self) -> None:
        clock = asyncio.get_running_loop().time
        async with aclosing(self._events) as events:
            async for event in events:
                if self._stopped:  # a provider that went on although it was cancelled
                    return
                self._waiting.append(Arrival(clock(), event))
                self._news.set()
                if len(self._waiting) >= self._ahead:
                    self._room.clear()
                    await self._room.wait()

    async def take(self) -> list[Arrival]:
        """All events that wait, at least one; empty when there will be no more.

        :raises ProviderError: what the provider raised, after all events before it were taken.
        """
        await self._news.wait()
        if self._stopped:
            return []
        batch, self._waiting = self._waiting, []
        self._room.set()
        if not self._task.done():
            self._news.clear()
        elif not batch:
            self._task.result()
        return batch

    def stop(self) -> None:
        """Close the request to the model now; what waits is dropped.

        Does not wait for the provider to close it: see :meth:`close`. Asked again, does nothing, for a second
        cancellation would break off the closing.
        """
        if not self._stopped:
            self._stopped = True
            self._task.cancel()
            self._news.set()

    async def close(self, seconds: float) -> bool:
        """Stop, and wait for the request to be closed, no longer than ``seconds``. Answers whether it is."""
        self.stop()
        await asyncio.wait({self._task}, timeout=seconds)
        return self.closed

    @property
    def closed(self) -> bool:
        """Whether nothing of the request is left."""
        return self._task.done()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._news.set()
        if not task.cancelled():
            task.exception()  # take() reports it, or nobody wants to know any more
