"""``--processes N``, with real broadcasters and workers."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from redis import Redis

from legato.broadcaster.limits import (
    DRAIN_CLOSE_SECONDS,
    DRAIN_PATIENCE_SECONDS,
    LEASE_RELEASE_SECONDS,
    PEER_CHECK_SECONDS,
    PEER_RECHECK_SECONDS,
    SHUTDOWN_PUBLISH_SECONDS,
    SHUTDOWN_REQUEST_SECONDS,
)
from legato.broadcaster.webhooks import senders as webhooks
from legato.deploy import ports
from legato.deploy.processes import BROADCASTER_STOP_SECONDS
from legato.protocol import wire
from tests.deploy.screen import SECONDS, alive, quiet_port
from tests.redis_servers import RedisServer, binaries
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCS = Path(__file__).parents[2] / "docs/cluster.md"
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
        [sys.executable, "-P", "-m", "legato.deploy", *argv],
        env=kept | environ,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Running(process)
        finally:
            process.kill()


def stopped(running: Running) -> int:
    running.process.send_signal(signal.SIGTERM)
    return running.process.wait(SECONDS)


def test_a_broadcaster_ends_in_the_time_that_it_is_given_whatever_hangs() -> None:
    """Each wait that is left once the drain is over; Redis that hangs, and with it receivers of webhooks."""
    sockets = DRAIN_CLOSE_SECONDS + SHUTDOWN_REQUEST_SECONDS
    peers = max(PEER_CHECK_SECONDS, DRAIN_PATIENCE_SECONDS + PEER_RECHECK_SECONDS)
    silent = peers + sockets + LEASE_RELEASE_SECONDS + SHUTDOWN_PUBLISH_SECONDS
    answering = sockets + SHUTDOWN_PUBLISH_SECONDS + LEASE_RELEASE_SECONDS + webhooks.WEBHOOK_CLOSE_SECONDS
    assert max(silent, answering) < BROADCASTER_STOP_SECONDS
    assert f"`drain_seconds` and {BROADCASTER_STOP_SECONDS:g} s more" in DOCS.read_text()


UPGRADE = (
    b"GET /app/key HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


def connected(port: int) -> socket.socket:
    """A client that has its greeting."""
    one = socket.create_connection(("127.0.0.1", port), SECONDS)
    one.sendall(UPGRADE)
    said = b""
    while b"connection_established" not in said:
        more = one.recv(4096)
        assert more, said
        said += more
    return one


def codes(people: list[socket.socket]) -> set[int]:
    """With which those were told to come back who have been closed by now."""
    found = set()
    for one in people:
        one.setblocking(False)
        with suppress(BlockingIOError, ConnectionResetError):
            found |= {int(code) for code in re.findall(rb'"code":(\d+)', one.recv(4096))}
    return found


def figure(port: int, name: str) -> float:
    """The sum over all labels; 0 when nobody is there."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=SECONDS) as response:
            text = response.read().decode()
    except OSError:
        return 0
    return sum(float(line.split()[-1]) for line in text.splitlines() if re.match(rf"{name}[ {{]", line))


def test_broadcasters_share_a_port_evenly_and_are_summed(redis: str) -> None:
    """200 connections, by chance: fewer than 50 on one of two happens once in 10^12 runs."""
    metrics = quiet_port(neighbours=2)
    options = ("--processes", "2", "--port", "0", "--metrics-port", str(metrics))
    with legato("broadcaster", *options, REDIS_URL=redis, LEGATO_SERVER_DRAIN_SECONDS="0", **APP) as running:
        found = running.lines(r"broadcaster\.\d +\| .* listening on http://127\.0\.0\.1:(\d+)", 2)
        assert len(set(found)) == 1
        port = int(found[0])
        people = [connected(port) for _ in range(200)]
        shares = [figure(metrics + 1 + index, "legato_connections") for index in range(2)]
        assert sum(shares) == 200
        assert min(shares) >= 50
        assert figure(metrics, "legato_connections") == 200
        assert figure(metrics, "legato_connections_accepted_total") == 200
        # A dead process takes its connections, but not what it has counted.
        pids = children(running)
        os.kill(pids[0], signal.SIGKILL)
        wait_until(lambda: figure(metrics, "legato_connections") in shares)
        assert figure(metrics, "legato_connections_accepted_total") == 200
        running.lines(r"(broadcaster\.\d) was killed by SIGKILL; it starts again in 1 s", 1)
        running.lines(r"broadcaster\.\d +\| .* listening on http://127\.0\.0\.1:(\d+)", 3)
        people += [connected(port) for _ in range(20)]
        assert figure(metrics, "legato_connections_accepted_total") == 220
        assert (
            min(figure(metrics + 1 + index, "legato_connections_accepted_total") for index in range(2)) < 200
        )
        # One that is told to stop sends its clients to the other, and is started again.
        os.kill(children(running)[0], signal.SIGTERM)
        running.lines(r"(broadcaster\.\d) ended with exit status 0; it starts again in", 1)
        assert codes(people) == {4200}
        for one in people:
            one.close()
        assert not ports.is_free("127.0.0.1", port)
        assert stopped(running) == 0
    wait_until(lambda: ports.is_free("127.0.0.1", port))


def test_a_taken_port_is_one_line(redis: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        options = ("--processes", "2", "--port", str(port))
        with legato("broadcaster", *options, REDIS_URL=redis, **APP) as running:
            assert running.process.wait(SECONDS) == 1
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
        pids = children(running)
        assert len(pids) == 2
        os.kill(pids[0], signal.SIGKILL)
        running.lines(r"(worker\.\d) was killed by SIGKILL; it starts again in 1 s", 1)
        running.lines(r"(worker\.\d) +\| .* ready: queue other", 3)
        assert stopped(running) == 0
    wait_until(lambda: not any(map(alive, pids)))


WORKER = {"LEGATO_PROVIDER_NAME": "scripted", "LEGATO_WORKER_DRAIN_SECONDS": "0"}


def children(running: Running) -> list[int]:
    pid = running.process.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def has_reported(redis_url: str, running: Running) -> bool:
    """Whether the supervisor has said that it is there: it does so once its processes are ready."""
    with Redis.from_url(redis_url) as client:
        names = [name.decode() for name in client.smembers(wire.WORKERS_KEY)]
        told = [json.loads(client.get(wire.worker_key(name)) or b"{}") for name in names]
    return any((who.get("kind"), who.get("pid")) == ("supervisor", running.process.pid) for who in told)


def refused(running: Running) -> str:
    """All it said before it gave up."""
    _, rest = running.process.communicate(timeout=SECONDS)
    assert running.process.returncode == 1
    return running.text + rest


def test_workers_that_cannot_start_are_a_line_and_1(tmp_path: Path) -> None:
    """Nobody would see that they start again and again; with one process it ends with 1, too."""
    environ = WORKER | {"REDIS_URL": f"unix://{tmp_path}/no.sock", "DATABASE_URL": "sqlite:///:memory:"}
    with legato("worker", "--processes", "2", **environ) as running:
        said = refused(running)
    assert re.search(r"worker\.\d \| legato worker: Redis cannot be used: ", said), said
    line = r"legato worker: worker\.\d ended with exit status 1 before it was ready: its lines say why"
    assert re.fullmatch(line, said.splitlines()[-1])
    assert "starts again" not in said


def test_broadcasters_that_cannot_start_are_a_line_and_1(tmp_path: Path) -> None:
    """The parent cannot know that Redis does not answer; nothing may stay behind."""
    options = ("--processes", "2", "--port", "0", "--metrics-port", "0")
    environ = {"REDIS_URL": f"unix://{tmp_path}/no.sock", "LEGATO_SERVER_DRAIN_SECONDS": "0", **APP}
    with legato("broadcaster", *options, **environ) as running:
        said = refused(running)
    line = (
        r"legato broadcaster: broadcaster.\d ended with exit status 1 before it was ready: its lines say why"
    )
    assert re.fullmatch(line, said.splitlines()[-1])
    assert "starts again" not in said


@pytest.mark.parametrize("level", ["warning", "error"])
def test_readiness_is_seen_where_only_warnings_are_shown(redis: str, tmp_path: Path, level: str) -> None:
    """A copy is started again only if it was ready before: its line is read though nobody sees it."""
    config = tmp_path / "legato.toml"
    config.write_text(f'[log]\nlevel = "{level}"\n')
    environ = WORKER | {"REDIS_URL": redis, "DATABASE_URL": f"sqlite:///{tmp_path / 'legato.db'}"}
    options = ("--config", str(config), "--queue", level, "--processes", "2")
    with legato("worker", *options, **environ) as running:
        wait_until(lambda: has_reported(redis, running))
        os.kill(children(running)[0], signal.SIGKILL)
        running.lines(r"(worker\.\d) was killed by SIGKILL; it starts again in 1 s", 1)
        assert stopped(running) == 0
        assert running.process.stderr is not None
        assert " info " not in running.text + running.process.stderr.read()
