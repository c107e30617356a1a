"""A terminal that tests can read: a file, and the real console that writes to it."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.console import Console

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


async def until(condition: Callable[[], object], seconds: float = 15) -> None:
    """Wait for a condition, and fail when it does not come."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        await asyncio.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not yet waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Screen:
    """``console``, and what it has written so far."""

    def __init__(self, path: Path, console: Console) -> None:
        self.console = console
        self._path = path
        self._marks = 0

    @property
    def text(self) -> str:
        return self._path.read_text()

    async def shows(self, text: str, times: int = 1) -> None:
        """Wait until ``text`` is there."""
        try:
            await until(lambda: self.text.count(text) >= times)
        except AssertionError:
            raise AssertionError(f"{text!r} is not in:\n{self.text}") from None

    async def settled(self) -> None:
        """Wait until all is written that was given to the console before."""
        self._marks += 1
        mark = f"(mark {self._marks})"
        self.console.print(mark)
        await self.shows(mark)

    def value(self, name: str) -> int:
        """The number after the last ``name=``."""
        return int(self.text.rpartition(f"{name}=")[2].split()[0])


@contextmanager
def screen(path: Path, *names: str) -> Iterator[Screen]:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    console = Console(fd, names, colour=False)
    try:
        yield Screen(path, console)
    finally:
        console.close()
        os.close(fd)
