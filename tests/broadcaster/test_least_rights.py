"""The user that docs/redis.md describes may do what the programs do, and no more."""

from __future__ import annotations

import pytest
from redis import Redis

from legato.broadcaster.bus.base import BusError
from legato.broadcaster.redis_client import ask, redis_client
from legato.protocol import wire
from tests import least_rights
from tests.broadcaster.registry.test_registry import ANN, NEWS, ROOM, redis_node
from tests.broadcaster.test_server import ENVIRON, legato
from tests.conftest import BINARIES
from tests.redis_servers import RedisServer
from tests.waiting import WAIT, until

PASSWORD = "hush-a-password"


@pytest.fixture(scope="module", params=BINARIES)
def server(request):
    with RedisServer(BINARIES[request.param]) as started:
        yield started


@pytest.fixture
def admin(server):
    server.flush()
    with Redis.from_url(server.url) as connected:
        connected.acl_log_reset()
        yield connected


def address(server: RedisServer, admin: Redis, *further: str) -> str:
    """For the user of the documents, with ``further`` rules."""
    admin.execute_command(
        "ACL", "SETUSER", "legato", "reset", f">{PASSWORD}", *least_rights.rules(), *further
    )
    return server.url.replace("unix://", f"unix://legato:{PASSWORD}@")


def test_every_command_in_the_sources_is_among_the_rights_and_nothing_else(admin):
    known = {name.decode() for name in admin.command_list()}
    assert least_rights.by_scripts() | least_rights.by_python(known) == least_rights.allowed()


async def test_what_another_node_has_left_is_taken_back_with_these_rights(server, admin):
    """Nothing that only happens when another node has died is missing."""
    url = address(server, admin)
    async with redis_node(url, "node-1", lease=0.6) as here:
        async with redis_client(url) as redis:
            dead = type(here.registry)(redis, "node-2", here.registry._owner, 600)
            await dead.start(lambda *_: None)
            for key, member in ((ROOM, ANN), (NEWS, None)):
                dead.join(key, "2.2", member, 9, lambda _: None)
            await dead.flush()
            for task in dead._tasks:
                task.cancel()
            admin.delete(wire.lease_key("node-2"))
            await until(lambda: len(here.left) == 2, 2 * WAIT)
            await until(lambda: not admin.sismember(wire.NODES_KEY, "node-2"))
        assert await here.registry.versions([NEWS]) == [0]
        assert await here.registry.remember(NEWS, "e", "d", 5)
        assert await here.registry.occupied("1") == {}
        assert not await here.registry.peers()
    assert [entry for entry in admin.acl_log() if entry["object"] != "client|setinfo"] == []


async def test_a_right_that_is_missing_is_named_at_the_start_in_one_line(server, admin):
    url = address(server, admin, "-eval")
    async with legato("broadcaster", environ=ENVIRON | {"REDIS_URL": url}) as process:
        assert await process.end() == 1
        (line,) = process.output.splitlines()
    assert "Redis refuses: " in line
    assert "'eval'" in line
    assert "pipeline" not in line
    assert PASSWORD not in line


async def test_a_refusal_is_told_without_what_was_to_be_written(server, admin):
    url = address(server, admin, "-sadd")
    async with redis_client(url) as redis, redis.pipeline(transaction=False) as pipeline:
        pipeline.sadd("legato:x", "a\nsecret")
        with pytest.raises(BusError, match=r"^Redis refuses: .*'sadd'") as caught:
            await ask(pipeline.execute())
    assert "secret" not in str(caught.value)
