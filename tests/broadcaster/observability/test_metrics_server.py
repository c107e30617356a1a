"""Bounds of ``/metrics`` for clients that send slowly or nothing, or do not read."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import urllib.request
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry, Gauge

from legato.broadcaster.observability import metrics_server
from tests.waiting import WAIT, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def served(gauges: int = 1) -> Iterator[int]:
    registry = CollectorRegistry()
    for number in range(gauges):
        Gauge(f"gauge_{number}", "x" * 10_000, registry=registry)
    port, stop = metrics_server.serve(registry, "127.0.0.1", 0)
    try:
        yield port
    finally:
        stop()


def fetch(port: int) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=WAIT) as response:
        return response.read()


def threads() -> int:
    """The open connections."""
    return sum("process_request_thread" in thread.name for thread in threading.enumerate())


@pytest.mark.parametrize("said", [b"", b"GET /metrics HTTP/1.1\r\nX: "])
def test_idle_connections_keep_no_scraper_out(said, monkeypatch):
    monkeypatch.setattr(metrics_server, "METRICS_REQUEST_SECONDS", 3600)
    with served() as port, contextlib.ExitStack() as stack:
        for _ in range(5 * metrics_server.METRICS_CONNECTIONS):
            one = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            one.sendall(said)
        assert b"gauge_0" in fetch(port)
        wait_until(lambda: threads() <= metrics_server.METRICS_CONNECTIONS)


def test_a_slow_request_is_cut(monkeypatch):
    """Even if it keeps sending."""
    monkeypatch.setattr(metrics_server, "METRICS_REQUEST_SECONDS", 0.3)
    with served() as port, socket.create_connection(("127.0.0.1", port)) as one:
        one.sendall(b"GET /metrics HTTP/1.1\r\nX: ")
        end = time.monotonic() + WAIT
        with pytest.raises(OSError, match=r"reset|Broken pipe"):  # noqa: PT012 - it may be any of them
            while time.monotonic() < end:
                one.sendall(b"y")
                time.sleep(0.05)
        wait_until(lambda: threads() == 0)


def test_a_client_that_does_not_read_the_answer_is_cut(monkeypatch):
    monkeypatch.setattr(metrics_server, "METRICS_REQUEST_SECONDS", 0.5)
    with served(gauges=1000) as port, socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.connect(("127.0.0.1", port))
        one.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until(lambda: threads() == 1)
        wait_until(lambda: threads() == 0)


def test_a_connection_being_answered_is_not_cut_for_another(monkeypatch):
    monkeypatch.setattr(
        metrics_server, "METRICS_REQUEST_SECONDS", 3600
    )  # on a busy machine it is over before all have begun
    begun: list[int] = []
    go_on = threading.Event()

    class Slow:
        def collect(self):
            begun.append(1)
            go_on.wait(WAIT)
            return []

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Slow())
    port, stop = metrics_server.serve(registry, "127.0.0.1", 0)
    answers: list[bytes] = []
    asking = [
        threading.Thread(target=lambda: answers.append(fetch(port)))
        for _ in range(metrics_server.METRICS_CONNECTIONS)
    ]
    try:
        for one in asking:
            one.start()
        wait_until(lambda: len(begun) == metrics_server.METRICS_CONNECTIONS)  # one that is not may be cut
        with socket.create_connection(("127.0.0.1", port), WAIT) as late, contextlib.suppress(OSError):
            late.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            assert late.recv(1) == b""
        go_on.set()
        for one in asking:
            one.join(WAIT)
        assert answers == [b""] * metrics_server.METRICS_CONNECTIONS
    finally:
        go_on.set()
        stop()


def test_at_the_limit_of_open_files_it_does_not_spin(monkeypatch):
    tries = []

    def none_left(self):
        tries.append(1)
        raise OSError(24, "Too many open files")

    with served() as port:
        with monkeypatch.context() as context, socket.create_connection(("127.0.0.1", port)):
            context.setattr(metrics_server.WSGIServer, "get_request", none_left)
            with socket.create_connection(("127.0.0.1", port)):
                begun = time.monotonic()
                wait_until(lambda: len(tries) >= 3)
                assert time.monotonic() - begun >= 2 * metrics_server.METRICS_ACCEPT_PAUSE_SECONDS * 0.9
        assert b"gauge_0" in fetch(port)


def test_the_answer_is_what_prometheus_reads():
    with served() as port:
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/metrics", headers={"Accept": "application/openmetrics-text"}
        )
        with urllib.request.urlopen(request, timeout=WAIT) as response:
            assert response.length is not None
            assert response.headers["content-type"].startswith("application/openmetrics-text")
