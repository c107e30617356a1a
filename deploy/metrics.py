"""One ``/metrics`` for several processes: the sum of their own.

Counters must not go backwards when a process dies, so what each has counted is remembered: a process that
starts anew goes on from there. What it had counted since it was read last goes with it; it is read at least
every :data:`READ_SECONDS`. A gauge is the sum of those that live.
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
"""How long a process may take to answer; one that is busy for longer counts as it was."""

MAX_BYTES: Final = 4_000_000

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]
"""Name of a sample and its labels, sorted -> value."""


class Source:
    """One process after another, in the same place, with their figures at one address."""

    def __init__(self, read: Callable[[], str]) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._reads = itertools.count(1)
        self._latest = 0  # the number of the read that was taken over, or of the start since
        self._before: Samples = {}
        self._now: dict[str, Metric] = {}
        self._absent = False

    def begins(self) -> None:
        """A process starts, with counters at zero; whatever was there before has ended."""
        with self._lock:
            self._latest = next(self._reads)
            self._before = self._counters()
            self._now = {}

    def look(self) -> None:
        """Read it. One that does not answer counts as it was."""
        number = next(self._reads)
        found: dict[str, Metric] | None = None
        absent = False
        try:
            found = {metric.name: metric for metric in text_string_to_metric_families(self._read())}
        except Exception as error:  # noqa: BLE001 - whatever it says instead, what it had counted stands
            absent = isinstance(getattr(error, "reason", error), ConnectionRefusedError)
        with self._lock:
            if number < self._latest:  # it has been replaced, or read again, meanwhile
                return
            self._latest = number
            self._absent = absent
            if found is not None:
                self._now = found

    def figures(self) -> tuple[dict[str, Metric], list[Metric], Samples]:
        """What the process says, its gauges if it lives, and the counters of all that were and are here."""
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
    """What Prometheus reads: the same names, summed over all sources."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self._pool = ThreadPoolExecutor(len(sources), thread_name_prefix="metrics")
        self._shapes: dict[str, Metric] = {}

    def look(self) -> None:
        """Read all, at the same time."""
        list(self._pool.map(Source.look, self._sources))

    def close(self) -> None:
        """Read no more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def collect(self) -> Iterable[Metric]:
        """Read all, and add up."""
        self.look()
        total: Samples = {}
        for source in self._sources:
            now, gauges, counters = source.figures()
            self._shapes |= now
            for place, value in [*counters.items(), *_samples(gauges)]:
                total[place] = total.get(place, 0.0) + value
        return list(self._families(total))

    def _families(self, total: Samples) -> Iterator[Metric]:
        """``total`` in the shape in which the processes give it."""
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
    """Reads ``/metrics`` there; raises ``OSError``, ``ValueError`` or ``HTTPException``.

    An answer that was cut short is an error: half a number is a number, too.
    """
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    name = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - where to ask
    url = f"http://{f'[{name}]' if ':' in name else name}:{port}/metrics"

    def read() -> str:
        with opener.open(url, timeout=ANSWER_SECONDS) as response:
            # Without a bound it is read to its announced end, or raises IncompleteRead.
            if response.length is None or response.length > MAX_BYTES:
                raise ValueError("the answer says no length, or too great a one")
            content: bytes = response.read()
        return content.decode()

    return read


@contextmanager
def served(host: str, port: int, sources: Sequence[Source]) -> Iterator[int]:
    """Serve the sum while the block runs; the port it is on.

    :raises CommandError: the address cannot be used.
    """
    total = Sum(sources)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(total)
    try:
        bound, stop = metrics_server.serve(registry, host, port)
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
