"""One request to the model: reads the provider's events ahead of the writer, as far as a bound allows."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

from legato.worker.limits import MODEL_EVENTS_AHEAD
from legato.worker.providers import base
from legato.worker.providers.circuit_breaker import admitted

from .watchdog import Watchdog

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from .model import Model

Arrival = tuple[float, base.Event]
"""The loop's time at which an event came, and the event."""


class ModelRequest:
    """One task reads the provider's events; :meth:`take` hands all that wait to the writer.

    Between the provider's generator and the writer there is nothing but a list.

    :param deadline: loop time by which the circuit breaker must have let the request through.
    :param delay: seconds to wait before the request is sent.
    """

    def __init__(
        self,
        model: Model,
        request: base.ProviderRequest,
        *,
        deadline: float = float("inf"),
        delay: float = 0.0,
        ahead: int = MODEL_EVENTS_AHEAD,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._model = model
        self._ahead = ahead
        self._waiting: list[Arrival] = []
        self._taker: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._stopped = False
        self._task = asyncio.create_task(self._run(request, deadline, delay))
        self._task.add_done_callback(self._ended)

    async def take(self) -> list[Arrival]:
        """All events that wait, at least one; empty when there will be no more. For one caller at a time.

        :raises ProviderError: what ended the request, after all events before it were taken.
        """
        if not (self._waiting or self._stopped or self._task.done()):
            self._taker = self._loop.create_future()
            try:
                await self._taker
            finally:
                self._taker = None
        if self._stopped:
            return []
        batch, self._waiting = self._waiting, []
        if self._room is not None:
            _resolve(self._room)
        if not batch:
            self._task.result()
        return batch

    def stop(self) -> None:
        """Close the request now; events that wait are dropped.

        Does not wait for the provider to close it: see :meth:`close`. A second call does nothing, since a
        second cancellation would interrupt the closing.
        """
        if not self._stopped:
            self._stopped = True
            self._task.cancel()
            _resolve(self._taker)

    async def close(self, seconds: float) -> bool:
        """Stop, and wait for the request to be closed, at most ``seconds``. Answers whether it is."""
        self.stop()
        await asyncio.wait({self._task}, timeout=seconds)
        return self.closed

    @property
    def closed(self) -> bool:
        """Whether nothing of the request is left."""
        return self._task.done()

    def _ended(self, task: asyncio.Task[None]) -> None:
        _resolve(self._taker)
        if not task.cancelled():
            task.exception()  # raised by take(), or of no interest any more

    async def _run(self, request: base.ProviderRequest, deadline: float, delay: float) -> None:
        """Ask the circuit breaker, then the provider, and tell the breaker how it went."""
        if delay:
            await asyncio.sleep(delay)
        async with (
            admitted(self._model.breaker, deadline) as probe,
            aclosing(self._model.provider.stream(request)) as events,
        ):
            await self._read(events, probe=probe)

    async def _read(self, events: AsyncGenerator[base.Event, None], *, probe: bool) -> None:
        """Every event passes here once: :raises CutError: the last one was not the model's end."""
        clock, ended = self._loop.time, False
        async with Watchdog(self._model.policy.patience) as watchdog:
            async for event in events:
                if self._stopped or watchdog.expired:  # the provider survived its cancellation
                    raise base.StalledError("the provider went on after it was cancelled")
                if probe:
                    probe = False
                    with watchdog.paused():
                        await self._model.breaker.succeeded()
                now = clock()
                if isinstance(event, base.Text):
                    watchdog.text_at(now)
                elif isinstance(event, base.Final):
                    ended = True
                elif not isinstance(event, base.Used | base.RequestAccepted):
                    watchdog.text_at(now)  # it thinks, or writes to a tool
                self._waiting.append((now, event))
                if self._taker is not None:
                    _resolve(self._taker)
                if len(self._waiting) >= self._ahead:
                    with watchdog.paused():
                        await self._until_taken()
        if not ended:
            raise base.CutError("the stream ended without an end")

    async def _until_taken(self) -> None:
        self._room = self._loop.create_future()
        try:
            await self._room
        finally:
            self._room = None


def _resolve(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)
