"""Controls the processes of :mod:`.crowd`."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from .errors import BenchmarkError
from .stage import end

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from .crowd import CrowdOrder


class Crowd:
    """One process of clients."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def come(self, order: CrowdOrder) -> None:
        """Wait until all clients have subscribed.

        :raises BenchmarkError: one cannot.
        """
        await self._tell(msgspec.json.encode(order))

    async def received(self) -> int:
        """Number of channel events that all clients have received."""
        return int((await self._tell(b"?"))["received"])

    async def _tell(self, line: bytes) -> dict[str, Any]:
        stdin, stdout, stderr = self._process.stdin, self._process.stdout, self._process.stderr
        if stdin is None or stdout is None or stderr is None:
            raise BenchmarkError("the process of the clients has no standard input")
        stdin.write(line + b"\n")
        await stdin.drain()
        if answer := await stdout.readline():
            told: dict[str, Any] = msgspec.json.decode(answer)
            return told
        said = (await stderr.read()).decode(errors="replace").strip().splitlines()
        raise BenchmarkError(f"a crowd has ended: {said[-1] if said else 'it says nothing'}")

    async def go(self) -> None:
        """Disconnect all clients at once."""
        await end(self._process)


@asynccontextmanager
async def crowds(orders: Sequence[CrowdOrder]) -> AsyncIterator[list[Crowd]]:
    """Start a process for each order, and wait until all clients have subscribed.

    :raises BenchmarkError: one cannot.
    """
    async with AsyncExitStack() as stack:
        started = []
        for _ in orders:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "legato.benchmarks.crowd"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            stack.push_async_callback(end, process)
            started.append(Crowd(process))
        await asyncio.gather(*(crowd.come(order) for crowd, order in zip(started, orders, strict=True)))
        yield started
