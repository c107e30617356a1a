"""What is needed wherever something outside is waited for."""

from __future__ import annotations

import asyncio
from typing import Final

RETRY_SECONDS: Final = (0.1, 0.25, 0.5, 1.0, 2.0)
"""Pauses before one tries again; the last one again and again."""


async def end_task(task: asyncio.Task[None]) -> None:
    """Cancel until it takes: before Python 3.12, ``wait_for`` inside redis-py can drop a cancellation."""
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=0.1)


def reason_of(error: BaseException) -> str:
    """One line without credentials: redis-py names hosts and ports in its errors, never passwords."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
