"""Controls the process of :mod:`.readers`."""

from __future__ import annotations

import asyncio
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import msgspec

from .errors import BenchmarkError
from .readers import ReadersOrder, ReplyReading
from .stage import APP_KEY, end

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from .stage import BenchmarkStage

LONGEST_LINE: Final = 64 * 1024 * 1024


class Audience:
    """The readers' process and its results so far.

    :ivar pid: pid of the process.
    :ivar began: ids of replies whose first token arrived.
    :ivar readings: results of ended replies, by id.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.pid = process.pid
        self.began: set[str] = set()
        self.readings: dict[str, ReplyReading] = {}
        self._process = process
        self._news = asyncio.Event()
        self._listening: asyncio.Task[None] | None = None

    async def greet(self, order: ReadersOrder) -> None:
        """Send the order, and wait until all readers have subscribed.

        :raises BenchmarkError: they cannot subscribe.
        """
        stdin = self._process.stdin
        if stdin is None:
            raise BenchmarkError("the process of the readers has no standard input")
        stdin.write(msgspec.json.encode(order) + b"\n")
        await stdin.drain()
        if b"ready" not in await self._line():
            raise BenchmarkError(await self._reason())
        self._listening = asyncio.create_task(self._listen())

    async def until_ended(self, count: int) -> None:
        """Wait until this many replies have ended in all.

        :raises BenchmarkError: the readers have ended.
        """
        await self._until(lambda: len(self.readings) >= count)

    async def until_begun(self, count: int) -> None:
        """Wait until this many replies have begun in all.

        :raises BenchmarkError: the readers have ended.
        """
        await self._until(lambda: len(self.began) >= count)

    async def _until(self, reached: Any) -> None:
        while not reached():
            if self._listening is None or self._listening.done():
                raise BenchmarkError(await self._reason())
            self._news.clear()
            await self._news.wait()

    async def _listen(self) -> None:
        try:
            while line := await self._line():
                told: dict[str, Any] = msgspec.json.decode(line)
                if "began" in told:
                    self.began.add(told["began"])
                else:
                    reading = msgspec.convert(told, ReplyReading)
                    self.readings[reading.id] = reading
                self._news.set()
        finally:
            self._news.set()

    async def _line(self) -> bytes:
        return await self._process.stdout.readline() if self._process.stdout else b""

    async def _reason(self) -> str:
        said = await self._process.stderr.read() if self._process.stderr else b""
        lines = said.decode(errors="replace").strip().splitlines()
        return f"the readers have ended: {lines[-1] if lines else 'they say nothing'}"

    async def close(self) -> None:
        """End the process."""
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.wait({self._listening})
        await end(self._process)


@asynccontextmanager
async def audience(stage: BenchmarkStage, users: Sequence[str]) -> AsyncIterator[Audience]:
    """Start a subscribed reader for each user.

    :raises BenchmarkError: they cannot subscribe.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "legato.benchmarks.readers"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=LONGEST_LINE,
    )
    readers = Audience(process)
    try:
        await readers.greet(ReadersOrder(f"ws://127.0.0.1:{stage.port}", APP_KEY, stage.secret, list(users)))
        yield readers
    finally:
        await readers.close()
