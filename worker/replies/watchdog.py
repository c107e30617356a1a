"""Ends a request to the model in which nothing of the reply arrives."""

from __future__ import annotations

import asyncio
import math
from contextlib import contextmanager
from typing import TYPE_CHECKING

from legato.worker.providers.base import StalledError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Self

    from legato.worker.providers.base import Patience


class Watchdog:
    """Cancels the body of its ``async with`` when no part of the reply arrives in time.

    A provider's keep-alives show that the connection is alive, not that the model writes: only text,
    reasoning and calls count. Each of them moves the deadline, which costs an assignment: the timer is set
    anew only when it fires.

    :ivar expired: the body was cancelled. Checked by a body that survives its cancellation.
    """

    def __init__(self, patience: Patience) -> None:
        loop = asyncio.get_running_loop()
        self.expired = False
        self._next = patience.next
        self._clock = loop.time
        self._deadline = loop.time() + patience.first
        self._limit = asyncio.timeout(None)
        self._due = math.inf
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        await self._limit.__aenter__()
        self._set_timer(self._deadline)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """:raises StalledError: in place of the TimeoutError of the deadline, or of a provider."""
        self._cancel_timer()
        try:
            await self._limit.__aexit__(kind, error, trace)
        except TimeoutError as timeout:
            error = timeout
        if isinstance(error, TimeoutError):
            raise StalledError("the model went silent") from None

    def text_at(self, now: float) -> None:
        """Text, or another part, has arrived."""
        self._move_deadline(now + self._next)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the clock: the body waits for something else than the model."""
        left = self._deadline - self._clock()
        self._deadline = math.inf
        try:
            yield
        finally:
            self._move_deadline(self._clock() + left)

    def _move_deadline(self, deadline: float) -> None:
        self._deadline = deadline
        if deadline < self._due:
            self._set_timer(deadline)

    def _set_timer(self, due: float) -> None:
        self._cancel_timer()
        self._due = due
        self._timer = asyncio.get_running_loop().call_at(due, self._check)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _check(self) -> None:
        now = self._clock()
        if now < self._deadline:
            self._set_timer(min(self._deadline, now + self._next))  # no deadline while paused
        else:
            self.expired = True
            self._limit.reschedule(now)
