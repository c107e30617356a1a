"""Waiting longer each time, and not giving up."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

log: Final = logging.getLogger("legato.worker")

T = TypeVar("T")


def delays(first: float, ceiling: float) -> Iterator[float]:
    """Seconds to wait, doubling from ``first`` up to ``ceiling``; half of each is random."""
    bound = first
    while True:
        yield bound / 2 + random.uniform(0, bound / 2)  # noqa: S311 - spreads load, keeps no secret
        bound = min(bound * 2, ceiling)


async def insist(
    call: Callable[[], Awaitable[T]], on: tuple[type[Exception], ...], what: str, *, ceiling: float = 5.0
) -> T:
    """Repeat ``call`` until it does not raise one of ``on``. It must be safe to repeat.

    Says so in the log when the trouble begins and when it is over.
    """
    for failures, delay in enumerate(delays(0.1, ceiling)):
        try:
            result = await call()
        except on as error:
            if not failures:
                log.warning("%s unavailable, trying on: %s", what, one_line(error))
            await asyncio.sleep(delay)
        else:
            if failures:
                log.info("%s available again", what)
            return result
    raise AssertionError("delays() does not end")


def one_line(error: BaseException) -> str:
    """The error in one line, by its type where it has no text."""
    return " ".join(str(error).split()) or type(error).__name__
