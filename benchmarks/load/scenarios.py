"""The scenarios of ``legato bench``."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from legato.protocol.stream import chat_channel

from . import probe
from .orders import Join
from .result import DeliveryFigures
from .run import Measured, ScenarioRun, Sizes, faults_of
from .watch import MIB

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from .result import Phase

MEMBER: Final = '{"user_id":"user-{}","user_info":{"name":"Somebody {}"}}'

WARM: Final = 100
"""Connections before memory is read, so that one-time allocations of the server do not count."""

STALLED_SHARE: Final = 10
"""One in this many readers stalls."""

STAY: Final = 1.0
"""Seconds that a client stays in ``churn``."""


async def fanout(run: ScenarioRun) -> None:
    """All clients subscribe to one channel."""
    await fanout_paced(run)
    await to_all(run, "flat out", 0.0)


async def fanout_paced(run: ScenarioRun) -> None:
    """The first phase: publish to all as fast as answers come."""
    await subscribe_all(run)
    await to_all(run, "paced", run.sizes.rate)


async def subscribe_all(run: ScenarioRun) -> None:
    """Subscribe all clients to the channel of :func:`to_all`."""
    await run.come(Join(0, run.sizes.connections, "bench-fanout"))


async def to_all(run: ScenarioRun, name: str, rate: float) -> None:
    """Publish to all of them; ``rate`` as in :meth:`.run.ScenarioRun.publish`."""
    work = run.publish(run.streams(["bench-fanout"] * run.sizes.publishers), rate)
    await run.phase(name, work, _delivered, receivers=run.sizes.connections)


async def streams(run: ScenarioRun) -> None:
    """A private channel for each user; events go to each in turn."""
    count = run.sizes.connections
    await run.come(Join(0, count, "private-user-{}"))
    work = run.publish(run.streams([f"private-user-{number}" for number in range(count)]), run.sizes.rate)
    await run.phase("over HTTP", work, _delivered, receivers=1)
    if run.generators.target is None or not run.generators.target.redis_url:
        run.left_out.append("streams: through Redis (runs with --over-redis)")
        return
    await run.generators.leave()
    await asyncio.sleep(0.5)
    await streams_through_redis(run)


async def streams_through_redis(run: ScenarioRun) -> None:
    """A reply to each user, with tokens written as a worker writes them."""
    count = run.sizes.connections
    # Readers first: a subscriber of a running reply would get a snapshot of it.
    await run.come(Join(0, count, chat_channel("user-{}")))
    await run.generators.claim(run.streams([f"user-{number}" for number in range(count)]))
    before = probe.usage(run.redis)

    def figures(measured: Measured) -> dict[str, float]:
        spent = probe.usage(run.redis).cpu - before.cpu
        of_redis = (
            {"redis_cpu_us_per_token": spent * 1e6 / measured.sent} if run.redis and measured.sent else {}
        )
        return measured.deliveries() | of_redis

    await run.phase("through Redis", run.write(run.sizes.rate), figures, receivers=1)
    await run.generators.finish()


async def connect(run: ScenarioRun) -> None:
    """Clients connect at a rate; then as many connect as fast as possible."""
    for name, rate in (("ramp", run.sizes.rate), ("storm", 0.0)):
        await run.phase(name, _arrive(run, rate), Measured.connections)
        await run.generators.leave()
        await asyncio.sleep(0.5)


async def _arrive(run: ScenarioRun, rate: float) -> int:
    begin = run.begin() if rate else 0
    await run.generators.join(Join(0, run.sizes.connections, "private-user-{}", rate=rate, begin=begin))
    return 0


async def idle(run: ScenarioRun) -> None:
    """Clients subscribe and stay idle."""
    count = run.sizes.connections
    warm = min(WARM, count // 2)
    await run.come(Join(0, warm, "private-user-{}"))
    await asyncio.sleep(1)
    server, kernel = probe.usage(run.pids), probe.kernel()
    await run.come(Join(warm, count - warm, "private-user-{}"))

    async def rest() -> int:
        await asyncio.sleep(run.sizes.seconds)
        return 0

    def figures(_measured: Measured) -> dict[str, float]:
        grown, of_kernel = probe.usage(run.pids).resident - server.resident, probe.kernel()
        new = count - warm
        found = {
            "kernel_tcp_bytes_per_connection": max(0, of_kernel.tcp - kernel.tcp) / new,
            "kernel_slab_bytes_per_connection": max(0, of_kernel.slab - kernel.slab) / new,
        }
        return ({"server_bytes_per_connection": grown / new} if run.pids else {}) | found

    await run.phase("held", rest(), figures)


async def publish(run: ScenarioRun) -> None:
    """Publish over HTTP without subscribers."""
    channels = [f"bench-publish-{number}" for number in range(run.sizes.publishers)]
    for name, rate in (("paced", run.sizes.rate), ("flat out", 0.0)):
        await run.phase(name, run.publish(run.streams(channels), rate), Measured.requests)


async def presence(run: ScenarioRun) -> None:
    """All clients join one presence channel at once; each must be told of each."""
    count = run.sizes.connections

    async def storm() -> int:
        await run.generators.join(Join(0, count, "presence-bench", MEMBER))
        for _ in range(200):
            if (await run.generators.figures()).members >= count * count:
                break
            await asyncio.sleep(0.05)
        return 0

    found = await run.phase("join storm", storm(), Measured.connections)
    known = (await run.generators.figures()).members
    found.delivery = DeliveryFigures(count * count, known, 0, 0)
    found.faults += faults_of(found.delivery)


async def churn(run: ScenarioRun) -> None:
    """Clients come and go on a channel while its other subscribers follow a stream."""
    count, seconds = run.sizes.connections, run.sizes.seconds
    await run.come(Join(0, count, "bench-churn"))
    visits = max(1, round(seconds * max(1.0, count / 4)))

    async def both() -> int:
        guests = Join(
            count, visits, "bench-churn", rate=visits / seconds, begin=run.begin(), stay=STAY, late=True
        )
        channels = ["bench-churn"] * run.sizes.publishers
        sent, _ = await asyncio.gather(
            run.publish(run.streams(channels), run.sizes.rate), run.generators.join(guests)
        )
        return sent

    def figures(measured: Measured) -> dict[str, float]:
        counts = measured.counts
        return _delivered(measured) | {"newcomers": counts.joined, "newcomer_events": counts.aside}

    found = await run.phase("comings and goings", both(), figures, receivers=count)
    counts = await run.generators.figures()
    if counts.aside_gaps or counts.aside_backwards:
        found.faults.append(f"newcomers: {counts.aside_gaps} left out, {counts.aside_backwards} out of order")


async def slow(run: ScenarioRun) -> None:
    """Some readers stall; the others must not be affected."""
    stalled = max(1, run.sizes.connections // STALLED_SHARE)
    healthy = max(1, run.sizes.connections - stalled)
    await run.come(Join(0, healthy, "bench-slow"))
    await run.come(Join(healthy, stalled, "bench-slow", stalled=True))
    server = probe.usage(run.pids)

    work = run.publish(run.streams(["bench-slow"] * run.sizes.publishers), run.sizes.rate)
    found = await run.phase("some stall", work, _delivered, receivers=healthy)
    if run.pids and found.timeline:
        grown = max(moment.server_mib for moment in found.timeline) - server.resident / MIB
        found.figures["server_mib_grown"] = round(max(0.0, grown), 1)
    await _read_on(run, found)


async def _read_on(run: ScenarioRun, found: Phase) -> None:
    """Let the stalled readers read: they must get what was sent before they were closed, in order."""
    await run.generators.read_on()
    counts = await run.settled()
    found.figures |= {"stalled_closed": sum(counts.lost.values()), "stalled_events": counts.aside}
    if counts.lost:
        found.reasons["lost"] = counts.lost
    if counts.aside_gaps or counts.aside_backwards:
        found.faults.append(
            f"stalled readers: {counts.aside_gaps} left out, {counts.aside_backwards} out of order"
        )


def _delivered(measured: Measured) -> dict[str, float]:
    found = measured.deliveries()
    return found | {
        name: value for name, value in measured.requests().items() if not name.startswith("server_")
    }


class Scenario(NamedTuple):
    """One scenario. ``quick``: the sizes of ``--quick``.

    :ivar usual: its number of phases; ``with_redis``: of further ones, which need a Redis.
    """

    summary: str
    run: Callable[[ScenarioRun], Awaitable[None]]
    sizes: Sizes
    quick: Sizes
    usual: int = 1
    with_redis: int = 0

    def phases(self, *, over_redis: bool) -> int:
        """Its number of phases."""
        return self.usual + (self.with_redis if over_redis else 0)


SCENARIOS: Final[Mapping[str, Scenario]] = {
    "fanout": Scenario(
        "one channel with N subscribers; R events/s, then as fast as HTTP answers come",
        fanout,
        Sizes(1000, 100, 10, 200, 32),
        Sizes(40, 50, 0.8, 100, 4),
        2,
    ),
    "streams": Scenario(
        "N users with a private channel each; R events/s in all, over HTTP as Laravel sends them, then "
        "(only with --over-redis) through Redis as a worker sends them",
        streams,
        Sizes(1000, 1000, 10, 200, 32),
        Sizes(40, 100, 0.8, 100, 4),
        with_redis=1,
    ),
    "connect": Scenario(
        "N clients connect, R a second, each with a private subscription; then N as fast as possible",
        connect,
        Sizes(2000, 200, 10, 200, 1),
        Sizes(40, 100, 0.5, 100, 1),
        2,
    ),
    "idle": Scenario(
        "N clients subscribe and stay idle: memory of the server and of the kernel per connection",
        idle,
        Sizes(5000, 1, 5, 200, 1),
        Sizes(100, 1, 0.6, 100, 1),
    ),
    "publish": Scenario(
        "HTTP alone, to channels without subscribers; R requests/s, then as fast as answers come",
        publish,
        Sizes(1, 500, 10, 200, 32),
        Sizes(1, 100, 0.8, 100, 4),
        2,
    ),
    "presence": Scenario(
        "N users join one presence channel at once; each must be told of each",
        presence,
        Sizes(500, 1, 10, 200, 1),
        Sizes(20, 1, 0.5, 100, 1),
    ),
    "churn": Scenario(
        "R events/s on a channel with N subscribers, while N / 4 others a second join for a second",
        churn,
        Sizes(200, 50, 10, 200, 8),
        Sizes(20, 50, 0.8, 100, 4),
    ),
    "slow": Scenario(
        "R events/s on a channel with N subscribers, of which one in ten stops reading",
        slow,
        Sizes(100, 200, 10, 8000, 8),
        Sizes(20, 100, 0.8, 2000, 4),
    ),
}


def sized(name: str, wanted: Mapping[str, float | None], *, quick: bool) -> Sizes:
    """The default sizes of a scenario, replaced by the requested ones."""
    usual = SCENARIOS[name].quick if quick else SCENARIOS[name].sizes
    return msgspec.structs.replace(
        usual, **{key: value for key, value in wanted.items() if value is not None}
    )
