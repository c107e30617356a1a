"""The sum of several processes' figures, which must not go backwards."""

from __future__ import annotations

import urllib.error
import urllib.request

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from deploy.errors import CommandError
from deploy.metrics import Source, Sum, served

from .screen import SECONDS

PAGE = """# HELP legato_open Open.
# TYPE legato_open gauge
legato_open{{app="1"}} {gauge}
# HELP legato_said_total Said.
# TYPE legato_said_total counter
legato_said_total{{code="4004"}} {counter}
"""


class Process:
    """A page, or the error that reading it raises."""

    def __init__(self, gauge: int, counter: int) -> None:
        self.answers: str | Exception = ""
        self.source = Source(self.read)
        self.says(gauge, counter)

    def says(self, gauge: int, counter: int) -> None:
        self.answers = PAGE.format(gauge=gauge, counter=counter)

    def read(self) -> str:
        if isinstance(self.answers, Exception):
            raise self.answers
        return self.answers


def figures(total: Sum) -> tuple[float | None, float | None]:
    """The gauge and the counter, as Prometheus would read them."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(total)
    assert b"# TYPE legato_said_total counter" in generate_latest(registry)
    return (
        registry.get_sample_value("legato_open", {"app": "1"}),
        registry.get_sample_value("legato_said_total", {"code": "4004"}),
    )


def test_processes_are_summed_whatever_becomes_of_them() -> None:
    one, two = Process(1, 10), Process(2, 20)
    total = Sum([one.source, two.source])
    assert figures(total) == (3, 30)
    one.says(0, 11)
    one.answers, before = TimeoutError(), one.answers
    assert figures(total) == (3, 30)  # busy: as it was
    one.answers = before
    assert figures(total) == (2, 31)
    one.answers = urllib.error.URLError(ConnectionRefusedError())
    assert figures(total) == (2, 31)  # gone, with its connections, which were none; not what it has counted
    two.answers = ConnectionRefusedError()
    assert figures(total) == (None, 31)
    one.source.begins()
    one.says(5, 1)
    assert figures(total) == (5, 32)
    one.source.begins()
    one.answers = TimeoutError()
    assert figures(total) == (None, 32)  # the next has not been read yet
    total.close()


def test_the_page_is_served() -> None:
    with served("127.0.0.1", 0, [Process(1, 2).source]) as port:
        url = f"http://127.0.0.1:{port}/metrics"
        with urllib.request.urlopen(url, timeout=SECONDS) as response:
            assert b'legato_open{app="1"} 1.0' in response.read()
        with (
            pytest.raises(CommandError, match=f"metrics: 127.0.0.1:{port} cannot be listened on"),
            served("127.0.0.1", port, [Process(1, 2).source]),
        ):
            pass
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url, timeout=SECONDS)
