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
from .orders import Join, Lane, Publish, Tokens
from .result import Delivery, Phase, rounded, waits
from .schedule import MICRO, now
from .watch import Watch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from .agents import Generators
    from .orders import Counts
    from .probe import Usage
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
    """How much.

    :ivar rate: per second: events, or connections where those are measured.
    :ivar size: characters of an event's data.
    :ivar publishers: HTTP connections that publish.
    """

    connections: int
    rate: float
    seconds: float
    size: int
    publishers: int


@dataclass
class Run:
    """The context of a scenario.

    :ivar pids: of the server; empty if not known.
    :ivar redis: of the Redis behind it, which is not the server.
    :ivar left_out: phases that cannot be run here, and what they need.
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
        """The first moment of a schedule; until then is not counted as time of the phase."""
        self._lead = LEAD / MICRO
        return now() + LEAD

    def streams(self, channels: Sequence[str]) -> list[tuple[int, str]]:
        """A stream on each channel, with a number that no other stream of the run has."""
        first, self._streams = self._streams, self._streams + len(channels)
        return list(enumerate(channels, first))

    async def come(self, order: Join) -> None:
        """Clients subscribe, unmeasured.

        :raises BenchmarkError: not all could.
        """
        await self.generators.reset()
        await self.generators.join(order)
        counts = await self.generators.figures()
        if counts.failed:
            raise BenchmarkError(f"{self.scenario}: {counts.joined} of {order.count} got in: {counts.failed}")

    async def publish(self, streams: Sequence[tuple[int, str]], rate: float) -> int:
        """Publish over as many connections as the sizes say. A stream keeps to one of them, for its order.

        :param rate: of all together; 0: as fast as answers come.
        :return: events that the server has accepted.
        """
        count = min(self.sizes.publishers, len(streams))
        lanes = [Lane(list(streams[i::count]), rate / count, i / count) for i in range(count)]
        order = Publish(lanes, self.begin(), self.sizes.seconds, self.sizes.size)
        return sum((await self.generators.publish(order)).values())

    async def write(self, rate: float) -> int:
        """Write tokens of the messages that were claimed; ``rate`` is of all together.

        :return: tokens that Redis has.
        """
        order = Tokens(self.begin(), self.sizes.seconds, rate, self.sizes.size)
        return sum((await self.generators.write(order)).values())

    async def phase(
        self,
        name: str,
        work: Awaitable[int],
        figures: Callable[[Measured], dict[str, float]],
        *,
        receivers: int = 0,
    ) -> Phase:
        """Measure ``work``, which answers how many events were accepted.

        :param figures: of what was measured.
        :param receivers: of each event.
        """
        await self.generators.reset()
        self._lead = 0.0
        watch = Watch(self.generators, self.pids, self.live, f"{self.scenario}: {name}")
        async with watch:
            sent = await work
            counts = await self._settled(sent * receivers)
        if receivers:
            counts = await self._surplus()
        measured = Measured(counts, sent, watch.seconds - self._lead, watch.server, watch.generators)
        found = self._phase(name, measured, figures(measured), watch)
        if receivers:
            found.delivery = Delivery(sent * receivers, counts.received, counts.gaps, counts.backwards)
            found.faults += faults_of(found.delivery)
        self.phases.append(found)
        return found

    async def _settled(self, expected: int) -> Counts:
        """The counts when all have come, or nothing more comes."""
        counts, progress = await self.generators.figures(), time.monotonic()
        while counts.received < expected and time.monotonic() - progress < GRACE:
            await asyncio.sleep(POLL)
            latest = await self.generators.figures()
            if latest.received > counts.received:
                progress = time.monotonic()
            counts = latest
        return counts

    async def _surplus(self) -> Counts:
        """The counts a moment later: what comes twice comes after all else has."""
        await asyncio.sleep(2 * POLL)
        return await self.generators.figures()

    async def settled(self) -> Counts:
        """The counts once nothing has changed for a while."""
        counts = await self.generators.figures()
        for _ in range(round(GRACE / QUIET)):
            await asyncio.sleep(QUIET)
            before, counts = counts, await self.generators.figures()
            if counts == before:
                break
        return counts

    def _phase(self, name: str, measured: Measured, figures: dict[str, float], watch: Watch) -> Phase:
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
    """Buckets by their greatest value: whoever reads the JSON need not know how they are numbered."""
    return {greatest(number): count for number, count in sorted(counts.items())}


def faults_of(delivery: Delivery) -> list[str]:
    """In words, what did not come as it must."""
    faults = []
    if delivery.received != delivery.expected:
        faults.append(f"{delivery.received} deliveries came of {delivery.expected}")
    if delivery.gaps or delivery.backwards:
        faults.append(f"{delivery.gaps} events left out and {delivery.backwards} out of order or repeated")
    return faults


@dataclass(frozen=True)
class Measured:
    """One phase in numbers. ``server`` is None where its processes are not known."""

    counts: Counts
    sent: int
    seconds: float
    server: Usage | None
    generators: Sequence[Usage]

    def waits(self, name: str) -> dict[str, float]:
        """Percentiles of a histogram, as figures."""
        return waits(name, histogram(self.counts, name))

    def cost(self, of: str, count: int) -> dict[str, float]:
        """Processor time of the server for each of ``count``."""
        if self.server is None or not count:
            return {}
        return {f"server_cpu_us_per_{of}": self.server.cpu * 1e6 / count}

    def deliveries(self) -> dict[str, float]:
        """The figures of events that came."""
        found = {"deliveries_per_second": self.counts.received / self.seconds}
        if self.server and self.server.cpu:
            found["deliveries_per_server_cpu_second"] = self.counts.received / self.server.cpu
        return found | self.waits("latency") | self.cost("delivery", self.counts.received)

    def requests(self) -> dict[str, float]:
        """The figures of events that were sent."""
        found = {"requests_per_second": self.counts.sent / self.seconds}
        return found | self.waits("request") | self.cost("request", self.counts.sent)

    def connections(self) -> dict[str, float]:
        """The figures of clients that came."""
        found = {"connections_per_second": self.counts.joined / self.seconds}
        found |= self.waits("connected") | self.waits("subscribed")
        return found | self.cost("connection", self.counts.joined)

    def of_machine(self, peak: float) -> dict[str, float]:
        """What tells whether the rest may be believed. ``peak``: memory of the server, in MiB."""
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
