"""Cancels tasks reliably."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection

AGAIN: Final = 0.5
"""Seconds after which a task is cancelled again: redis-py may swallow a cancellation."""


async def end(tasks: Collection[asyncio.Task[None]]) -> None:
    """Cancel all tasks until they have ended."""
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=AGAIN)
