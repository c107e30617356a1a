"""Reads the loop delay of a broadcaster from its metrics."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import httpx2
from prometheus_client.parser import text_string_to_metric_families

from legato.benchmarks.errors import BenchmarkError
from legato.benchmarks.load.scenarios import subscribe_all, to_all
from legato.benchmarks.load.schedule import MICRO

if TYPE_CHECKING:
    from collections.abc import Mapping

    from legato.benchmarks.load.run import ScenarioRun

    from .contestants import RunningServer

METRIC: Final = "legato_loop_delay_seconds"

Buckets = dict[float, float]
"""Buckets of a Prometheus histogram: upper bound in seconds -> number of values up to it."""


def parse(text: str) -> Buckets:
    """The buckets of :data:`METRIC`, over all labels; empty without any."""
    found: Buckets = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples if family.name == METRIC else ():
            if sample.name.endswith("_bucket"):
                bound = float(sample.labels["le"])
                found[bound] = found.get(bound, 0.0) + sample.value
    return dict(sorted(found.items()))


def between(after: Mapping[float, float], before: Mapping[float, float]) -> Buckets:
    """The difference of two readings."""
    return {bound: count - before.get(bound, 0.0) for bound, count in after.items()}


def quantile(share: float, buckets: Mapping[float, float]) -> float | None:
    """The quantile ``share``, as Prometheus estimates it: values evenly spread within a bucket.

    None without values; infinite beyond the last bound, so that it passes no limit.
    """
    bounds = sorted(buckets)
    total = buckets[bounds[-1]] if bounds else 0.0
    if not total:
        return None
    rank, lower, below = share * total, 0.0, 0.0
    for bound in bounds:
        if buckets[bound] >= rank:
            if math.isinf(bound):
                return math.inf
            inside = buckets[bound] - below
            return lower + (bound - lower) * ((rank - below) / inside if inside else 1.0)
        lower, below = bound, buckets[bound]
    return math.inf


def counts(buckets: Mapping[float, float]) -> dict[int, int]:
    """The form of histograms in results: counts by upper bound in microseconds; 0 for the last bucket."""
    found, below = {}, 0.0
    for bound in sorted(buckets):
        if buckets[bound] > below:
            found[0 if math.isinf(bound) else round(bound * MICRO)] = round(buckets[bound] - below)
        below = buckets[bound]
    return found


async def read(url: str) -> Buckets:
    """The buckets now.

    :raises BenchmarkError: the broadcaster does not answer.
    """
    try:
        async with httpx2.AsyncClient(trust_env=False, timeout=30) as client:
            answer = await client.get(url)
    except httpx2.HTTPError as error:
        raise BenchmarkError(f"{url}: {type(error).__name__}") from error
    return parse(answer.text)


async def flushes(run: ScenarioRun, server: RunningServer) -> None:
    """Publish paced events to all subscribers, and measure the loop delay meanwhile."""
    await subscribe_all(run)
    before = await read(server.metrics) if server.metrics else {}
    await to_all(run, "paced", run.sizes.rate)
    phase = run.phases[-1]
    found = between(await read(server.metrics), before) if server.metrics else {}
    p99 = quantile(0.99, found)
    if p99 is None:
        phase.warnings.append(f"{METRIC} is not among the server's figures")
        return
    phase.histograms["loop_delay"] = counts(found)
    if math.isinf(p99):
        phase.warnings.append("p99 of the loop's delay is beyond the last bucket")
    else:
        phase.figures["loop_delay_p99_ms"] = round(p99 * 1000, 3)
