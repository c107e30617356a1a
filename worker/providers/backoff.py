"""Waiting longer each time, and not giving up."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

log: Final = logging.getLogger("legato.worker")

T = TypeVar("T")

FIRST: Final = 0.1
CEILING: Final = 5.0


def delays(first: float, ceiling: float) -> Iterator[float]:
    """Seconds to wait, doubling from ``first`` up to ``ceiling``; half of each is random."""
    bound = first
    while True:
        yield bound / 2 + random.uniform(0, bound / 2)  # noqa: S311 - spreads load, keeps no secret
        bound = min(bound * 2, ceiling)


class Backend:
    """Something outside that may be down for a while. Shared by all who use it, so that the log says it once.

    :param down: the errors that mean so. Their texts are logged, so they hold no secrets.
    """

    def __init__(self, name: str, down: tuple[type[Exception], ...]) -> None:
        self.name = name
        self.down = down
        self._lost_since: float | None = None
        self._away = 0.0

    @property
    def away(self) -> float:
        """For how many seconds in all it has been down."""
        since = self._lost_since
        return self._away + (time.monotonic() - since if since is not None else 0.0)

    def failed(self, error: Exception) -> None:
        """A call raised one of ``down``."""
        if self._lost_since is None:
            self._lost_since = time.monotonic()
            log.warning("%s is lost, trying on: %s", self.name, one_line(error))

    def answered(self) -> None:
        """A call succeeded."""
        if self._lost_since is not None:
            self._away, self._lost_since = self.away, None
            log.info("%s is back", self.name)

    async def insist(self, call: Callable[[], Awaitable[T]]) -> T:
        """Repeat ``call``, which must be safe to repeat, until the backend answers.

        Any error that is not one of ``down`` is an answer, and raised.
        """
        for delay in delays(FIRST, CEILING):
            try:
                result = await call()
            except self.down as error:
                self.failed(error)
                await asyncio.sleep(delay)
            else:
                self.answered()
                obey_cancellation()
                return result
        raise AssertionError("delays() does not end")


def obey_cancellation() -> None:
    """Raise CancelledError if the running task has been cancelled and does not know.

    redis-py sends through :func:`asyncio.wait_for`, which before Python 3.12 drops a cancellation that comes
    in the turn of the loop in which the sending is done.
    Call it after a round trip, or a task that is cancelled runs on.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def one_line(error: BaseException) -> str:
    """The error in one line, by its type where it has no text."""
    return " ".join(str(error).split()) or type(error).__name__
