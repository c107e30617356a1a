"""Cancelling tasks that talk to Redis.

redis-py sends through :func:`asyncio.wait_for`, which before Python 3.12 drops a cancellation that arrives in
the same iteration of the loop in which the sending is done. The task would run on.
"""

from __future__ import annotations

import asyncio


async def end_task(task: asyncio.Task[None]) -> None:
    """Cancel ``task`` and wait for its end. Repeats the cancellation until it takes effect."""
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=0.1)


def obey_cancellation() -> None:
    """Raise CancelledError if the running task was cancelled.

    Call it after a round trip, which may have dropped the cancellation, and where a CancelledError may be one
    that somebody's code has raised by itself.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
