"""Runs requests to the HTTP API that have to wait for something."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine

    from .requests import ApiRequest, Endpoint, Told

T = TypeVar("T")


class RequestTasks:
    """Runs coroutines of requests, and keeps references to their tasks."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._tasks: set[asyncio.Future[Any]] = set()

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Future[T]:
        """Run a coroutine as a task."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def wrap(self, handler: Callable[[ApiRequest], Coroutine[Any, Any, Told]]) -> Endpoint:
        """Turn a coroutine function into an endpoint."""
        return lambda request: self.start(handler(request))
