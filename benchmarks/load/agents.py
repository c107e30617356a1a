"""Controls the processes of the load generators."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import msgspec

import legato.deploy.leash
from legato.benchmarks.errors import BenchmarkError
from legato.benchmarks.stage import end

from .histogram import BucketCounts
from .orders import (
    Aim,
    ClaimMessages,
    Finish,
    GeneratorCounts,
    Join,
    Leave,
    OrderRequest,
    OrderResponse,
    Publish,
    ReadCounts,
    Reset,
    Resume,
    WriteTokens,
)
from .schedule import MICRO

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from .orders import LoadTarget, Order

NUMBERS: Final = (
    "received",
    "gaps",
    "backwards",
    "aside",
    "aside_gaps",
    "aside_backwards",
    "members",
    "joined",
    "sent",
)
LONGEST_LINE: Final = 64 * 1024 * 1024


class AgentProcess:
    """One process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.pid = process.pid
        self._process = process
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._number = 0
        self._listening = asyncio.create_task(self._listen())

    async def ask(self, order: Order) -> Any:
        """Send an order and return the answer.

        :raises BenchmarkError: it failed, or the process has ended.
        """
        stdin = self._process.stdin
        if stdin is None or self._listening.done():
            raise BenchmarkError("a generator has ended")
        self._number += 1
        number = self._number
        future = self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            stdin.write(msgspec.json.encode(OrderRequest(number, order)) + b"\n")
            return await future
        finally:
            self._asked.pop(number, None)

    async def _listen(self) -> None:
        while self._process.stdout and (line := await self._process.stdout.readline()):
            self._on_answer(msgspec.json.decode(line, type=OrderResponse))
        said = await self._process.stderr.read() if self._process.stderr else b""
        lines = said.decode(errors="replace").strip().splitlines()
        for future in self._asked.values():
            if not future.done():
                future.set_exception(BenchmarkError(f"a generator has ended: {lines[-1:] or 'silently'}"))

    def _on_answer(self, answer: OrderResponse) -> None:
        future = self._asked.get(answer.id)
        if future is None or future.done():
            return
        if answer.error:
            future.set_exception(BenchmarkError(answer.error))
        else:
            future.set_result(answer.value)

    async def close(self) -> None:
        """End it."""
        self._listening.cancel()
        await asyncio.wait({self._listening})
        await end(self._process)


class Generators:
    """All processes together: ``readers`` hold clients, ``publishers`` post events."""

    def __init__(self, readers: Sequence[AgentProcess], publishers: Sequence[AgentProcess]) -> None:
        self.readers, self.publishers = readers, publishers
        self.everyone = [*readers, *publishers]
        self.target: LoadTarget | None = None
        self._writers: Sequence[AgentProcess] = ()

    async def aim(self, target: LoadTarget) -> None:
        """Set the server for all further orders."""
        await self._all(Aim(target))
        self.target = target

    async def reset(self) -> None:
        """Reset all counts."""
        await self._all(Reset())

    async def read_on(self) -> None:
        """Make stalled clients read again."""
        await self._all(Resume())

    async def leave(self) -> None:
        """Disconnect all clients."""
        await self._all(Leave())

    async def join(self, order: Join) -> None:
        """Divide the clients of ``order``, and its rate, over the processes."""
        await asyncio.gather(
            *(
                agent.ask(part)
                for agent, part in zip(self.readers, shares(order, len(self.readers)), strict=True)
                if part.count
            )
        )

    async def publish(self, order: Publish) -> dict[int, int]:
        """Divide the lanes over the processes. Returns the accepted events of each stream."""
        count = len(self.publishers)
        parts = [msgspec.structs.replace(order, lanes=order.lanes[i::count]) for i in range(count)]
        answers = await asyncio.gather(
            *(agent.ask(part) for agent, part in zip(self.publishers, parts, strict=True) if part.lanes)
        )
        return {int(stream): int(sent) for answer in answers for stream, sent in answer.items()}

    async def claim(self, streams: Sequence[tuple[int, str]]) -> None:
        """Divide the messages over the processes, and claim them."""
        self._writers = writers = self.publishers[: len(streams)]
        await asyncio.gather(
            *(agent.ask(ClaimMessages(list(streams[i :: len(writers)]))) for i, agent in enumerate(writers))
        )

    async def write(self, order: WriteTokens) -> dict[int, int]:
        """Divide a rate over the processes with messages. Returns the tokens of each stream."""
        count = len(self._writers)
        answers = await asyncio.gather(
            *(
                agent.ask(msgspec.structs.replace(order, rate=order.rate / count, offset=i / count))
                for i, agent in enumerate(self._writers)
            )
        )
        return {int(stream): int(written) for answer in answers for stream, written in answer.items()}

    async def finish(self) -> None:
        """End the messages."""
        await asyncio.gather(*(agent.ask(Finish()) for agent in self._writers))

    async def figures(self) -> GeneratorCounts:
        """The sum of all counts."""
        answers = await asyncio.gather(*(agent.ask(ReadCounts()) for agent in self.everyone))
        return together(
            msgspec.convert(answer, GeneratorCounts, str_keys=True, strict=False) for answer in answers
        )

    async def _all(self, order: Order) -> None:
        await asyncio.gather(*(agent.ask(order) for agent in self.everyone))


def shares(order: Join, count: int) -> list[Join]:
    """Split ``order`` into ``count`` parts with the same clients, at the same times if it has a rate."""
    parts, first = [], order.first
    for number in range(count):
        size = len(range(number, order.count, count))
        delay = round(number * MICRO / order.rate) if order.rate else 0
        parts.append(
            msgspec.structs.replace(
                order, first=first, count=size, rate=order.rate / count, begin=order.begin + delay
            )
        )
        first += size
    return parts


def together(parts: Iterable[GeneratorCounts]) -> GeneratorCounts:
    """Add up counts."""
    total = GeneratorCounts(failed={}, lost={}, refused={}, histograms={})
    for part in parts:
        for name in NUMBERS:
            setattr(total, name, getattr(total, name) + getattr(part, name))
        for name in ("failed", "lost", "refused"):
            _add(getattr(total, name), getattr(part, name))
        for name, counts in part.histograms.items():
            _add(total.histograms.setdefault(name, {}), counts)
    return total


def _add(total: dict[Any, int], part: dict[Any, int]) -> None:
    for name, count in part.items():
        total[name] = total.get(name, 0) + count


def histogram(counts: GeneratorCounts, name: str) -> BucketCounts:
    """One of the histograms; empty if nothing was counted."""
    return BucketCounts(counts.histograms.get(name))


@asynccontextmanager
async def generators(readers: int, publishers: int, cores: Sequence[int] = ()) -> AsyncIterator[Generators]:
    """Run this many processes until the block ends.

    :param cores: the cores that they may use; all if empty.
    """
    async with AsyncExitStack() as stack:
        agents = []
        for _ in range(readers + publishers):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, legato.deploy.leash.__file__, str(os.getpid())),
                *(sys.executable, "-P", "-m", "legato.benchmarks.load.agent"),
                process_group=0,  # Ctrl-C is for this process, which ends the others
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                limit=LONGEST_LINE,
            )
            if cores:
                os.sched_setaffinity(process.pid, cores)
            agent = AgentProcess(process)
            stack.push_async_callback(agent.close)
            agents.append(agent)
        yield Generators(agents[:readers], agents[readers:])
