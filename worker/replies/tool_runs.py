"""Runs the calls of a step at the same time, and hands out each result as it comes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from legato.worker.agents import calling

if TYPE_CHECKING:
    from collections.abc import Iterable

    from legato.protocol.jobs import Job
    from legato.worker.agents.agent import Agent
    from legato.worker.agents.calling import CallResult
    from legato.worker.providers.base import ToolCall


class ToolRuns:
    """The calls that run. Stopped as a request to the model is (:class:`.stop.StoppableRequest`)."""

    def __init__(self, agent: Agent, job: Job, calls: Iterable[ToolCall]) -> None:
        self._stopped = asyncio.Event()
        self._tasks = {asyncio.create_task(calling.run(agent.tool(call.name), call, job)) for call in calls}
        self._stop = asyncio.create_task(self._stopped.wait())

    async def take(self) -> list[CallResult]:
        """The results that have come, at least one; empty when all were taken, or after :meth:`stop`."""
        if self._tasks and not self._stopped.is_set():
            waited: set[asyncio.Task[object]] = {*self._tasks, self._stop}
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        if self._stopped.is_set():
            return []
        done = {task for task in self._tasks if task.done()}
        self._tasks -= done
        return [task.result() for task in done]

    def stop(self) -> None:
        """Cancel what runs; its results are dropped."""
        if not self._stopped.is_set():
            self._stopped.set()
            for task in self._tasks:
                task.cancel()

    async def close(self, seconds: float) -> bool:
        """Stop, and wait for the calls to end, at most ``seconds``. Answers whether they have."""
        self.stop()
        await asyncio.wait({self._stop, *self._tasks}, timeout=seconds)
        return self.closed

    @property
    def closed(self) -> bool:
        """Whether nothing runs any more."""
        return all(task.done() for task in self._tasks)
