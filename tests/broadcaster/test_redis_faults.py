"""A whole node while its Redis is unreachable or in a bad state, and afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any, NamedTuple

import jwt
import pytest
import redis as sync_redis

from legato.broadcaster.composition import StartError, running
from legato.broadcaster.config import Auth, Server
from legato.protocol.settings import Redis
from tests.broadcaster.api.test_http_api import EVENTS, call, post
from tests.broadcaster.bus.test_bus import KEY, redis_node
from tests.broadcaster.conftest import Client, client, local_settings
from tests.conftest import BINARIES, SYSTEM
from tests.redis_clusters import Sentinels, TcpServer
from tests.redis_servers import RedisServer
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PATIENCE = 80.0
"""Seconds. A Sentinel that was stalled for two seconds does nothing for thirty."""

LEASE = 300.0
"""Long enough for any of these faults: an expired lease is tested elsewhere."""

SECRET = "a secret of more than thirty-two bytes"
CHANNEL = "private-room"


class Stage(NamedTuple):
    """A node with a client that stays connected, and a publisher."""

    port: int
    ann: Client
    heard: list[int]
    answers: dict[int, int]

    async def ready(self) -> tuple[int, Any]:
        return await call(self.port, "/up?ready", method="GET")

    async def until_ready(self, status: int, reason: str | None = None) -> None:
        said = None
        try:
            async with asyncio.timeout(PATIENCE):
                while said != (status, reason):
                    found, body = await self.ready()
                    said = found, body.get("reason")
                    await asyncio.sleep(0.02)
        except TimeoutError:
            pytest.fail(f"waited for {(status, reason)}, and it said {said}")

    async def send(self) -> int:
        """Send a chat message. Returns the status."""
        token = jwt.encode({"sub": 7, "exp": 2**32}, SECRET)
        headers = {"Authorization": f"Bearer {token}"}
        body = json.dumps({"message": "x", "history": []}).encode()
        return (await call(self.port, "/api/chat/send", body, headers=headers))[0]

    async def until_answered(self, status: int) -> None:
        """Wait until a chat message gets this status."""
        seen = len(self.answers)
        await until(lambda: status in list(self.answers.values())[seen:], PATIENCE)

    async def suffers(self, reason: str = "not connected to Redis") -> None:
        """Assert that the node refuses what it cannot do, and reports that."""
        await self.until_ready(503, reason)
        await self.until_answered(503)
        assert await self.send() == 503
        assert (await call(self.port, "/up", method="GET"))[0] == 200

    async def is_well(self) -> None:
        """Assert that the same client receives messages again, and that chat works."""
        await self.until_ready(200)
        await self.until_answered(200)
        count = len(self.heard)
        await until(lambda: len(self.heard) > count + 3, PATIENCE)
        assert await self.send() == 200
        assert self.ann.connection.close_code is None


async def publish(port: int, answers: dict[int, int], stop: asyncio.Event) -> None:
    for number in range(1_000_000):
        if stop.is_set():
            return
        event = {"name": "e", "data": str(number), "channel": CHANNEL}
        answers[number] = (await post(port, EVENTS, event))[0]
        await asyncio.sleep(0.01)


async def listen(ann: Client, heard: list[int]) -> None:
    async for text in ann.connection:
        message = json.loads(text)
        if message["event"] == "e":
            heard.append(int(message["data"]))


@contextlib.asynccontextmanager
async def stage(url: str) -> AsyncIterator[Stage]:
    bound = Server(port=0, drain_seconds=0, lease_seconds=LEASE)
    settings = local_settings(redis=Redis(url=url), auth=Auth(jwt_secret=SECRET), server=bound)
    async with running(settings) as server, client(server.port) as ann:
        await ann.subscribe(CHANNEL)
        heard: list[int] = []
        answers: dict[int, int] = {}
        stop = asyncio.Event()
        tasks = [
            asyncio.create_task(publish(server.port, answers, stop)),
            asyncio.create_task(listen(ann, heard)),
        ]
        try:
            playing = Stage(server.port, ann, heard, answers)
            await playing.is_well()
            yield playing
            stop.set()
            await tasks[0]
            last = max(answers)
            await until(lambda: heard[-1:] == [last])
            # At most once, in order, and nobody was told of a fault of the server's own.
            assert heard == sorted(set(heard))
            assert set(answers.values()) <= {200, 503}
        finally:
            stop.set()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def persistent() -> RedisServer:
    return RedisServer(SYSTEM, "--appendonly", "yes", "--appendfsync", "always")


async def test_redis_goes_away_and_comes_back():
    with persistent() as server:
        async with stage(server.url) as playing:
            server.kill()
            await playing.suffers()
            server.start()
            await playing.is_well()


async def test_redis_comes_back_and_loads_for_a_while():
    slowly = ("--loading-process-events-interval-bytes", "1024", "--key-load-delay", "100000")
    with RedisServer(BINARIES["valkey"], "--rdbcompression", "no") as server, contextlib.ExitStack() as stack:
        admin = stack.enter_context(sync_redis.Redis.from_url(server.url))
        async with stage(server.url) as playing:
            for number in range(1_000):  # at a tenth of a second each: until it is told otherwise
                admin.set(f"ballast-{number}", b"x" * 2_048)
            admin.save()
            server.kill()
            server.start(*slowly, loading=True)
            await playing.suffers()
            admin.config_set("key-load-delay", "0")
            await playing.is_well()


async def test_a_master_that_becomes_a_replica_is_not_used_as_if_it_were_one(caplog):
    with contextlib.ExitStack() as stack:
        server, other = (stack.enter_context(TcpServer.started(SYSTEM)) for _ in range(2))
        ours, theirs = (stack.enter_context(one.client()) for one in (server, other))
        async with stage(f"redis://{server.address}") as playing:
            theirs.replicaof("127.0.0.1", server.port)
            await until(lambda: theirs.info("replication").get("master_link_status") == "up")
            theirs.replicaof("NO", "ONE")
            ours.replicaof("127.0.0.1", other.port)
            assert await playing.send() == 503  # the first to notice
            await playing.suffers()
            ours.replicaof("NO", "ONE")
            await playing.is_well()
        assert "the server is no longer a master" in caplog.text


async def test_a_node_that_only_subscribes_detects_a_demoted_master():
    """All connections that would get READONLY are lost, and new ones are refused."""
    with contextlib.ExitStack() as stack:
        server, other = (stack.enter_context(TcpServer.started(SYSTEM)) for _ in range(2))
        ours = stack.enter_context(server.client())
        async with stage(f"redis://{server.address}") as playing:
            with ours.pipeline(transaction=True) as at_once:
                at_once.replicaof("127.0.0.1", other.port)
                at_once.client_kill_filter(_type="normal", skipme=True)
                at_once.execute()
            await playing.suffers()
            ours.replicaof("NO", "ONE")
            await playing.is_well()


async def test_a_node_that_reads_too_slowly_is_cut_off_and_subscribes_again():
    with RedisServer(SYSTEM, "--client-output-buffer-limit", "pubsub 1mb 1mb 1") as server:
        async with redis_node(server.url) as node, redis_node(server.url) as sender:
            await node.subscribe(KEY)
            (feed,) = node.bus._feeds._feeds.values()
            transport = feed._connection._writer.transport
            transport.pause_reading()
            for _ in range(100):
                await sender.publish(KEY, b"x" * 65_536)
            with sync_redis.Redis.from_url(server.url) as admin:
                await until(lambda: all(client["ssub"] == "0" for client in admin.client_list()))
            transport.resume_reading()
            await until(lambda: node.confirmed.count(KEY) == 2)
            assert (node.bus.gaps, node.lost) == (1, [{KEY}])
            await node.publish(KEY, b"y")
            await until(lambda: node.delivered[-1][1].payload == b"y")


async def test_a_fail_over_of_sentinel():
    with Sentinels(SYSTEM, sentinels=1) as sentinels:
        async with stage(sentinels.url) as playing:
            old = sentinels.master
            old.kill()
            await playing.suffers()
            await playing.is_well()
            assert sentinels.master is not old


async def test_an_address_of_the_wrong_kind_says_what_is_wrong(redis_cluster):
    url = f"redis://{redis_cluster.servers[0].address}"
    with pytest.raises(StartError, match=r"cluster mode: its address begins with redis\+cluster://"):
        async with running(local_settings(redis=Redis(url=url))):
            pass
    with TcpServer.started(SYSTEM) as server:
        url = f"redis+cluster://{server.address}"
        with pytest.raises(StartError, match="standalone mode: its address begins with redis://"):
            async with running(local_settings(redis=Redis(url=url))):
                pass
        url = f"redis+sentinel://{server.address}/mymaster"
        with pytest.raises(StartError, match="no Sentinel says where the master is"):
            async with running(local_settings(redis=Redis(url=url))):
                pass


@pytest.mark.parametrize("kind", ["redis", "redis+cluster", "redis+sentinel"])
async def test_an_unreachable_redis_is_one_line_without_the_password(kind):
    url = f"{kind}://user:hush@127.0.0.1:1" + ("/mymaster?sentinel_password=hush" if "sent" in kind else "")
    with pytest.raises(StartError, match=r"Redis cannot be reached: .*127\.0\.0\.1:1") as caught:
        async with running(local_settings(redis=Redis(url=url))):
            pass
    assert "hush" not in str(caught.value)
