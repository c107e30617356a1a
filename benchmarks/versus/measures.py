"""The measurements: their scenarios, servers and sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from legato.benchmarks.load.run import Sizes
from legato.benchmarks.load.scenarios import SCENARIOS, fanout_paced, streams_through_redis

from .contestants import BASELINE, LEGATO, OVER_REDIS, SOKETI
from .loop_delay import flushes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from legato.benchmarks.load.run import ScenarioRun

    from .contestants import RunningServer

    Work = Callable[[ScenarioRun, RunningServer], Awaitable[None]]

IDLE_CONNECTIONS: Final = 15_000
FLUSH_CONNECTIONS: Final = 10_000


class Measure(NamedTuple):
    """One measurement. ``quick``: its sizes with ``--quick``."""

    name: str
    work: Work
    servers: tuple[str, ...]
    sizes: Sizes
    quick: Sizes


def _of(run_it: Callable[[ScenarioRun], Awaitable[None]]) -> Work:
    def work(run: ScenarioRun, _server: RunningServer) -> Awaitable[None]:
        return run_it(run)

    return work


def _scenario(name: str) -> Work:
    return _of(SCENARIOS[name].run)


FANOUT: Final = Sizes(1000, 100, 10, 200, 32)
QUICK: Final = Sizes(20, 50, 0.4, 100, 2)

LATENCY: Final = Measure("latency", _of(fanout_paced), (LEGATO, SOKETI), FANOUT, QUICK)
"""Runs at a rate that is determined first."""

ROUND: Final = (
    Measure("fanout", _scenario("fanout"), (LEGATO, BASELINE, SOKETI), FANOUT, QUICK),
    LATENCY,
    Measure("publish", _scenario("publish"), (LEGATO, SOKETI), SCENARIOS["publish"].sizes, QUICK),
    Measure(
        "streams",
        _of(streams_through_redis),
        (OVER_REDIS,),
        Sizes(1000, 10_000, 10, 200, 1),
        Sizes(20, 200, 0.4, 100, 1),
    ),
    Measure(
        "connect",
        _scenario("connect"),
        (LEGATO, BASELINE, SOKETI),
        SCENARIOS["connect"].sizes,
        Sizes(20, 200, 0.4, 100, 1),
    ),
    Measure(
        "flushes", flushes, (LEGATO,), Sizes(FLUSH_CONNECTIONS, 2, 10, 200, 2), Sizes(50, 10, 0.4, 100, 2)
    ),
)
"""The measurements of each round, in this order."""

IDLE: Final = Measure(
    "idle",
    _scenario("idle"),
    (LEGATO, BASELINE, SOKETI),
    Sizes(IDLE_CONNECTIONS, 1, 5, 200, 1),
    Sizes(40, 1, 0.2, 100, 1),
)
"""Measured once, on freshly started servers: memory of earlier clients would distort it."""


def in_turn(measure: Measure, number: int) -> tuple[str, ...]:
    """Its servers in the order of round ``number``; every second round is reversed."""
    return measure.servers if number % 2 else measure.servers[::-1]
