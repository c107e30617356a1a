"""Admission: the cluster-wide quota of an application, and early messages of clients."""

from __future__ import annotations

import asyncio
import contextlib
import json

import msgspec
import pytest

from legato.broadcaster.channels.subscriber import Key
from legato.broadcaster.clients import admission as entrance
from legato.broadcaster.composition import running
from legato.broadcaster.config import Server
from legato.protocol import wire
from legato.protocol.settings import Redis
from tests.broadcaster.conftest import APP, client, dial, local_settings
from tests.broadcaster.transport.fed import door
from tests.broadcaster.transport.test_plain import FIREFOX
from tests.conftest import BINARIES
from tests.redis_servers import RedisServer
from tests.waiting import until

FEW = msgspec.structs.replace(APP, max_connections=2)
CONNECTIONS = Key(APP.id, wire.CONNECTIONS)


async def refusal(port: int) -> int:
    """The close code of one more client, which is refused."""
    async with dial(port) as one:
        code = (await one.receive())["data"]["code"]
        assert await one.closed() == code
        return code


@pytest.fixture(params=["local", "valkey"])
def few(request):
    url = request.getfixturevalue("valkey_url") if request.param == "valkey" else ""
    return local_settings(FEW, redis=Redis(url=url))


async def counted(server) -> int:
    (counts,) = await server.node.registry.counts([CONNECTIONS])
    return counts.subscriptions


async def test_a_client_that_leaves_frees_the_quota(few):
    async with running(few) as server:
        async with client(server.port), client(server.port):
            assert await refusal(server.port) == 4004
        await until(lambda: not server.node.clients.open)
        async with client(server.port), client(server.port):
            assert await refusal(server.port) == 4004
        assert server.node.connections.refused == {4004: 2}


async def test_the_quota_holds_over_all_nodes(valkey_url):
    """Many connect at once to two nodes: exactly the quota is admitted."""
    app = msgspec.structs.replace(FEW, max_connections=7, over_quota="back_off")
    settings = local_settings(app, redis=Redis(url=valkey_url))
    async with running(settings) as one, running(settings) as two, contextlib.AsyncExitStack() as stack:
        dials = [dial(server.port) for server in (one, two) for _ in range(10)]
        people = [await stack.enter_async_context(each) for each in dials]
        said = [await each.receive() for each in people]
        assert [each["event"] for each in said].count("pusher:connection_established") == 7
        refused = [each["data"]["code"] for each in said if each["event"] == "pusher:error"]
        assert refused == [4100] * 13
        assert len(one.node.clients.open) + len(two.node.clients.open) == 7
        assert not one.node.admission._waiting
        assert not two.node.admission._waiting


async def test_without_a_quota_no_client_waits(valkey_url, monkeypatch):
    """The greeting is sent without a query to Redis."""
    async with running(local_settings(redis=Redis(url=valkey_url))) as server:
        monkeypatch.setattr(server.node.registry, "enter", None)
        async with client(server.port):
            assert await counted(server) == 0


async def test_early_messages_are_answered_after_the_greeting(valkey_url):
    settings = local_settings(FEW, redis=Redis(url=valkey_url))
    async with running(settings) as server:
        answer = held(server)
        async with dial(server.port) as ann:
            await ann.send("pusher:ping")
            await ann.send("pusher:subscribe", {"channel": "a"})
            await until(lambda: [len(one.early) for one in server.node.admission._waiting] == [2])
            answer.set()
            events = [(await ann.receive())["event"] for _ in range(3)]
        assert events == [
            "pusher:connection_established",
            "pusher:pong",
            "pusher_internal:subscription_succeeded",
        ]


def held(server) -> asyncio.Event:
    """Redis answers the quota query once the event is set."""
    answer, enter = asyncio.Event(), server.node.registry.enter

    def later(app_id, socket_id, limit, done):
        async def wait(admitted):
            await answer.wait()
            done(admitted)

        background = server.node.background
        enter(app_id, socket_id, limit, lambda admitted: background.spawn(wait(admitted)))

    server.node.registry.enter = later
    return answer


async def test_early_messages_are_bounded(valkey_url):
    server_settings = Server(port=0, drain_seconds=0, send_queue_bytes=2000)
    settings = local_settings(FEW, redis=Redis(url=valkey_url), server=server_settings)
    async with running(settings) as server:
        answer = held(server)
        async with dial(server.port) as ann:
            for _ in range(10):
                await ann.send("pusher:ping")
            assert (await ann.receive())["data"]["code"] == 4100
            assert await ann.closed() == 4100
        answer.set()
        await server.node.registry.flush()
        assert await counted(server) == 0
        assert not server.node.clients.open


async def test_a_client_that_leaves_before_the_answer_is_not_counted(valkey_url):
    settings = local_settings(FEW, redis=Redis(url=valkey_url))
    async with running(settings) as server:
        answer = held(server)
        async with dial(server.port) as ann:
            await until(lambda: server.node.admission._waiting)
            ann.connection.transport.abort()
            await until(lambda: not server.node.admission._waiting)
        answer.set()
        await server.node.registry.flush()
        assert (await counted(server), server.node.connections.accepted) == (0, 0)


async def test_without_redis_clients_under_a_quota_are_refused(monkeypatch):
    """They are told to reconnect, and are admitted when Redis is back. Others do not need Redis."""
    monkeypatch.setattr(entrance, "QUOTA_CHECK_SECONDS", 0.2)
    free = msgspec.structs.replace(APP, id="2", key="free")
    with RedisServer(BINARIES["valkey"]) as redis:
        settings = local_settings(redis=Redis(url=redis.url))
        settings = msgspec.structs.replace(settings, apps=(FEW, free))
        async with running(settings) as server:
            redis.kill()
            assert await refusal(server.port) == 4100
            async with dial(server.port, "/app/free") as bob:
                assert (await bob.receive())["event"] == "pusher:connection_established"
            redis.start()
            monkeypatch.undo()
            async with client(server.port), client(server.port):
                assert await refusal(server.port) == 4004


async def test_a_quota_set_later_counts_the_open_connections(few):
    settings = msgspec.structs.replace(few, apps=(APP,))
    async with running(settings) as server, client(server.port), client(server.port):
        await server.node.app_changes.apply((FEW,))
        assert await refusal(server.port) == 4004
        assert await counted(server) == 2


async def test_an_application_that_is_removed_while_a_client_waits(valkey_url):
    async with running(local_settings(FEW, redis=Redis(url=valkey_url))) as server:
        answer = held(server)
        async with dial(server.port) as ann:
            await until(lambda: server.node.admission._waiting)
            await server.node.app_changes.apply(())
            answer.set()
            assert (await ann.receive())["data"]["code"] == 4001
        await server.node.registry.flush()
        assert await counted(server) == 0


async def test_clients_of_the_fallback_transports_wait_too(valkey_url):
    """The session exists while its client waits. A refusal arrives on the receive request."""
    app = msgspec.structs.replace(FEW, max_connections=1)
    async with running(local_settings(app, redis=Redis(url=valkey_url))) as server, client(server.port):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        poll = b"POST /pusher/app/app-key/1/abcdefgh/xhr HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
        said = b""
        async with asyncio.timeout(30):
            while b"c[" not in said:
                writer.write(poll)  # one may end with the opening of the session
                said = await reader.readuntil(b"\r\n0\r\n\r\n")
        frame = said[said.index(b"c[") + 1 :]
        assert json.JSONDecoder().raw_decode(frame.decode())[0][0] == 4004
        writer.close()


async def test_a_node_that_is_full_takes_nobody(monkeypatch):
    """Whatever the application's quota is."""
    async with door() as opened:
        one = opened.come()
        monkeypatch.setattr(type(opened.node.clients), "takes_nobody", True)
        one.read(FIREFOX)
        await opened.calm()
        assert b"4100" in one.written
        assert b"connection_established" not in one.written
        one.protocol.connection_lost(None)
