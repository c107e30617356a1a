"""Measures one phase of a scenario: deliveries, costs, and reasons to doubt them."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec

from legato.benchmarks.errors import BenchmarkError

from .agents import histogram
from .histogram import greatest
from .orders import Join, Lane, Publish, WriteTokens
from .result import DeliveryFigures, Phase, rounded, waits
from .schedule import MICRO, now
from .watch import PhaseWatch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from .agents import Generators
    from .orders import GeneratorCounts
    from .probe import ProcessUsage
    from .watch import Live

LEAD: Final = 200_000
"""Microseconds from an order to the start of its schedule, so that all generators have received it."""

GRACE: Final = 10.0
"""Seconds without progress after which missing events count as lost."""

POLL: Final = 0.05
QUIET: Final = 0.4
BUSY: Final = 0.9
"""Share of a core from which a generator may be the bottleneck."""

WAITED: Final = 0.05
LATE_MS: Final = 5.0


class Sizes(msgspec.Struct, frozen=True):
    """The sizes of a phase.

    :ivar rate: events per second, or connections per second where those are measured.
    :ivar size: characters of an event's data.
    :ivar publishers: HTTP connections that publish.
    """

    connections: int
    rate: float
    seconds: float
    size: int
    publishers: int


@dataclass
class ScenarioRun:
    """The context of a scenario.

    :ivar pids: processes of the server; empty if not known.
    :ivar redis: processes of its Redis, which are not counted as the server's.
    :ivar left_out: phases that this server does not support, and what they need.
    """

    scenario: str
    generators: Generators
    sizes: Sizes
    pids: Sequence[int]
    live: Live
    redis: Sequence[int] = ()
    phases: list[Phase] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    _streams: int = 0
    _lead: float = 0.0

    def begin(self) -> int:
        """The start of a schedule. The time until then does not count as time of the phase."""
        self._lead = LEAD / MICRO
        return now() + LEAD

    def streams(self, channels: Sequence[str]) -> list[tuple[int, str]]:
        """A stream on each channel, with a number that is unique in the run."""
        first, self._streams = self._streams, self._streams + len(channels)
        return list(enumerate(channels, first))

    async def come(self, order: Join) -> None:
        """Subscribe clients without measuring it.

        :raises BenchmarkError: one of them could not subscribe.
        """
        await self.generators.reset()
        await self.generators.join(order)
        counts = await self.generators.figures()
        if counts.failed:
            raise BenchmarkError(f"{self.scenario}: {counts.joined} of {order.count} got in: {counts.failed}")

    async def publish(self, streams: Sequence[tuple[int, str]], rate: float) -> int:
        """Publish over ``sizes.publishers`` connections. A stream stays on one of them, for its order.

        :param rate: of all connections together; 0: as fast as answers come.
        :return: accepted events.
        """
        count = min(self.sizes.publishers, len(streams))
        lanes = [Lane(list(streams[i::count]), rate / count, i / count) for i in range(count)]
        order = Publish(lanes, self.begin(), self.sizes.seconds, self.sizes.size)
        return sum((await self.generators.publish(order)).values())

    async def write(self, rate: float) -> int:
        """Write tokens of the claimed messages; ``rate`` is that of all together.

        :return: accepted tokens.
        """
        order = WriteTokens(self.begin(), self.sizes.seconds, rate, self.sizes.size)
        return sum((await self.generators.write(order)).values())

    async def phase(
        self,
        name: str,
        work: Awaitable[int],
        figures: Callable[[Measured], dict[str, float]],
        *,
        receivers: int = 0,
    ) -> Phase:
        """Measure ``work``, which returns the number of accepted events.

        :param figures: computes the figures of the phase.
        :param receivers: number of clients that receive each event.
        """
        await self.generators.reset()
        self._lead = 0.0
        watch = PhaseWatch(self.generators, self.pids, self.live, f"{self.scenario}: {name}")
        async with watch:
            sent = await work
            counts = await self._settled(sent * receivers)
        if receivers:
            counts = await self._surplus()
        measured = Measured(counts, sent, watch.seconds - self._lead, watch.server, watch.generators)
        found = self._phase(name, measured, figures(measured), watch)
        if receivers:
            found.delivery = DeliveryFigures(sent * receivers, counts.received, counts.gaps, counts.backwards)
            found.faults += faults_of(found.delivery)
        self.phases.append(found)
        return found

    async def _settled(self, expected: int) -> GeneratorCounts:
        """The counts when all events have arrived, or no more arrive."""
        counts, progress = await self.generators.figures(), time.monotonic()
        while counts.received < expected and time.monotonic() - progress < GRACE:
            await asyncio.sleep(POLL)
            latest = await self.generators.figures()
            if latest.received > counts.received:
                progress = time.monotonic()
            counts = latest
        return counts

    async def _surplus(self) -> GeneratorCounts:
        """The counts a moment later, because a duplicate would arrive after everything else."""
        await asyncio.sleep(2 * POLL)
        return await self.generators.figures()

    async def settled(self) -> GeneratorCounts:
        """The counts when they have not changed for a while."""
        counts = await self.generators.figures()
        for _ in range(round(GRACE / QUIET)):
            await asyncio.sleep(QUIET)
            before, counts = counts, await self.generators.figures()
            if counts == before:
                break
        return counts

    def _phase(self, name: str, measured: Measured, figures: dict[str, float], watch: PhaseWatch) -> Phase:
        counts = measured.counts
        figures |= measured.of_machine(watch.peak)
        reasons = {name: getattr(counts, name) for name in ("failed", "lost", "refused")}
        return Phase(
            self.scenario,
            name,
            msgspec.structs.asdict(self.sizes),
            round(measured.seconds, 3),
            {key: rounded(value) for key, value in figures.items()},
            None,
            [f"{kind}: {found}" for kind, found in reasons.items() if found],
            measured.warnings(),
            {key: _by_value(found) for key, found in counts.histograms.items()},
            watch.timeline,
            {kind: found for kind, found in reasons.items() if found},
        )


def _by_value(counts: Mapping[int, int]) -> dict[int, int]:
    """Counts by the upper bound of each bucket, so that readers of the JSON need not know their numbers."""
    return {greatest(number): count for number, count in sorted(counts.items())}


def faults_of(delivery: DeliveryFigures) -> list[str]:
    """The violations, in words."""
    faults = []
    if delivery.received != delivery.expected:
        faults.append(f"{delivery.received} deliveries came of {delivery.expected}")
    if delivery.gaps or delivery.backwards:
        faults.append(f"{delivery.gaps} events left out and {delivery.backwards} out of order or repeated")
    return faults


@dataclass(frozen=True)
class Measured:
    """The measurements of one phase. ``server`` is None if its processes are not known."""

    counts: GeneratorCounts
    sent: int
    seconds: float
    server: ProcessUsage | None
    generators: Sequence[ProcessUsage]

    def waits(self, name: str) -> dict[str, float]:
        """Percentiles of a histogram, as figures."""
        return waits(name, histogram(self.counts, name))

    def cost(self, of: str, count: int) -> dict[str, float]:
        """Processor time of the server, divided by ``count``."""
        if self.server is None or not count:
            return {}
        return {f"server_cpu_us_per_{of}": self.server.cpu * 1e6 / count}

    def deliveries(self) -> dict[str, float]:
        """The figures of received events."""
        found = {"deliveries_per_second": self.counts.received / self.seconds}
        if self.server and self.server.cpu:
            found["deliveries_per_server_cpu_second"] = self.counts.received / self.server.cpu
        return found | self.waits("latency") | self.cost("delivery", self.counts.received)

    def requests(self) -> dict[str, float]:
        """The figures of sent events."""
        found = {"requests_per_second": self.counts.sent / self.seconds}
        return found | self.waits("request") | self.cost("request", self.counts.sent)

    def connections(self) -> dict[str, float]:
        """The figures of clients that connected."""
        found = {"connections_per_second": self.counts.joined / self.seconds}
        found |= self.waits("connected") | self.waits("subscribed")
        return found | self.cost("connection", self.counts.joined)

    def of_machine(self, peak: float) -> dict[str, float]:
        """Figures about the measurement itself. ``peak``: memory of the server, in MiB."""
        found = {"generator_cpu_percent": self._busiest() * 100}
        late = histogram(self.counts, "late")
        if late.counts:
            found["generator_late_p99_ms"] = late.percentile(99) / 1000
        if self.server is not None:
            found["server_cpu_percent"] = self.server.cpu / self.seconds * 100
            found["server_waited_percent"] = self.server.waited / self.seconds * 100
            found["server_mib"] = peak
        return found

    def _busiest(self) -> float:
        return max((usage.cpu / self.seconds for usage in self.generators), default=0.0)

    def warnings(self) -> list[str]:
        """Reasons why the figures may not reflect the server."""
        found = []
        if (busiest := self._busiest()) >= BUSY:
            found.append(
                f"a generator had {busiest:.0%} of a core: it may be what is measured here, not the server. "
                "More --generators or --publisher-processes, on cores of their own, will tell"
            )
        if (late := histogram(self.counts, "late").percentile(99) / 1000) > LATE_MS:
            found.append(f"the generator was late in sending (p99 {late:.1f} ms), and latency has that in it")
        if self.server is None:
            found.append("what the server costs is not known: --pid names its processes")
        elif (waited := self.server.waited / self.seconds) > WAITED:
            found.append(f"the server waited {waited:.0%} of the time for a core that others had")
        return found
