"""Prometheus metrics. Hot paths count with plain integers, which the collector reads at scrape time."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from . import metrics_server
from .loop_delay import BOUNDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from prometheus_client.core import Metric

    from legato.broadcaster.node import Node

    Samples = Mapping[tuple[str, ...], float]

# name, kind, help, labels, how to read it
_FIGURES: Final[
    tuple[
        tuple[
            str,
            type[CounterMetricFamily | GaugeMetricFamily],
            str,
            tuple[str, ...],
            Callable[[Node], Samples],
        ],
        ...,
    ]
] = (
    (
        "legato_connections",
        GaugeMetricFamily,
        "Open connections, over WebSocket or HTTP.",
        ("app",),
        lambda node: {(app,): count for app, count in dict(node.connections.by_app).items()},
    ),
    (
        "legato_connections_accepted",
        CounterMetricFamily,
        "Connections accepted since the start.",
        (),
        lambda node: {(): node.connections.accepted},
    ),
    (
        "legato_connections_refused",
        CounterMetricFamily,
        "Handshakes refused, by Pusher error code.",
        ("code",),
        lambda node: {(str(code),): count for code, count in dict(node.connections.refused).items()},
    ),
    (
        "legato_slow_connections",
        GaugeMetricFamily,
        "Slow connections at present: they read more slowly than they are written to.",
        (),
        lambda node: {(): node.connections.slow},
    ),
    (
        "legato_slow_connections_closed",
        CounterMetricFamily,
        "Connections closed because their queue was full, or they read nothing for too long.",
        (),
        lambda node: {(): node.connections.slow_closed},
    ),
    (
        "legato_channels",
        GaugeMetricFamily,
        "Channels with a subscriber on this node.",
        (),
        lambda node: {(): len(node.hub)},
    ),
    (
        "legato_subscriptions",
        GaugeMetricFamily,
        "Subscriptions of clients to channels on this node.",
        (),
        lambda node: {(): node.subscriptions.open},
    ),
    (
        "legato_subscriptions_refused",
        CounterMetricFamily,
        "Subscriptions refused because the process has reached its limit.",
        (),
        lambda node: {(): node.subscriptions.refused},
    ),
    (
        "legato_messages",
        CounterMetricFamily,
        "Messages fanned out on this node.",
        (),
        lambda node: {(): node.fanout.messages},
    ),
    (
        "legato_deliveries",
        CounterMetricFamily,
        "Messages handed to subscribers: one per message and subscriber.",
        (),
        lambda node: {(): node.fanout.deliveries},
    ),
    (
        "legato_writes",
        CounterMetricFamily,
        "Socket writes of the fan-out. Deliveries per write shows how well writes are joined.",
        (),
        lambda node: {(): node.fanout.writes},
    ),
    (
        "legato_bus_gaps",
        CounterMetricFamily,
        "Lost connections to the bus; messages may be missing after each.",
        (),
        lambda node: {(): node.bus.gaps},
    ),
    (
        "legato_bus_gap_channels",
        CounterMetricFamily,
        "Channels that may have missed messages in a gap of the bus, counted once per gap.",
        (),
        lambda node: {(): node.recovery.channels},
    ),
    (
        "legato_healed_tokens",
        CounterMetricFamily,
        "Tokens that the bus had lost, read from the log, counted once per channel.",
        (),
        lambda node: {(): node.healer.tokens if node.healer is not None else 0},
    ),
    (
        "legato_healed_endings",
        CounterMetricFamily,
        "Terminal events that the bus had lost, made from the log.",
        (),
        lambda node: {(): node.healer.endings if node.healer is not None else 0},
    ),
    (
        "legato_heals_failed",
        CounterMetricFamily,
        "Replies that are no longer forwarded, because the log lacks what the bus has lost.",
        (),
        lambda node: {(): node.healer.failed if node.healer is not None else 0},
    ),
    (
        "legato_healed_rosters",
        CounterMetricFamily,
        "Member lists of presence channels that were sent again, because changes may have been lost.",
        (),
        lambda node: {(): node.member_lists.told},
    ),
    (
        "legato_healed_cached_events",
        CounterMetricFamily,
        "Last events of cache channels that the bus had lost, read again.",
        (),
        lambda node: {(): node.cached.read},
    ),
    (
        "legato_http_requests",
        CounterMetricFamily,
        "HTTP requests answered.",
        ("route", "status"),
        lambda node: {(route, str(status)): count for (route, status), count in dict(node.requests).items()},
    ),
    (
        "legato_client_events",
        CounterMetricFamily,
        "Client events relayed from this node's clients.",
        (),
        lambda node: {(): node.client_events.relayed},
    ),
    (
        "legato_webhooks_sent",
        CounterMetricFamily,
        "Webhook events that a receiver has accepted.",
        (),
        lambda node: {(): node.webhooks.sent},
    ),
    (
        "legato_webhooks_failed",
        CounterMetricFamily,
        "Webhook requests that were not accepted, every attempt counted.",
        (),
        lambda node: {(): node.webhooks.failed},
    ),
    (
        "legato_webhooks_dropped",
        CounterMetricFamily,
        "Webhook events dropped after the last attempt, or because the queue was full.",
        (),
        lambda node: {(): node.webhooks.dropped},
    ),
    (
        "legato_webhooks_waiting",
        GaugeMetricFamily,
        "Webhook events that are queued or in flight.",
        (),
        lambda node: {(): node.webhooks.waiting},
    ),
    (
        "legato_chat_jobs",
        CounterMetricFamily,
        "Chat messages queued for the worker.",
        (),
        lambda node: {(): node.replies.submitted if node.replies is not None else 0},
    ),
)

_LOOP_DELAY: Final = "legato_loop_delay_seconds"

NAMES: Final = (*(row[0] for row in _FIGURES), _LOOP_DELAY)


class NodeCollector(Collector):
    """Reads a node's counters at scrape time."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def collect(self) -> Iterable[Metric]:
        """Yield one family per row of the table, and the histogram."""
        for name, kind, text, labels, read in _FIGURES:
            family = kind(name, text, labels=labels)
            for values, count in read(self._node).items():
                family.add_metric(values, count)
            yield family
        yield _loop_delay(self._node)


def _loop_delay(node: Node) -> Metric:
    family = HistogramMetricFamily(_LOOP_DELAY, "How late due callbacks of the event loop run.")
    bounds = [*(f"{bound:g}" for bound in BOUNDS), "+Inf"]
    counts = accumulate(list(node.loop_delay.counts))
    family.add_metric([], list(zip(bounds, counts, strict=True)), node.loop_delay.sum)
    return family


def serve(node: Node) -> tuple[int, Callable[[], None]]:
    """Serve ``/metrics`` on a separate port, in a separate thread.

    :returns: the port, and a function that stops the server.
    :raises OSError: the address cannot be used.
    """
    registry = CollectorRegistry()
    registry.register(NodeCollector(node))
    settings = node.settings.metrics
    return metrics_server.serve(registry, settings.host, settings.port)
