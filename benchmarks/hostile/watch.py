"""Observes the attacked node from outside: its process, its log, and the leases in Redis."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from redis.exceptions import RedisError

from legato.benchmarks import proc
from legato.benchmarks.errors import BenchmarkError

from . import tasks

if TYPE_CHECKING:
    from typing import Self

    from redis.asyncio import Redis

LOOK_EVERY: Final = 0.05
LEASES: Final = "*lease:{*"
MIB: Final = 1024 * 1024

_TRACEBACK: Final = re.compile(rb"^(Traceback .*|.* CRITICAL .*)$", re.MULTILINE)


def threads(pid: int) -> int:
    """How many a process has; 0 if it has ended."""
    with suppress(OSError):
        return sum(1 for _ in Path(f"/proc/{pid}/task").iterdir())
    return 0


def resident(pid: int) -> float:
    """Memory of a process in MiB."""
    return proc.use(pid).resident / 1024


class NodeLog:
    """The log of a node from now on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._begin = path.stat().st_size

    def since(self) -> bytes:
        """All of it."""
        with self._path.open("rb") as file:
            file.seek(self._begin)
            return file.read()

    def lines(self) -> int:
        """How many lines."""
        return self.since().count(b"\n")

    def failures(self) -> list[str]:
        """Tracebacks in it."""
        return [
            f"in the log: {line.decode(errors='replace')[:200]}" for line in _TRACEBACK.findall(self.since())
        ]


async def leases(redis: Redis) -> set[str]:
    """The names of all leases.

    :raises RedisError: Redis does not answer.
    """
    return {_text(key) async for key in redis.scan_iter(LEASES, count=1000)}


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


class NodeWatch:
    """Observes the node within a block.

    :ivar grown: growth of the attacked node's memory, in MiB.
    :ivar lease: shortest remaining time of a lease, in milliseconds.
    :ivar faults: an ended node, a lost lease.
    """

    def __init__(self, redis: Redis, held: set[str], pid: int) -> None:
        self._redis, self._held, self._pid = redis, held, pid
        self._before, self._threads = resident(pid), threads(pid)
        self._cpu = proc.use(pid).cpu
        self._tasks: list[asyncio.Task[None]] = []
        self.grown = 0.0
        self.threads = 0
        self.lease = float("inf")
        self.faults: list[str] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._process()), asyncio.create_task(self._leases())]
        return self

    async def __aexit__(self, *_: object) -> None:
        await tasks.end(self._tasks)

    @property
    def cpu(self) -> float:
        """CPU time in seconds since the start of the block; 0 if the process has ended."""
        with suppress(BenchmarkError):
            return proc.use(self._pid).cpu - self._cpu
        return 0.0

    async def given_back(self, limit: float, seconds: float) -> float:
        """Wait until the memory growth is below ``limit``, with a time limit; returns the growth."""
        with suppress(TimeoutError, BenchmarkError):
            async with asyncio.timeout(seconds):
                while resident(self._pid) - self._before > limit:  # noqa: ASYNC110 - nothing announces it
                    await asyncio.sleep(LOOK_EVERY)
        with suppress(BenchmarkError):
            return max(0.0, resident(self._pid) - self._before)
        return 0.0

    async def _process(self) -> None:
        while True:
            try:
                self.grown = max(self.grown, resident(self._pid) - self._before)
            except BenchmarkError:
                self.faults.append("the attacked node has ended")
                return
            self.threads = max(self.threads, threads(self._pid) - self._threads)
            await asyncio.sleep(LOOK_EVERY)

    async def _leases(self) -> None:
        while True:
            try:
                async with self._redis.pipeline(transaction=False) as pipeline:
                    for key in self._held:
                        pipeline.get(key)
                        pipeline.pttl(key)
                    answers = await pipeline.execute()
                names = await leases(self._redis)
            except RedisError as error:
                self.faults.append(f"Redis does not answer: {error}")
                return
            if self._lost(answers) or names != self._held:
                self.faults.append("a node has lost its lease")
                return
            self.lease = min(self.lease, *answers[1::2])
            await asyncio.sleep(LOOK_EVERY)

    @staticmethod
    def _lost(answers: list[str | bytes | int | None]) -> bool:
        return any(
            value is None or _text(value) == "gone" for value in answers[::2] if not isinstance(value, int)
        )
