"""The results of a run, as they are stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

if TYPE_CHECKING:
    from .histogram import BucketCounts

SCHEMA: Final = 1


class Moment(msgspec.Struct):
    """Measurements of the interval that ends ``at`` seconds after the phase began.

    Rates are per second, shares of one core, waits in milliseconds.
    """

    at: float
    sent: float
    received: float
    joined: float
    p50: float
    p99: float
    server_cpu: float
    server_mib: float
    generator_cpu: float


class DeliveryFigures(msgspec.Struct):
    """Whether all events arrived. ``gaps`` and ``backwards`` as in :class:`.orders.GeneratorCounts`."""

    expected: int
    received: int
    gaps: int
    backwards: int

    @property
    def ratio(self) -> float:
        """The share of expected events that arrived."""
        return self.received / self.expected if self.expected else 1.0


class Phase(msgspec.Struct):
    """One measurement.

    :ivar figures: by the names of :data:`FIGURES`.
    :ivar faults: violations, in words; with any, the run has failed.
    :ivar warnings: reasons to doubt the figures.
    :ivar histograms: counts by upper bound of a bucket, in microseconds.
    :ivar reasons: number of errors by reason, for each of ``failed``, ``lost`` and ``refused``.
    """

    scenario: str
    name: str
    sizes: dict[str, float]
    seconds: float
    figures: dict[str, float]
    delivery: DeliveryFigures | None
    faults: list[str]
    warnings: list[str]
    histograms: dict[str, dict[int, int]]
    timeline: list[Moment]
    reasons: dict[str, dict[str, int]]

    @property
    def title(self) -> str:
        """Scenario and phase."""
        return f"{self.scenario}: {self.name}"


class LoadReport(msgspec.Struct):
    """One run of the command.

    :ivar label: the user's name for what is measured.
    :ivar cores: cores that the server and the generators were pinned to; empty: any.
    :ivar left_out: phases that this server does not support, and what they need.
    :ivar cut: why not all that was asked for is there; empty if it is.
    """

    label: str
    command: str
    target: dict[str, Any]
    machine: dict[str, Any]
    versions: dict[str, str]
    started: str
    cores: dict[str, list[int]]
    phases: list[Phase]
    schema: int = SCHEMA
    left_out: list[str] = []
    cut: str = ""


class Figure(NamedTuple):
    """Describes a figure. ``better``: ``less`` or ``more``, or empty if neither is better."""

    label: str
    unit: str
    better: str


def _waits(name: str, label: str) -> dict[str, Figure]:
    shares = {"p50": "p50", "p90": "p90", "p99": "p99", "p99_9": "p99.9", "max": "most"}
    return {f"{name}_{key}_ms": Figure(f"{label}, {share}", "ms", "less") for key, share in shares.items()}


FIGURES: Final[dict[str, Figure]] = {
    "deliveries_per_second": Figure("deliveries", "/s", "more"),
    "requests_per_second": Figure("requests", "/s", "more"),
    "connections_per_second": Figure("connections", "/s", "more"),
    **_waits("latency", "delivery latency"),
    **_waits("request", "HTTP answer"),
    **_waits("connected", "connection established"),
    **_waits("subscribed", "subscribed"),
    "server_cpu_us_per_delivery": Figure("server CPU per delivery", "µs", "less"),
    "server_cpu_us_per_request": Figure("server CPU per request", "µs", "less"),
    "server_cpu_us_per_connection": Figure("server CPU per connection", "µs", "less"),
    "redis_cpu_us_per_token": Figure("Redis CPU per token", "µs", "less"),
    "server_cpu_percent": Figure("server CPU", "% of a core", "less"),
    "deliveries_per_server_cpu_second": Figure("deliveries per second of server CPU", "", "more"),
    "loop_delay_p99_ms": Figure("delay of the server's event loop, p99", "ms", "less"),
    "server_bytes_per_connection": Figure("server memory per connection", "bytes", "less"),
    "kernel_tcp_bytes_per_connection": Figure("kernel socket buffers per connection, both ends", "bytes", ""),
    "kernel_slab_bytes_per_connection": Figure("kernel objects per connection, both ends", "bytes", ""),
    "server_mib": Figure("server memory, greatest", "MiB", "less"),
    "server_waited_percent": Figure("server waited for a core", "% of the time", ""),
    "generator_cpu_percent": Figure("busiest generator, CPU", "% of a core", ""),
    "generator_late_p99_ms": Figure("generator late in sending, p99", "ms", ""),
    "stalled_closed": Figure("stalled readers that the server closed", "", ""),
    "stalled_events": Figure("events that stalled readers got", "", ""),
    "server_mib_grown": Figure("server memory, grown by", "MiB", "less"),
    "newcomers": Figure("newcomers that subscribed", "", ""),
    "newcomer_events": Figure("events that newcomers got", "", ""),
}
"""All figures that a phase may have, in the order in which they are shown."""

_SHARES: Final = {"p50": 50, "p90": 90, "p99": 99, "p99_9": 99.9, "max": 100}


def waits(name: str, histogram: BucketCounts) -> dict[str, float]:
    """Percentiles of a histogram of microseconds as figures in milliseconds; none of an empty one."""
    if not histogram.counts:
        return {}
    return {
        f"{name}_{key}_ms": round(histogram.percentile(share) / 1000, 3) for key, share in _SHARES.items()
    }


def rounded(value: float) -> float:
    """Round to four significant digits."""
    return float(f"{value:.4g}") if abs(value) < 1000 else float(round(value))


def shown(value: float) -> str:
    """The figure with its unit."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
