"""What is needed wherever something outside is waited for."""

from __future__ import annotations

import asyncio
import re
from typing import Final

RETRY_SECONDS: Final = (0.1, 0.25, 0.5, 1.0, 2.0)
"""Pauses before one tries again; the last one again and again."""


async def end_task(task: asyncio.Task[None]) -> None:
    """Cancel until it takes: before Python 3.12, ``wait_for`` inside redis-py can drop a cancellation."""
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=0.1)


_OF_A_PIPELINE: Final = re.compile(
    r"Command # \d+ \(.*\) of pipeline caused error: \((['\"])(.*)\1,\)", re.DOTALL
)
"""redis-py puts the command in front, with what a user has said among its arguments."""


def reason_of(error: BaseException) -> str:
    """One line without credentials: redis-py names hosts and ports in its errors, never passwords."""
    text = str(error)
    if piped := _OF_A_PIPELINE.fullmatch(text):
        text = piped[2]
    return text.splitlines()[0] if text else type(error).__name__
