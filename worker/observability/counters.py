"""Counters and histograms of one process, as plain numbers: an update costs one or two additions.

:mod:`.metrics` converts them for Prometheus at scrape time.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from typing import TYPE_CHECKING, Final

from legato.protocol.stream import Usage
from legato.worker.providers.base import total

if TYPE_CHECKING:
    from legato.worker.replies.reply import Decision

_WAITS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_FIRST: Final = (0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 20, 30, 60, 120)
_GAPS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_DELAYS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)


class Histogram:
    """Observations in seconds: how many fall below each of ``bounds``, and above the last."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count one observation."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.sum += seconds


class Latencies:
    """How long the steps of a reply take.

    :ivar queue_wait: from queueing a job to its first delivery.
    :ivar first_token: from the first request to the model to the first token published.
    :ivar token_gap: between two pieces of text from the model.
    :ivar publish_delay: from a piece of text to its tokens logged and published: the latency of the worker.
    """

    __slots__ = ("first_token", "publish_delay", "queue_wait", "token_gap")

    def __init__(self) -> None:
        self.queue_wait = Histogram(_WAITS)
        self.first_token = Histogram(_FIRST)
        self.token_gap = Histogram(_GAPS)
        self.publish_delay = Histogram(_DELAYS)


class Handovers:
    """Replies that pass from one process to another.

    :ivar takeovers: jobs taken over from another process.
    :ivar fenced: writes refused because another process has the message.
    :ivar leases_lost: replies stopped because another process has the job.
    """

    __slots__ = ("fenced", "leases_lost", "takeovers")

    def __init__(self) -> None:
        self.takeovers = 0
        self.fenced = 0
        self.leases_lost = 0


class Counters:
    """The counters of all replies of the process, since its start.

    :ivar latencies: how long replies take.
    :ivar attempts: claims that asked the model, the first of a reply and those that continued.
    :ivar continued: of these, those in which the same process continued a reply.
    :ivar handovers: between processes.
    :ivar abandoned: requests to the model that did not close in time.
    :ivar tokens: published.
    :ivar ended: replies by how they ended.
    :ivar failed: replies that failed by code.
    :ivar provider_errors: requests to the model that failed, by code.
    :ivar tool_calls: results of tool calls, ``ok`` or ``failed``.
    :ivar parked: replies set aside until an approval.
    :ivar used: usage of ended replies by model, all attempts together.
    """

    def __init__(self) -> None:
        self.latencies = Latencies()
        self.attempts = 0
        self.continued = 0
        self.handovers = Handovers()
        self.abandoned = 0
        self.tokens = 0
        self.ended: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.provider_errors: Counter[str] = Counter()
        self.tool_calls: Counter[str] = Counter()
        self.parked = 0
        self.used: dict[str, Usage] = {}

    def end(self, decision: Decision) -> None:
        """A reply has ended."""
        self.ended[decision.state] += 1
        if decision.state == "failed":
            self.failed[decision.code] += 1
        if decision.usage is not None:
            self.used[decision.model] = total(self.used.get(decision.model, Usage()), decision.usage)
