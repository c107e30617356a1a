"""What the tests of this package share: a terminal that can be read, ports, waiting.

Times are bounds for a machine that is slow and busy, and runs under coverage: none is what is being tested.
"""

from __future__ import annotations

import os
import random
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from legato.deploy import ports
from legato.deploy.console import Console
from tests.waiting import until

SECONDS = 60.0
"""For anything that happens at once on a machine that has nothing else to do."""

if TYPE_CHECKING:
    from collections.abc import Iterator


def quiet_port(neighbours: int = 0) -> int:
    """A free port, with as many free ones after it, that the kernel gives to nobody who does not ask for it.

    Those it hands out itself, on Linux from 32768 on, may go to another test's connection before that.
    """
    for _ in range(1000):
        port = random.randrange(12_000, 32_000)
        if all(ports.is_free("127.0.0.1", port + index) for index in range(neighbours + 1)):
            return port
    raise AssertionError("no port is free")


def unmeasured() -> dict[str, str]:
    """The environment for programs of the tests' own: coverage would only make them slow."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}


def finish(console: Console) -> None:
    """Close it, and see that its thread is gone before its descriptor is: the number may be used again."""
    console.close(SECONDS)
    assert not console._thread.is_alive()


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
        finish(console)
        os.close(fd)
