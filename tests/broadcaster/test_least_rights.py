"""The Redis user in docs/redis.md has the rights that the programs need, and no others."""

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
    """A URL for the documented user, with ``further`` rules."""
    admin.execute_command(
        "ACL", "SETUSER", "legato", "reset", f">{PASSWORD}", *least_rights.rules(), *further
    )
    return server.url.replace("unix://", f"unix://legato:{PASSWORD}@")


def test_every_command_in_the_sources_is_among_the_rights_and_nothing_else(admin):
    known = {name.decode() for name in admin.command_list()}
    assert least_rights.by_scripts() | least_rights.by_python(known) == least_rights.allowed()


async def test_entries_of_a_dead_node_can_be_removed_with_these_rights(server, admin):
    """The commands that are only used after the death of another node are among the rights."""
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


async def test_a_missing_right_is_named_at_the_start_in_one_line(server, admin):
    url = address(server, admin, "-eval")
    async with legato("broadcaster", environ=ENVIRON | {"REDIS_URL": url}) as process:
        assert await process.end() == 1
        (line,) = process.output.splitlines()
    assert "Redis refuses: " in line
    assert "'eval'" in line
    assert "pipeline" not in line
    assert PASSWORD not in line


async def test_a_refusal_is_logged_without_the_data(server, admin):
    url = address(server, admin, "-sadd")
    async with redis_client(url) as redis, redis.pipeline(transaction=False) as pipeline:
        pipeline.sadd("legato:x", "a\nsecret")
        with pytest.raises(BusError, match=r"^Redis refuses: .*'sadd'") as caught:
            await ask(pipeline.execute())
    assert "secret" not in str(caught.value)
