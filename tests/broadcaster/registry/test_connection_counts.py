"""How many connections an application has: on all nodes that live, whichever is asked."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

import pytest

from legato.broadcaster.bus.base import BusError
from legato.broadcaster.composition import running
from legato.broadcaster.redis_client import redis_client
from legato.broadcaster.registry import connection_counts
from legato.broadcaster.registry import lease as leases
from legato.broadcaster.registry.base import LocalRegistry
from legato.protocol import wire
from legato.protocol.settings import Redis
from tests.broadcaster.channels.test_features import get
from tests.broadcaster.conftest import client, local_settings
from tests.broadcaster.registry.test_registry import redis_node
from tests.conftest import BINARIES
from tests.redis_servers import RedisServer
from tests.waiting import WAIT

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """One that may be killed."""
    with RedisServer(BINARIES["valkey"]) as started:
        yield started


async def told(registry: Any, count: int, app_id: str = "1") -> None:
    """Wait until the registry says so."""
    async with asyncio.timeout(WAIT):
        while await registry.connections(app_id) != count:  # noqa: ASYNC110 - it is in Redis
            await asyncio.sleep(0.01)


async def test_alone():
    registry = LocalRegistry(lambda *_: None)
    assert await registry.connections("1") == 0
    registry.connected("1", 2)
    registry.connected("2", 5)
    assert await registry.connections("1") == 2


async def test_every_process_answers_the_sum(valkey_url):
    settings = local_settings(redis=Redis(url=valkey_url))
    async with running(settings) as one, running(settings) as other, contextlib.AsyncExitStack() as stack:
        for server in (one, one, one, other):
            await stack.enter_async_context(client(server.port))
        async with client(other.port):
            for server in (one, other):
                await told(server.node.registry, 5)
                assert await get(server, "/apps/1/connections") == (200, {"connections": 5})
        for server in (one, other):
            await told(server.node.registry, 4)


@pytest.mark.parametrize("place", ["valkey_url", "redis_cluster"])
async def test_counts_go_with_the_lease(place, request):
    found = request.getfixturevalue(place)
    url = found if place == "valkey_url" else found.url
    async with redis_client(url) as redis, redis_node(url, "here", lease=5) as here:
        async with redis_node(url, "there", lease=5) as there:
            here.registry.connected("1", 3)
            there.registry.connected("1", 4)
            there.registry.connected("2", 1)
            await told(here.registry, 7)
            await told(here.registry, 1, "2")
            await told(there.registry, 7)
            for state, count in ((leases.GONE, 3), (leases.FULL, 7), (None, 3), (leases.OPEN, 7)):
                if state is None:
                    await redis.delete(wire.lease_key("there"))
                else:
                    await redis.set(wire.lease_key("there"), state)
                assert await here.registry.connections("1") == count, state
            there.registry.connected("1", 0)
            await told(here.registry, 3)
        assert not await redis.exists(wire.connections_key("there"))
        assert await redis.ttl(wire.connections_key("here")) > 5


async def test_a_node_with_another_name_tells_everything_under_that(server):
    async with (
        redis_client(server.url) as redis,
        redis_node(server.url, "sleeper", lease=0.6) as node,
        redis_node(server.url, "other") as other,
    ):
        node.registry.connected("1", 3)
        await told(other.registry, 3)
        await redis.set(wire.lease_key("sleeper"), leases.GONE)
        async with asyncio.timeout(WAIT):
            while not node.lapses:  # noqa: ASYNC110 - it has no event
                await asyncio.sleep(0.01)
        node.registry.connected("2", 1)
        await told(other.registry, 1, "2")
        await told(other.registry, 3)


async def test_what_redis_has_lost_is_told_again(server):
    async with redis_node(server.url, "one", lease=2) as one, redis_node(server.url, "two", lease=2) as two:
        one.registry.connected("1", 3)
        await told(two.registry, 3)
        server.kill()
        one.registry.connected("2", 4)
        with pytest.raises(BusError):
            await two.registry.connections("1")
        server.start()
        async with asyncio.timeout(WAIT):
            while True:
                with contextlib.suppress(BusError, TimeoutError):
                    await told(two.registry, 3)
                    await told(two.registry, 4, "2")
                    break
                await asyncio.sleep(0.05)


async def test_many_changes_are_few_writes(server, monkeypatch):
    async with redis_node(server.url, "one") as one, redis_client(server.url) as redis:
        before = (await redis.info("commandstats")).get("cmdstat_hset", {"calls": 0})["calls"]
        began = time.monotonic()
        for count in range(1000):
            one.registry.connected("1", count)
            await asyncio.sleep(0)
        async with asyncio.timeout(WAIT):
            while await redis.hget(wire.connections_key("one"), "1") != b"999":  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        after = (await redis.info("commandstats"))["cmdstat_hset"]["calls"]
        assert (
            0 < after - before <= (time.monotonic() - began) / connection_counts.CONNECTION_COUNT_SECONDS + 2
        )
