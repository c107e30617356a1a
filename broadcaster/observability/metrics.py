"""Prometheus metrics. Hot paths count with plain integers, which the collector reads at scrape time."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from legato.broadcaster.transport.listener import AddressError, reason

from . import metrics_server
from .loop_delay import BOUNDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from prometheus_client.core import Metric

    from legato.broadcaster.addresses.refusals import AddressRefusals
    from legato.broadcaster.bus.base import Bus
    from legato.broadcaster.channels.cache import CachedChannels
    from legato.broadcaster.channels.client_events import ClientEvents
    from legato.broadcaster.channels.fanout import Fanout
    from legato.broadcaster.channels.figures import SubscriptionFigures
    from legato.broadcaster.channels.hub import Hub
    from legato.broadcaster.channels.presence import MemberLists
    from legato.broadcaster.clients.figures import ConnectionFigures
    from legato.broadcaster.doors.answers import OpenAnswers
    from legato.broadcaster.replies.healer import Healer
    from legato.broadcaster.replies.resync import Recovery
    from legato.broadcaster.replies.store import Replies
    from legato.broadcaster.webhooks.dispatcher import Webhooks

    from .loop_delay import LoopDelay

    Samples = Mapping[tuple[str, ...], float]

logger: Final = logging.getLogger("legato.broadcaster")


@dataclass(frozen=True, repr=False)
class MeasuredParts:
    """The parts whose counters are read.

    Another thread reads them, without a lock: it reads integers, and iterates over copies of dicts.
    """

    connections: ConnectionFigures
    refusals: AddressRefusals
    subscriptions: SubscriptionFigures
    requests: Mapping[tuple[str, int], int]
    """HTTP requests by endpoint and status."""
    hub: Hub
    fanout: Fanout
    bus: Bus
    recovery: Recovery
    healer: Healer | None
    """None when chat is off."""
    member_lists: MemberLists
    cached: CachedChannels
    client_events: ClientEvents
    webhooks: Webhooks
    replies: Replies | None
    """None when chat is off."""
    answers: OpenAnswers
    loop_delay: LoopDelay


# name, kind, help, labels, how to read it
_FIGURES: Final[
    tuple[
        tuple[
            str,
            type[CounterMetricFamily | GaugeMetricFamily],
            str,
            tuple[str, ...],
            Callable[[MeasuredParts], Samples],
        ],
        ...,
    ]
] = (
    (
        "legato_connections",
        GaugeMetricFamily,
        "Open connections, over WebSocket or HTTP.",
        ("app",),
        lambda parts: {(app,): count for app, count in dict(parts.connections.by_app).items()},
    ),
    (
        "legato_connections_accepted",
        CounterMetricFamily,
        "Connections accepted since the start.",
        (),
        lambda parts: {(): parts.connections.accepted},
    ),
    (
        "legato_connections_refused",
        CounterMetricFamily,
        "Handshakes refused, by Pusher error code.",
        ("code",),
        lambda parts: {(str(code),): count for code, count in dict(parts.connections.refused).items()},
    ),
    (
        "legato_address_refusals",
        CounterMetricFamily,
        "Connections and requests refused because their address has reached a limit, by its setting.",
        ("limit",),
        lambda parts: {(limit,): count for limit, count in dict(parts.refusals.by_limit).items()},
    ),
    (
        "legato_slow_connections",
        GaugeMetricFamily,
        "Slow connections at present: they read more slowly than they are written to.",
        (),
        lambda parts: {(): parts.connections.slow},
    ),
    (
        "legato_slow_connections_closed",
        CounterMetricFamily,
        "Connections closed because their queue was full, or they read nothing for too long.",
        (),
        lambda parts: {(): parts.connections.slow_closed},
    ),
    (
        "legato_merged_tokens",
        CounterMetricFamily,
        "Tokens that slow clients got in one frame with an earlier token, as they had asked for.",
        (),
        lambda parts: {(): parts.connections.merged_tokens},
    ),
    (
        "legato_channels",
        GaugeMetricFamily,
        "Channels with a subscriber on this node.",
        (),
        lambda parts: {(): len(parts.hub)},
    ),
    (
        "legato_subscriptions",
        GaugeMetricFamily,
        "Subscriptions of clients to channels on this node.",
        (),
        lambda parts: {(): parts.subscriptions.open},
    ),
    (
        "legato_subscriptions_refused",
        CounterMetricFamily,
        "Subscriptions refused because the process has reached its limit.",
        (),
        lambda parts: {(): parts.subscriptions.refused},
    ),
    (
        "legato_messages",
        CounterMetricFamily,
        "Messages fanned out on this node.",
        (),
        lambda parts: {(): parts.fanout.messages},
    ),
    (
        "legato_deliveries",
        CounterMetricFamily,
        "Messages handed to subscribers: one per message and subscriber.",
        (),
        lambda parts: {(): parts.fanout.deliveries},
    ),
    (
        "legato_writes",
        CounterMetricFamily,
        "Socket writes of the fan-out. Deliveries per write shows how well writes are joined.",
        (),
        lambda parts: {(): parts.fanout.writes},
    ),
    (
        "legato_bus_gaps",
        CounterMetricFamily,
        "Lost connections to the bus; messages may be missing after each.",
        (),
        lambda parts: {(): parts.bus.gaps},
    ),
    (
        "legato_bus_gap_channels",
        CounterMetricFamily,
        "Channels that may have missed messages in a gap of the bus, counted once per gap.",
        (),
        lambda parts: {(): parts.recovery.channels},
    ),
    (
        "legato_healed_tokens",
        CounterMetricFamily,
        "Tokens that the bus had lost, read from the log, counted once per channel.",
        (),
        lambda parts: {(): parts.healer.tokens if parts.healer is not None else 0},
    ),
    (
        "legato_healed_endings",
        CounterMetricFamily,
        "Terminal events that the bus had lost, made from the log.",
        (),
        lambda parts: {(): parts.healer.endings if parts.healer is not None else 0},
    ),
    (
        "legato_heals_failed",
        CounterMetricFamily,
        "Replies that are no longer forwarded, because the log lacks what the bus has lost.",
        (),
        lambda parts: {(): parts.healer.failed if parts.healer is not None else 0},
    ),
    (
        "legato_healed_rosters",
        CounterMetricFamily,
        "Member lists of presence channels that were sent again, because changes may have been lost.",
        (),
        lambda parts: {(): parts.member_lists.told},
    ),
    (
        "legato_healed_cached_events",
        CounterMetricFamily,
        "Last events of cache channels that the bus had lost, read again.",
        (),
        lambda parts: {(): parts.cached.read},
    ),
    (
        "legato_http_requests",
        CounterMetricFamily,
        "HTTP requests answered.",
        ("route", "status"),
        lambda parts: {
            (route, str(status)): count for (route, status), count in dict(parts.requests).items()
        },
    ),
    (
        "legato_client_events",
        CounterMetricFamily,
        "Client events relayed from this node's clients.",
        (),
        lambda parts: {(): parts.client_events.relayed},
    ),
    (
        "legato_webhooks_sent",
        CounterMetricFamily,
        "Webhook events that a receiver has accepted.",
        (),
        lambda parts: {(): parts.webhooks.sent},
    ),
    (
        "legato_webhooks_failed",
        CounterMetricFamily,
        "Webhook requests that were not accepted, every attempt counted.",
        (),
        lambda parts: {(): parts.webhooks.failed},
    ),
    (
        "legato_webhooks_dropped",
        CounterMetricFamily,
        "Webhook events dropped after the last attempt, or because the queue was full.",
        (),
        lambda parts: {(): parts.webhooks.dropped},
    ),
    (
        "legato_webhooks_waiting",
        GaugeMetricFamily,
        "Webhook events that are queued or in flight.",
        (),
        lambda parts: {(): parts.webhooks.waiting},
    ),
    (
        "legato_chat_jobs",
        CounterMetricFamily,
        "Chat messages queued for the worker.",
        (),
        lambda parts: {(): parts.replies.submitted if parts.replies is not None else 0},
    ),
    (
        "legato_door_answers",
        GaugeMetricFamily,
        "Replies that are being read over HTTP at present.",
        (),
        lambda parts: {(): len(parts.answers)},
    ),
)

_LOOP_DELAY: Final = "legato_loop_delay_seconds"

NAMES: Final = (*(row[0] for row in _FIGURES), _LOOP_DELAY)


class NodeCollector(Collector):
    """Reads a node's counters at scrape time."""

    def __init__(self, parts: MeasuredParts) -> None:
        self._parts = parts

    def collect(self) -> Iterable[Metric]:
        """Yield one family per row of the table, and the histogram."""
        for name, kind, text, labels, read in _FIGURES:
            family = kind(name, text, labels=labels)
            for values, count in read(self._parts).items():
                family.add_metric(values, count)
            yield family
        yield _loop_delay(self._parts)


def _loop_delay(parts: MeasuredParts) -> Metric:
    family = HistogramMetricFamily(_LOOP_DELAY, "How late due callbacks of the event loop run.")
    bounds = [*(f"{bound:g}" for bound in BOUNDS), "+Inf"]
    counts = accumulate(list(parts.loop_delay.counts))
    family.add_metric([], list(zip(bounds, counts, strict=True)), parts.loop_delay.sum)
    return family


def serve(parts: MeasuredParts, host: str, port: int) -> tuple[int, Callable[[], None]]:
    """Serve ``/metrics`` on a separate port, in a separate thread.

    :returns: the port, or 0 while another program has it, and a function that stops the server.
    :raises AddressError: the address is wrong.
    """
    registry = CollectorRegistry()
    registry.register(NodeCollector(parts))
    try:
        return metrics_server.serve_when_free(registry, host, port, logger)
    except (OSError, UnicodeError) as error:
        raise AddressError(f"metrics: {host}:{port} cannot be listened on: {reason(error)}") from error
