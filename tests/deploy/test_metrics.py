"""The sum of several processes' figures, which must not go backwards."""

from __future__ import annotations

import http.client
import socket
import threading
import urllib.error
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from legato.broadcaster.config import Metrics, Server, Settings
from legato.deploy import processes
from legato.deploy.errors import CommandError
from legato.deploy.metrics import Source, Sum, reader, served
from tests.deploy.screen import SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

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


def test_histograms_are_summed_bucket_by_bucket() -> None:
    page = """# HELP legato_delay_seconds Delay.
# TYPE legato_delay_seconds histogram
legato_delay_seconds_bucket{{le="0.005"}} {0}
legato_delay_seconds_bucket{{le="0.05"}} {1}
legato_delay_seconds_bucket{{le="+Inf"}} {2}
legato_delay_seconds_count {2}
legato_delay_seconds_sum {3}
"""
    one, two = Process(0, 0), Process(0, 0)
    total = Sum([one.source, two.source])
    one.answers, two.answers = page.format(1, 3, 4, 0.5), page.format(10, 10, 11, 0.25)
    total.look()
    two.source.begins()
    two.answers = page.format(100, 200, 300, 2)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(total)
    lines = generate_latest(registry).decode().splitlines()
    assert [line for line in lines if line.startswith(("# TYPE", "legato_delay"))] == [
        "# TYPE legato_delay_seconds histogram",
        'legato_delay_seconds_bucket{le="0.005"} 111.0',
        'legato_delay_seconds_bucket{le="0.05"} 213.0',
        'legato_delay_seconds_bucket{le="+Inf"} 315.0',
        "legato_delay_seconds_count 315.0",
        "legato_delay_seconds_sum 2.75",
    ]
    total.close()


@pytest.mark.parametrize(
    "error", [http.client.BadStatusLine("x"), http.client.IncompleteRead(b"x"), TimeoutError(), KeyError("x")]
)
def test_whatever_a_process_says_instead_of_its_figures_they_stay(error: Exception) -> None:
    one = Process(1, 10)
    total = Sum([one.source])
    assert figures(total) == (1, 10)
    one.answers = error
    assert figures(total) == (1, 10)
    one.says(2, 11)
    assert figures(total) == (2, 11)
    total.close()


@contextmanager
def answering(*answers: bytes) -> Iterator[int]:
    """A port that answers one request after another with these bytes, and closes each connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            for one in answers:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65_536)
                    connection.sendall(one)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(SECONDS)
        assert not thread.is_alive()


def test_an_answer_that_was_cut_short_does_not_count() -> None:
    """Half a number is a number, too."""
    page = PAGE.format(gauge=3, counter=1234)
    cut = page[: page.index("1234") + 2].encode()
    whole = f"HTTP/1.0 200 OK\r\nContent-Length: {len(page)}\r\n\r\n".encode()
    thrice = [whole + page.encode()] * 3  # `figures` asks as often, and waits for each answer
    with answering(whole + cut, b"HTTP/1.0 200 OK\r\n\r\n" + cut, *thrice) as port:
        source = Source(reader("127.0.0.1", port))
        total = Sum([source])
        for _ in range(2):
            source.look()
            assert source.figures() == ({}, [], {})
        assert figures(total) == (3, 1234)
        total.close()


def test_of_two_looks_at_once_the_later_one_counts() -> None:
    """The first one's answer comes last."""
    older, newer = PAGE.format(gauge=1, counter=1), PAGE.format(gauge=2, counter=2)
    asked, late = threading.Event(), threading.Event()
    answers = iter([(older, late), (newer, None), (older, late)])

    def read() -> str:
        page, held_up = next(answers)
        if held_up is not None:
            asked.set()
            assert held_up.wait(SECONDS)
        return page

    source = Source(read)
    first = threading.Thread(target=source.look)
    first.start()
    assert asked.wait(SECONDS)
    source.look()
    late.set()
    first.join(SECONDS)
    ((_, counted),) = source.figures()[2].items()
    assert counted == 2
    source.begins()
    source.look()
    assert set(source.figures()[2].values()) == {3}


def test_the_page_is_served() -> None:
    with served("127.0.0.1", 0, [Process(1, 2).source]) as port:
        url = f"http://127.0.0.1:{port}/metrics"
        with urllib.request.urlopen(url, timeout=SECONDS) as response:
            assert b'legato_open{app="1"} 1.0' in response.read()
        with served("127.0.0.1", port, [Process(1, 2).source]) as other:
            assert other == 0
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url, timeout=SECONDS)


def test_an_address_that_is_none_stops_the_start() -> None:
    with (
        pytest.raises(CommandError, match=r"metrics: 192\.0\.2\.1:0 cannot be listened on"),
        served("192.0.2.1", 0, [Process(1, 2).source]),
    ):
        pass


def test_a_process_leaves_a_metrics_port_that_is_taken(caplog: pytest.LogCaptureFixture) -> None:
    """Or the sum would read what another program serves there."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = Settings(server=Server(processes=1), metrics=Metrics(port=port - 1))
        (chosen,) = processes._metrics_ports(settings)
    assert chosen != port
    assert f"port {port} of 127.0.0.1 is taken: a process has its metrics on port {chosen}" in caplog.text
