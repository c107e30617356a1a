"""``--processes N``, with real broadcasters and workers."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from deploy import ports
from tests.redis_servers import RedisServer, binaries

from .screen import alive

if TYPE_CHECKING:
    from collections.abc import Iterator

APP = {"LEGATO_APP_ID": "1", "LEGATO_APP_KEY": "key", "LEGATO_APP_SECRET": "secret"}


@pytest.fixture(scope="module")
def redis() -> Iterator[str]:
    with RedisServer(binaries()["valkey"]) as server:
        yield server.url


class Running:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.text = ""

    def lines(self, pattern: str, number: int) -> list[str]:
        """Read until ``number`` lines matched; the first group of each."""
        assert self.process.stderr is not None
        while len(found := re.findall(pattern, self.text)) < number:
            line = self.process.stderr.readline()
            assert line, self.text
            self.text += line
        return found


@contextmanager
def legato(*argv: str, **environ: str) -> Iterator[Running]:
    kept = {name: value for name, value in os.environ.items() if name.startswith(("PATH", "COVERAGE_"))}
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "deploy", *argv], env=kept | environ, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Running(process)
        finally:
            process.kill()


def stopped(running: Running) -> int:
    started = time.monotonic()
    running.process.send_signal(signal.SIGTERM)
    status = running.process.wait(10)
    assert time.monotonic() - started < 5
    return status


def test_broadcasters_share_a_port_and_have_metrics_of_their_own(redis: str, tmp_path: Path) -> None:
    metrics = ports.any_free("127.0.0.1")
    options = ("--processes", "2", "--port", "0", "--metrics-port", str(metrics))
    with legato("broadcaster", *options, REDIS_URL=redis, LEGATO_SERVER_DRAIN_SECONDS="0", **APP) as running:
        found = running.lines(r"broadcaster\.\d +\| .* listening on http://127\.0\.0\.1:(\d+)", 2)
        assert len(set(found)) == 1
        port = int(found[0])
        for _ in range(20):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/up", timeout=5) as response:
                assert response.status == 200
        for index in range(2):
            with urllib.request.urlopen(f"http://127.0.0.1:{metrics + index}/metrics", timeout=5) as response:
                assert response.status == 200
        assert not ports.is_free("127.0.0.1", port)
        assert stopped(running) == 0
    assert ports.is_free("127.0.0.1", port)


def test_a_taken_port_is_one_line(redis: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        options = ("--processes", "2", "--port", str(port))
        with legato("broadcaster", *options, REDIS_URL=redis, **APP) as running:
            assert running.process.wait(20) == 1
            line = f"legato broadcaster: port {port} is taken: stop what uses it or choose another one\n"
            assert running.process.stderr is not None
            assert running.process.stderr.read() == line


def test_workers_run_side_by_side_and_a_crash_is_mended(redis: str, tmp_path: Path) -> None:
    environ = {
        "REDIS_URL": redis,
        "DATABASE_URL": f"sqlite:///{tmp_path / 'legato.db'}",
        "LEGATO_PROVIDER_NAME": "scripted",
        "LEGATO_WORKER_PROCESSES": "2",
        "LEGATO_WORKER_DRAIN_SECONDS": "0",
    }
    with legato("worker", "--queue", "other", **environ) as running:
        names = running.lines(r"(worker\.\d) +\| .* ready: queue other", 2)
        assert set(names) == {"worker.0", "worker.1"}
        pid = running.process.pid
        pids = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        assert len(pids) == 2
        os.kill(pids[0], signal.SIGKILL)
        running.lines(r"(worker\.\d) was killed by SIGKILL; it starts again in 1 s", 1)
        running.lines(r"(worker\.\d) +\| .* ready: queue other", 3)
        assert stopped(running) == 0
    assert not any(map(alive, pids))
