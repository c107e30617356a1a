"""Waiting for conditions that nothing announces, with a time limit.

The limits are bounds for a machine that is slow, busy and runs under coverage; none is what a test measures.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

WAIT = 60.0
"""Seconds that a condition may take; far more than any needs."""

INTERVAL = 0.005
"""Seconds between two looks. Whoever asks Redis or another process each time may take longer steps."""


async def until(condition: Callable[[], Any], seconds: float = WAIT, interval: float = INTERVAL) -> None:
    """Wait until ``condition()`` is true, or what it answers when awaited.

    :raises TimeoutError: it has not become true in time; also where the condition itself hangs.
    """
    async with asyncio.timeout(seconds):
        while True:
            holds = condition()
            if await holds if asyncio.iscoroutine(holds) else holds:
                return
            await asyncio.sleep(interval)


def wait_until(
    condition: Callable[[], object], seconds: float = WAIT, interval: float = INTERVAL, what: str = ""
) -> None:
    """As :func:`until`, without an event loop.

    :param what: what is waited for, for the error.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds} s{f': {what}' if what else ''}")
        time.sleep(interval)
