"""Retries: the waits between attempts, and calls that are repeated until they succeed.

All waits follow one rule (:mod:`legato.protocol.backoff`): they double up to a bound. Half of each wait is
random, so that processes that lost the same server do not come back to it at the same moment.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING, Final, TypeVar

from legato.protocol import backoff

from .cancellation import obey_cancellation
from .errors import reason_of

if TYPE_CHECKING:
    import logging
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

FIRST: Final = 0.1
"""Seconds before the first retry."""

LONGEST: Final = 2.0
"""Longest wait between two attempts, in seconds, where clients wait for the result."""

BACKEND_LONGEST: Final = 5.0
"""Longest wait between two attempts of :meth:`Backend.insist`, in seconds."""


def seconds(failures: int, first: float = FIRST, longest: float = LONGEST, jitter: float = 0.5) -> float:
    """How long to wait after so many failures in a row.

    :param jitter: the part of the wait that is random, from 0 (none) to 1 (all).
    """
    bound = backoff.wait(failures, first, longest)
    return bound * (1 - random.uniform(0, jitter))  # noqa: S311 - spreads load, keeps no secret


class Backoff:
    """The waits of one series of attempts. Cheap to reset: nothing is computed before a failure.

    :param first: seconds of the first wait.
    :param longest: seconds of any wait at most.
    :param jitter: see :func:`seconds`.
    """

    __slots__ = ("_failures", "_first", "_jitter", "_longest")

    def __init__(self, first: float = FIRST, longest: float = LONGEST, jitter: float = 0.5) -> None:
        self._first = first
        self._longest = longest
        self._jitter = jitter
        self._failures = 0

    def next(self) -> float:
        """Count a failure. Answers the seconds to wait before the next attempt."""
        self._failures += 1
        return seconds(self._failures, self._first, self._longest, self._jitter)

    def reset(self) -> None:
        """An attempt has succeeded: the next wait is the first again."""
        self._failures = 0

    async def wait(self) -> None:
        """Count a failure, and wait."""
        await asyncio.sleep(self.next())


class Backend:
    """A server that may be down for a while. Its users share one object, so that the log reports it once.

    :param name: for the log.
    :param down: the errors that mean "down". Their texts are logged, so they must not hold secrets.
    :param logger: gets one warning when the server is unavailable, and one line when it is back.
    """

    def __init__(self, name: str, down: tuple[type[Exception], ...], logger: logging.Logger) -> None:
        self.name = name
        self.down = down
        self._logger = logger
        self._lost_since: float | None = None
        self._away = 0.0

    @property
    def away(self) -> float:
        """Total seconds of downtime."""
        since = self._lost_since
        return self._away + (time.monotonic() - since if since is not None else 0.0)

    def failed(self, error: Exception) -> None:
        """A call raised one of ``down``."""
        if self._lost_since is None:
            self._lost_since = time.monotonic()
            self._logger.warning("%s is unavailable, retrying: %s", self.name, reason_of(error))

    def answered(self) -> None:
        """A call succeeded."""
        if self._lost_since is not None:
            self._away, self._lost_since = self.away, None
            self._logger.info("%s is back", self.name)

    async def insist(self, call: Callable[[], Awaitable[T]]) -> T:
        """Repeat ``call``, which must be safe to repeat, until the server answers. There is no time limit.

        Any error that is not one of ``down`` counts as an answer and is raised.
        """
        waits: Backoff | None = None
        while True:
            try:
                result = await call()
            except self.down as error:
                self.failed(error)
                waits = waits or Backoff(FIRST, BACKEND_LONGEST)
                await waits.wait()
            else:
                self.answered()
                obey_cancellation()
                return result
