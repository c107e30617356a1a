"""What broadcaster and worker say at the start of Redis' eviction, of the clock and of the file limit."""

from __future__ import annotations

import itertools
import logging
import re
import resource
import time
from typing import TYPE_CHECKING

import pytest
from redis import Redis

from legato.broadcaster.redis_client import redis_client
from legato.protocol.redis import advice as redis_advice
from tests.broadcaster.test_server import ENVIRON, legato
from tests.conftest import BINARIES
from tests.redis_servers import RedisServer
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

LOG = logging.getLogger("legato.test")

SAID = {"broadcaster": r"listening on ", "worker": r"ready: queue "}
"""What each program says once it works."""


@pytest.fixture(params=BINARIES)
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    with RedisServer(BINARIES[request.param]) as started:
        yield started


async def warnings(url: str, caplog: pytest.LogCaptureFixture, **options: object) -> list[str]:
    caplog.clear()
    async with redis_client(url) as redis:
        await redis.ping()
        await redis_advice.warn(redis, LOG, **options)  # type: ignore[arg-type]
    return [record.getMessage() for record in caplog.records if record.name == LOG.name]


async def test_eviction_and_clock(server, caplog):
    assert await warnings(server.url, caplog) == []
    with Redis.from_url(server.url) as admin:
        admin.config_set("maxmemory-policy", "allkeys-lru")
        assert await warnings(server.url, caplog) == []
        admin.config_set("maxmemory", "100mb")
        (line,) = await warnings(server.url, caplog)
        assert "allkeys-lru" in line
        lines = await warnings(server.url, caplog, wall=lambda: time.time() + 40)
        assert [re.search(r"allkeys-lru|seconds ahead", line)[0] for line in lines] == [
            "allkeys-lru",
            "seconds ahead",
        ]
        admin.config_set("maxmemory-policy", "noeviction")
    assert await warnings(server.url, caplog, wall=lambda: time.time() + 20) == []
    (line,) = await warnings(server.url, caplog, wall=lambda: time.time() - 40)
    assert "seconds behind" in line


async def test_a_user_who_may_not_ask_is_told_nothing(server, caplog):
    with Redis.from_url(server.url) as admin:
        admin.config_set("maxmemory", "100mb")
        admin.config_set("maxmemory-policy", "allkeys-lru")
        admin.execute_command("ACL", "SETUSER", "default", "-info", "-time")
    assert await warnings(server.url, caplog, wall=lambda: time.time() + 40) == []


async def test_a_cluster_is_warned_of_once(redis_cluster, caplog):
    assert await warnings(redis_cluster.url, caplog) == []
    ahead = itertools.count(40, 5)
    (line,) = await warnings(redis_cluster.url, caplog, wall=lambda: time.time() + next(ahead))
    assert re.search(r"[45]\d seconds ahead of Redis", line)


@pytest.mark.parametrize("program", SAID)
async def test_both_programs_warn_once_at_the_start(program, server, tmp_path):
    with Redis.from_url(server.url) as admin:
        admin.config_set("maxmemory", "100mb")
        admin.config_set("maxmemory-policy", "volatile-lru")
    environ = {"REDIS_URL": server.url} | (
        ENVIRON
        if program == "broadcaster"
        else {"DATABASE_URL": f"sqlite:///{tmp_path}/x.db", "LEGATO_PROVIDER_NAME": "scripted"}
    )
    options = ["--port", "0"] if program == "broadcaster" else []
    async with legato(program, *options, environ=environ) as process:
        await process.line(SAID[program])
        assert process.output.count("set maxmemory-policy noeviction") == 1


def limited(soft: int, hard: int) -> tuple[str, ...]:
    """What runs a command under a limit of open files."""
    return ("bash", "-c", f'ulimit -Sn {soft} && ulimit -Hn {hard} && exec "$@"', "bash")


SHORT = "limit of 512 open files is too low for server.max_connections = 500"
FILES = [
    (500, rf"WARNING.*{SHORT}"),
    (300, r"listening on"),  # raised to the hard limit: enough
    (0, r"INFO.*up to 384 connections: the limit of open files is 512"),
]


@pytest.mark.parametrize(("most", "said"), FILES)
async def test_the_file_limit_is_raised_or_told(most, said):
    environ = ENVIRON | {"LEGATO_SERVER_MAX_CONNECTIONS": str(most)}
    async with legato("broadcaster", "--port", "0", environ=environ, under=limited(200, 512)) as process:
        await process.line(f"(?i){said}")
        pid = process.process.pid
        await until(lambda: resource.prlimit(pid, resource.RLIMIT_NOFILE) == (512, 512))
        process.process.terminate()
        assert await process.end() == 0
    assert process.output.count("open files") == (most != 300)
