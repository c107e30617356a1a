"""Runs attacks one after the other, and measures their effects on others."""

from __future__ import annotations

import asyncio
import math
import os
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol
from urllib.request import urlopen

import msgspec

import legato.deploy.leash
from legato.benchmarks import stage
from legato.benchmarks.errors import BenchmarkError
from legato.benchmarks.program import limited
from legato.benchmarks.versus import loop_delay

from . import verdict
from .arena import AttackOrder, AttackOutcome
from .scene import NODES, scene
from .verdict import AttackRow, waits
from .watch import NodeLog, NodeWatch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from .attack import Attack
    from .scene import Scene
    from .verdict import HostileLimits

ATTACKER: Final = (sys.executable, "-P", "-m", "legato.benchmarks.hostile.attacker")
BYTES_PER_SECOND: Final = 128 << 20
START_SECONDS: Final = 30.0
EXTRA_SECONDS: Final = 15.0
"""Grace period of an attacker after its time, because it may wait for the server."""

AFTER_SECONDS: Final = 0.5
"""Observation after the end of an attack, because the closing of its connections is part of it."""

ATTACK_SECONDS: Final = 1200.0
"""Time-out of an attack with everything before and after it."""

METRICS_SECONDS: Final = 30.0
RETURN_SECONDS: Final = 5.0
"""Time for the node to release memory."""


class HostilePlan(NamedTuple):
    """The options of a run.

    :ivar redis: the Redis to run.
    :ivar seconds: duration of each attack. ``quiet``: of the quiet run before it.
    """

    redis: str
    seconds: float
    quiet: float
    tls: bool
    limits: HostileLimits


class Attacker:
    """The process of an attack. Ends with the block."""

    def __init__(self, order: AttackOrder) -> None:
        self._order = order
        self._process: asyncio.subprocess.Process | None = None

    async def ready(self) -> None:
        """Start it, and wait until it is ready.

        :raises BenchmarkError: it fails.
        """
        self._process = process = await asyncio.create_subprocess_exec(
            *(sys.executable, legato.deploy.leash.__file__, str(os.getpid()), *ATTACKER),
            process_group=0,  # Ctrl-C is for this process, which ends the others
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdin is not None  # noqa: S101 - asked for above
        process.stdin.write(msgspec.json.encode(self._order) + b"\n")
        await process.stdin.drain()
        await self._line(START_SECONDS)

    def begin(self) -> None:
        """Begin the attack."""
        assert self._process is not None  # noqa: S101 - it is ready
        assert self._process.stdin is not None  # noqa: S101 - asked for above
        self._process.stdin.write(b"begin\n")

    async def outcome(self) -> AttackOutcome:
        """Wait for its end and return the outcome.

        :raises BenchmarkError: it has failed.
        """
        return msgspec.json.decode(await self._line(self._order.seconds + EXTRA_SECONDS), type=AttackOutcome)

    async def end(self) -> None:
        """Close its connections and end the process."""
        if self._process is not None:
            if self._process.stdin is not None:
                self._process.stdin.close()
            await stage.end(self._process)

    async def _line(self, seconds: float) -> bytes:
        assert self._process is not None  # noqa: S101 - it has begun
        assert self._process.stdout is not None  # noqa: S101 - asked for above
        line = b""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                line = await self._process.stdout.readline()
        if not line:
            raise BenchmarkError(f"{self._order.attack}: the attacking process has failed")
        return line


def order_of(attack: Attack, on: Scene, plan: HostilePlan) -> AttackOrder:
    """The order for the process of an attack."""
    seconds = plan.seconds * attack.times
    return AttackOrder(
        attack.name,
        *(on.stage.port, on.metrics_port, stage.APP_ID, stage.APP_KEY, on.stage.secret),
        scale=plan.seconds,
        seconds=seconds,
        max_bytes=round(BYTES_PER_SECOND * seconds),
        tls=plan.tls,
    )


async def attacked(attack: Attack, on: Scene, plan: HostilePlan) -> AttackRow:
    """Carry out an attack and measure its effects.

    :raises BenchmarkError: it could not be carried out.
    """
    attacker = Attacker(order_of(attack, on, plan))
    try:
        return await measured(attack, on, plan, attacker)
    finally:
        await attacker.end()


class Work(Protocol):
    """The work on the first node while others are observed."""

    async def ready(self) -> None:
        """Prepare it."""

    def begin(self) -> None:
        """Begin at once."""

    async def outcome(self) -> AttackOutcome:
        """Wait until it is done."""

    async def end(self) -> None:
        """Let go of everything."""


async def measured(attack: Attack, on: Scene, plan: HostilePlan, work: Work) -> AttackRow:
    """Observe others during a quiet run, during ``work``, and until everything has recovered."""
    log, delay = NodeLog(on.log), await _loop(on)
    await on.others.settled(time.monotonic())
    quiet = time.monotonic()
    await asyncio.sleep(plan.quiet)
    async with NodeWatch(on.redis, on.leases, on.pid) as watch:
        calm = time.monotonic()
        await work.ready()
        begin = time.monotonic()
        work.begin()
        outcome = await work.outcome()
        well = await on.others.settled(time.monotonic())
        await work.end()
        await asyncio.sleep(AFTER_SECONDS)
        end = time.monotonic()
        well = well and await on.others.settled(end)
        kept = await watch.given_back(_limits(attack, plan).kept, RETURN_SECONDS)
    found = on.others.faults() + watch.faults + log.failures()
    if not well:
        found.append("something that was due during the attack did not come within a minute")
    row = _row(attack, outcome, on, (quiet, calm, begin, end))
    row.lease = -1.0 if math.isinf(watch.lease) else watch.lease
    row.grown, row.kept = round(watch.grown, 1), round(kept, 1)
    row.threads, row.cpu = watch.threads, round(watch.cpu, 2)
    row.loop_p99, row.log_lines = _p99(await _loop(on), delay), log.lines()
    row.faults = list(dict.fromkeys(found)) + verdict.faults(row, _limits(attack, plan))
    return row


def _row(
    attack: Attack, outcome: AttackOutcome, on: Scene, moments: tuple[float, float, float, float]
) -> AttackRow:
    """The measurements of the others. ``moments``: begin and end of the quiet run and of the attack."""
    quiet, calm, begin, end = moments
    others = on.others
    nodes = [
        [sample for one in others.observers if one.place.node == node for sample in one.pings]
        for node in range(NODES)
    ]
    answers = [sample for one in others.publishers for sample in one.answers]
    late = [sample for one in others.observers for sample in one.late]
    return AttackRow(
        *(attack.name, attack.group, round(end - begin, 2), round(outcome.sent / 1e6, 1), outcome.opened),
        quiet=waits([*nodes[0], *nodes[1]], quiet, calm),
        attacked=waits(nodes[0], begin, end),
        other=waits(nodes[1], begin, end),
        publish=waits(answers, begin, end),
        newcomer=waits(others.newcomers.greetings, begin, end),
        late=waits(late, begin, end).longest,
    )


def _limits(attack: Attack, plan: HostilePlan) -> HostileLimits:
    if not attack.memory:
        return plan.limits
    return msgspec.structs.replace(plan.limits, grown=attack.memory, kept=attack.memory)


async def _loop(on: Scene) -> loop_delay.Buckets | None:
    """The loop delay of the attacked node; None if it does not answer. Read in a thread."""

    def read() -> loop_delay.Buckets:
        with urlopen(on.metrics, timeout=METRICS_SECONDS) as answer:  # noqa: S310 - of our own node
            return loop_delay.parse(answer.read().decode())

    with suppress(OSError):
        return await asyncio.to_thread(read)
    return None


def _p99(after: loop_delay.Buckets | None, before: loop_delay.Buckets | None) -> float:
    if after is None or before is None:
        return -1.0
    found = loop_delay.quantile(0.99, loop_delay.between(after, before))
    return -1.0 if found is None or math.isinf(found) else round(found * 1000, 1)


async def rows(attacks: Sequence[Attack], plan: HostilePlan) -> AsyncIterator[AttackRow]:
    """Run the attacks. After a failed one, the next gets new servers.

    :raises BenchmarkError: the servers do not start, or an attack cannot be carried out.
    """
    left = list(attacks)
    while left:
        async with scene(plan.redis, tls=plan.tls) as on:
            while left:
                async with limited(ATTACK_SECONDS):
                    row = await attacked(left.pop(0), on, plan)
                yield row
                if row.faults:
                    break
