"""The worker's metrics for Prometheus, on a port of their own. Read at scrape time."""

from __future__ import annotations

import logging
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from . import metrics_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from prometheus_client.core import Metric

    from legato.protocol.settings import Price
    from legato.worker.config import Settings
    from legato.worker.jobs.consumer import Consumer
    from legato.worker.jobs.positions import Positions

    from .counters import Histogram

    Samples = Mapping[tuple[str, ...], float]

log: Final = logging.getLogger("legato.worker")

_KINDS: Final = ("input", "output", "cache_read", "cache_write")

# name, kind, help, labels, how to read it
_COUNTS: Final[
    tuple[
        tuple[
            str,
            type[CounterMetricFamily | GaugeMetricFamily],
            str,
            tuple[str, ...],
            Callable[[Consumer], Samples],
        ],
        ...,
    ]
] = (
    (
        "legato_worker_replies_running",
        GaugeMetricFamily,
        "Running replies of the process.",
        (),
        lambda consumer: {(): consumer.running},
    ),
    (
        "legato_worker_replies",
        CounterMetricFamily,
        "Ended replies by state.",
        ("state",),
        lambda consumer: _labelled(consumer.counters.ended),
    ),
    (
        "legato_worker_failures",
        CounterMetricFamily,
        "Failed replies by code.",
        ("code",),
        lambda consumer: _labelled(consumer.counters.failed),
    ),
    (
        "legato_worker_attempts",
        CounterMetricFamily,
        "Attempts at replies: the first, and each continuation.",
        (),
        lambda consumer: {(): consumer.counters.attempts},
    ),
    (
        "legato_worker_continuations",
        CounterMetricFamily,
        "Attempts with which the process continued one of its own replies.",
        (),
        lambda consumer: {(): consumer.counters.continued},
    ),
    (
        "legato_worker_takeovers",
        CounterMetricFamily,
        "Jobs taken over from another process.",
        (),
        lambda consumer: {(): consumer.counters.handovers.takeovers},
    ),
    (
        "legato_worker_fenced_writes",
        CounterMetricFamily,
        "Writes refused because another process has claimed the message.",
        (),
        lambda consumer: {(): consumer.counters.handovers.fenced},
    ),
    (
        "legato_worker_leases_lost",
        CounterMetricFamily,
        "Replies stopped because another process has the job.",
        (),
        lambda consumer: {(): consumer.counters.handovers.leases_lost},
    ),
    (
        "legato_worker_requests_abandoned",
        CounterMetricFamily,
        "Requests to the provider that did not close in time and were left open.",
        (),
        lambda consumer: {(): consumer.counters.abandoned},
    ),
    (
        "legato_worker_provider_errors",
        CounterMetricFamily,
        "Attempts that the provider interrupted, or refused after all retries, by code.",
        ("code",),
        lambda consumer: _labelled(consumer.counters.provider_errors),
    ),
    (
        "legato_worker_tokens_published",
        CounterMetricFamily,
        "Tokens logged and published.",
        (),
        lambda consumer: {(): consumer.counters.tokens},
    ),
    (
        "legato_worker_tool_calls",
        CounterMetricFamily,
        "Results of tool calls: ok or failed.",
        ("result",),
        lambda consumer: _labelled(consumer.counters.tool_calls),
    ),
    (
        "legato_worker_parked",
        CounterMetricFamily,
        "Replies set aside until a tool call is approved or refused.",
        (),
        lambda consumer: {(): consumer.counters.parked},
    ),
    (
        "legato_worker_model_tokens",
        CounterMetricFamily,
        "Model tokens used by ended replies, over all attempts.",
        ("model", "kind"),
        lambda consumer: {
            (model, kind): getattr(used, kind)
            for model, used in dict(consumer.counters.used).items()
            for kind in _KINDS
        },
    ),
)

_HISTOGRAMS: Final[tuple[tuple[str, str, Callable[[Consumer], Histogram]], ...]] = (
    (
        "legato_worker_queue_wait_seconds",
        "From the queueing of a job to its first claim.",
        lambda consumer: consumer.counters.latencies.queue_wait,
    ),
    (
        "legato_worker_first_token_seconds",
        "From the claim to the first published token.",
        lambda consumer: consumer.counters.latencies.first_token,
    ),
    (
        "legato_worker_token_gap_seconds",
        "Between two texts of one reply from the provider.",
        lambda consumer: consumer.counters.latencies.token_gap,
    ),
    (
        "legato_worker_publish_delay_seconds",
        "From a text of the provider to its logged and published token.",
        lambda consumer: consumer.counters.latencies.publish_delay,
    ),
)

_COST: Final = "legato_worker_model_cost"

# name, help, how to read it
_ROOMS: Final[tuple[tuple[str, str, Callable[[Positions], int]], ...]] = (
    ("legato_worker_jobs_waiting", "Jobs that wait for their turn, per queue.", lambda room: room.waiting),
    (
        "legato_worker_tenants_waiting",
        "Tenants whose jobs wait for their turn, per queue.",
        lambda room: room.tenants,
    ),
)

NAMES: Final = (
    *(row[0] for row in _COUNTS),
    *(row[0] for row in _HISTOGRAMS),
    *(row[0] for row in _ROOMS),
    _COST,
)


def _labelled(counts: Mapping[str, int]) -> Samples:
    return {(label,): count for label, count in dict(counts).items()}


class ConsumerCollector(Collector):
    """Reads a process's counters at scrape time."""

    def __init__(
        self, consumer: Consumer, prices: Mapping[str, Price], rooms: Sequence[Positions] = ()
    ) -> None:
        """:param rooms: the waiting rooms of the process's queues, where admission is fair."""
        self._consumer = consumer
        self._prices = prices
        self._rooms = rooms

    def collect(self) -> Iterable[Metric]:
        """One family per row of the tables, and the cost of models with a price."""
        for name, kind, text, labels, read in _COUNTS:
            family = kind(name, text, labels=labels)
            for values, count in read(self._consumer).items():
                family.add_metric(values, count)
            yield family
        for name, text, find in _HISTOGRAMS:
            yield _histogram(name, text, find(self._consumer))
        for name, text, measure in _ROOMS if self._rooms else ():
            room_family = GaugeMetricFamily(name, text, labels=["queue"])
            for room in self._rooms:
                room_family.add_metric([room.queue], measure(room))
            yield room_family
        yield self._cost()

    def _cost(self) -> Metric:
        family = CounterMetricFamily(
            _COST, "Cost of ended replies, by the prices in the settings.", labels=["model"]
        )
        for model, used in dict(self._consumer.counters.used).items():
            if price := self._prices.get(model):
                millionths = sum(getattr(used, kind) * getattr(price, kind) for kind in _KINDS)
                family.add_metric([model], millionths / 1_000_000)
        return family


def _histogram(name: str, text: str, histogram: Histogram) -> Metric:
    family = HistogramMetricFamily(name, text)
    bounds = [*(f"{bound:g}" for bound in histogram.bounds), "+Inf"]
    family.add_metric([], list(zip(bounds, accumulate(list(histogram.counts)), strict=True)), histogram.sum)
    return family


def serve(consumer: Consumer, settings: Settings, rooms: Sequence[Positions] = ()) -> Callable[[], None]:
    """Serve ``/metrics`` from a thread once the port is free: the previous process may still have it.

    :param rooms: see :class:`ConsumerCollector`.
    :returns: a function that stops it.
    """
    registry = CollectorRegistry()
    registry.register(ConsumerCollector(consumer, settings.provider.prices, rooms))
    host, port = settings.worker.metrics_host, settings.worker.metrics_port
    try:
        return metrics_server.serve_when_free(registry, host, port, log)[1]
    except OSError as error:
        log.warning("no metrics: port %d of %s: %s", port, host, error.strerror)
        return lambda: None
