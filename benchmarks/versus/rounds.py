"""Measures the servers in turn, round by round, so that changes of the machine affect all alike."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec

from legato.benchmarks.errors import BenchmarkError
from legato.benchmarks.load import markdown, probe
from legato.benchmarks.load.run import ScenarioRun

from .contestants import SOKETI
from .measures import IDLE, LATENCY, ROUND, in_turn
from .rates import RATES, best, sustained
from .rows import Seen

if TYPE_CHECKING:
    from collections.abc import Mapping

    from legato.benchmarks.load.agents import Generators
    from legato.benchmarks.load.result import Phase
    from legato.benchmarks.load.run import Sizes
    from legato.benchmarks.load.watch import Live

    from .contestants import RunningServer
    from .measures import Measure

LOOK: Final = 0.3
IDLE_CPU: Final = 0.02
"""Processor time of all servers within :data:`LOOK`, in seconds, up to which they count as idle."""

CALM_SECONDS: Final = 20.0


@dataclass
class Rounds:
    """The results so far.

    :ivar limit: time-out of one measurement at one server, in seconds.
    :ivar rates: the phases that determined the rate. Losses in them mean that the rate was too high.
    :ivar rate: the determined rate; None without soketi, or if it sustained none.
    """

    generators: Generators
    live: Live
    quick: bool
    limit: int
    seen: list[Seen] = field(default_factory=list)
    rates: list[Phase] = field(default_factory=list)
    rate: float | None = None

    async def idle(self, servers: Mapping[str, RunningServer], connections: int) -> None:
        """Measure memory on fresh servers."""
        sizes = IDLE.quick if self.quick else msgspec.structs.replace(IDLE.sizes, connections=connections)
        for name in IDLE.servers:
            if name in servers:
                await self._see(1, IDLE, servers, name, sizes)

    async def look_for_rate(self, servers: Mapping[str, RunningServer]) -> None:
        """Determine the rate that soketi sustains."""
        if SOKETI not in servers:
            return
        for rate in RATES:
            sizes = msgspec.structs.replace(self._sizes(LATENCY), rate=rate)
            phase = (await self._run(LATENCY, servers, SOKETI, sizes))[0]
            self.rates.append(phase)
            kept = "sustained" if sustained(phase) else "not sustained"
            self.live.say(f"{SOKETI} at {rate}/s: {kept}; {markdown.line(phase)}")
        self.rate = best(self.rates)

    async def round(self, number: int, servers: Mapping[str, RunningServer]) -> None:
        """Run each measurement at each of its servers."""
        for measure in ROUND:
            sizes = self._sizes(measure)
            if measure is LATENCY:
                if self.rate is None:
                    continue
                sizes = msgspec.structs.replace(sizes, rate=self.rate)
            for name in in_turn(measure, number):
                if name in servers:
                    await self._see(number, measure, servers, name, sizes)

    def _sizes(self, measure: Measure) -> Sizes:
        return measure.quick if self.quick else measure.sizes

    async def _see(
        self, number: int, measure: Measure, servers: Mapping[str, RunningServer], name: str, sizes: Sizes
    ) -> None:
        for phase in await self._run(measure, servers, name, sizes):
            self.seen.append(Seen(number, name, phase))
            self.live.say(f"round {number}, {name + ':':<20} {markdown.line(phase)}")

    async def _run(
        self, measure: Measure, servers: Mapping[str, RunningServer], name: str, sizes: Sizes
    ) -> list[Phase]:
        server = servers[name]
        await self._calm(servers)
        await self.generators.aim(server.target)
        run = ScenarioRun(measure.name, self.generators, sizes, server.pids, self.live, server.redis)
        try:
            async with asyncio.timeout(self.limit):
                await measure.work(run, server)
        except TimeoutError:
            raise BenchmarkError(f"{name}, {measure.name}: not done after {self.limit} s") from None
        except BenchmarkError as error:
            raise BenchmarkError(f"{name}: {error}", error.status) from error
        await self.generators.leave()
        return run.phases

    async def _calm(self, servers: Mapping[str, RunningServer]) -> None:
        """Wait until all servers are idle, because they share a core."""
        pids = [pid for server in servers.values() for pid in server.pids]
        until, then = time.monotonic() + CALM_SECONDS, probe.usage(pids)
        while time.monotonic() < until:
            await asyncio.sleep(LOOK)
            before, then = then, probe.usage(pids)
            if then.cpu - before.cpu <= IDLE_CPU:
                return
