"""Runs work that Ctrl-C ends in order: its processes are stopped, and what is known can still be written."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")

INTERRUPTED: Final = 128 + signal.SIGINT
"""Exit status after Ctrl-C, as shells have it."""

SAME_SECONDS: Final = 1.0
"""Signals that come this soon after the first are the same Ctrl-C: `timeout` and `make` pass it on, too."""


class _Interrupt:
    """The first Ctrl-C cancels the task, a later one ends the process at once."""

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self._task = task
        self.at: float | None = None

    def __call__(self) -> None:
        now = time.monotonic()
        if self.at is None:
            self.at = now
            # What is cut off on the way out is no news.
            self._task.get_loop().set_exception_handler(lambda *_: None)
            self._task.cancel()
        elif now - self.at > SAME_SECONDS:
            os._exit(INTERRUPTED)  # children have a leash


def run(work: Coroutine[Any, Any, T]) -> T:
    """As :func:`asyncio.run`.

    :raises KeyboardInterrupt: after Ctrl-C, once the work has ended what it had started.
    """
    interrupt: _Interrupt | None = None

    async def main() -> T:
        nonlocal interrupt
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - this is one
        if threading.current_thread() is threading.main_thread():
            interrupt = _Interrupt(task)
            asyncio.get_running_loop().add_signal_handler(signal.SIGINT, interrupt)
        return await work

    try:
        return asyncio.run(main())
    except BaseException as error:
        if interrupt is not None and interrupt.at is not None:
            raise KeyboardInterrupt from error  # whatever failed on the way out
        raise
