"""Serves one ``/metrics`` for several processes: the sum of their metrics.

Counters must not decrease when a process dies. So the last value of each process is remembered, and its
successor adds to it. What the process counted after its last read is lost; processes are read at least every
:data:`READ_SECONDS`. A gauge is the sum over the running processes.
"""

from __future__ import annotations

import itertools
import logging
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from legato.broadcaster.observability import metrics_server

from .errors import FAILED, CommandError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

logger: Final = logging.getLogger("legato.metrics")

READ_SECONDS: Final = 5.0
ANSWER_SECONDS: Final = 2.0
"""Time-out of a read. A process that does not answer counts with its last values."""

MAX_BYTES: Final = 4_000_000

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]
"""Name of a sample and its labels, sorted -> value."""


class Source:
    """The metrics of successive processes with the same address."""

    def __init__(self, read: Callable[[], str]) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._reads = itertools.count(1)
        self._latest = 0  # the number of the last accepted read, or of the last start
        self._before: Samples = {}
        self._now: dict[str, Metric] = {}
        self._absent = False

    def begins(self) -> None:
        """Record that a new process starts with counters at zero, in place of the previous one."""
        with self._lock:
            self._latest = next(self._reads)
            self._before = self._counters()
            self._now = {}

    def look(self) -> None:
        """Read the process. One that does not answer counts with its last values."""
        number = next(self._reads)
        found: dict[str, Metric] | None = None
        absent = False
        try:
            found = {metric.name: metric for metric in text_string_to_metric_families(self._read())}
        except Exception as error:  # noqa: BLE001 - whatever it says instead, what it had counted stands
            absent = isinstance(getattr(error, "reason", error), ConnectionRefusedError)
        with self._lock:
            if number < self._latest:  # replaced, or read again, meanwhile
                return
            self._latest = number
            self._absent = absent
            if found is not None:
                self._now = found

    def figures(self) -> tuple[dict[str, Metric], list[Metric], Samples]:
        """The process' metrics: gauges if it runs, and the counters of all processes of this address."""
        with self._lock:
            gauges = [metric for metric in self._now.values() if metric.type == "gauge"]
            return self._now, [] if self._absent else gauges, self._counters()

    def _counters(self) -> Samples:
        total = dict(self._before)
        for metric in self._now.values():
            for sample in metric.samples if metric.type != "gauge" else ():
                place = sample.name, tuple(sorted(sample.labels.items()))
                total[place] = total.get(place, 0.0) + sample.value
        return total


class Sum(Collector):
    """Serves the sum over all sources to Prometheus, under the same names."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self._pool = ThreadPoolExecutor(len(sources), thread_name_prefix="metrics")
        self._shapes: dict[str, Metric] = {}

    def look(self) -> None:
        """Read all sources concurrently."""
        list(self._pool.map(Source.look, self._sources))

    def close(self) -> None:
        """Stop reading."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def collect(self) -> Iterable[Metric]:
        """Read all sources and add them up."""
        self.look()
        total: Samples = {}
        for source in self._sources:
            now, gauges, counters = source.figures()
            self._shapes |= now
            for place, value in [*counters.items(), *_samples(gauges)]:
                total[place] = total.get(place, 0.0) + value
        return list(self._families(total))

    def _families(self, total: Samples) -> Iterator[Metric]:
        """Convert ``total`` to the metric families of the processes."""
        of: dict[str, list[tuple[str, dict[str, str], float]]] = {}
        for (name, labels), value in total.items():
            of.setdefault(name, []).append((name, dict(labels), value))
        for shape in self._shapes.values():
            family = Metric(shape.name, shape.documentation, shape.type)
            for name in dict.fromkeys(sample.name for sample in shape.samples):
                for sample in of.get(name, ()):
                    family.add_sample(*sample)
            yield family


def _samples(metrics: Iterable[Metric]) -> Iterator[tuple[Any, float]]:
    for metric in metrics:
        for sample in metric.samples:
            yield (sample.name, tuple(sorted(sample.labels.items()))), sample.value


def reader(host: str, port: int) -> Callable[[], str]:
    """Read ``/metrics``; raises ``OSError``, ``ValueError`` or ``HTTPException``.

    A truncated answer is an error, because a truncated number would be read as another number.
    """
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    name = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - where to ask
    url = f"http://{f'[{name}]' if ':' in name else name}:{port}/metrics"

    def read() -> str:
        with opener.open(url, timeout=ANSWER_SECONDS) as response:
            # Without a size, it reads to the announced end or raises IncompleteRead.
            if response.length is None or response.length > MAX_BYTES:
                raise ValueError("the answer says no length, or too great a one")
            content: bytes = response.read()
        return content.decode()

    return read


@contextmanager
def served(host: str, port: int, sources: Sequence[Source]) -> Iterator[int]:
    """Serve the sum while the block runs; yields the port, or 0 while another program has it.

    :raises CommandError: the address cannot be used for another reason.
    """
    total = Sum(sources)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(total)
    try:
        bound, stop = metrics_server.serve_when_free(registry, host, port, logger)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a host name"
        raise CommandError(f"metrics: {host}:{port} cannot be listened on: {reason}", FAILED) from error
    ended = threading.Event()

    def keep_reading() -> None:
        while not ended.wait(READ_SECONDS):
            total.look()

    reading = threading.Thread(target=keep_reading, name="metrics", daemon=True)
    reading.start()
    try:
        yield bound
    finally:
        ended.set()
        stop()
        reading.join()
        total.close()
