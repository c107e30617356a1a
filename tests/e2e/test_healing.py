"""Stock clients while the server's pub/sub connection is killed several times a second."""

from __future__ import annotations

import contextlib
import re
import threading
import urllib.request
from typing import TYPE_CHECKING

import pytest
import redis

from tests.conftest import BINARIES
from tests.e2e.conftest import free_port, legato_up
from tests.e2e.scenarios import pass_all
from tests.redis_servers import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator

PERIOD = 0.25
"""A node is deaf for 0.1 seconds and more, each time."""


@contextlib.contextmanager
def breaking(url: str) -> Iterator[list[int]]:
    """Kill every pub/sub connection again and again; how many each time is kept."""
    killed: list[int] = []
    stop = threading.Event()

    def kill() -> None:
        with redis.Redis.from_url(url) as client:
            while not stop.wait(PERIOD):
                killed.append(client.client_kill_filter(_type="pubsub"))

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        stop.set()
        thread.join()


def figure(port: int, name: str) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=40) as response:
        found = re.search(rf"^{name} (\S+)$", response.read().decode(), re.MULTILINE)
    assert found is not None
    return float(found[1])


@pytest.mark.timeout(700)
def test_no_hole_is_seen_by_who_only_listens(tmp_path):
    port = free_port()
    with (
        RedisServer(BINARIES["valkey"]) as server,
        legato_up(tmp_path, REDIS_URL=server.url, METRICS_PORT=str(port)) as legato,
    ):
        with breaking(server.url) as killed:
            pass_all(
                "healing", "--test-force-exit", seconds=600, said=lambda: legato.output, LEGATO_URL=legato.url
            )
        assert sum(killed) > 0
        assert figure(port, "legato_bus_gaps_total") > 0
        assert figure(port, "legato_healed_tokens_total") > 0
        assert figure(port, "legato_healed_endings_total") > 0
        assert figure(port, "legato_heals_failed_total") == 0
        assert legato.stop() == 0
        assert "Traceback" not in legato.output
