"""One contract suite for the local bus and the Redis bus, and failures of Redis alone."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from typing import TYPE_CHECKING, NamedTuple

import pytest
from redis.asyncio.connection import Connection, UnixDomainSocketConnection

from legato.broadcaster.bus import linger, outbox
from legato.broadcaster.bus import reader as feed_module
from legato.broadcaster.bus.base import BusError
from legato.broadcaster.bus.local import LocalBus
from legato.broadcaster.bus.redis import RedisBus
from legato.broadcaster.channels.subscriber import Key
from legato.broadcaster.redis_client import ask, redis_client
from legato.protocol import wire
from legato.protocol.wire import Envelope
from tests.conftest import BINARIES
from tests.redis_servers import RedisServer
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection

    from legato.broadcaster.bus.base import BusChannel

KEY, OTHER = Key("1", "private-a"), Key("1", "b")


class Handler(NamedTuple):
    """A ``BusHandler`` that calls functions."""

    message: Callable[[BusChannel, Envelope], object] = lambda *_: None
    confirmed: Callable[[Key], object] = lambda _: None
    lost: Callable[[Collection[Key]], object] = lambda _: None


class Node:
    """A bus with a handler that records its calls."""

    def __init__(self, bus) -> None:
        self.bus = bus
        self.delivered: list = []
        self.confirmed: list = []
        self.lost: list[set[Key]] = []

    async def start(self) -> None:
        heard = Handler(
            lambda channel, envelope: self.delivered.append((channel.key, envelope)),
            self.confirmed.append,
            lambda keys: self.lost.append(set(keys)),
        )
        await self.bus.start(heard)

    async def subscribe(self, key: Key) -> None:
        count = len(self.confirmed)
        self.bus.subscribe(key)
        await until(lambda: len(self.confirmed) > count)

    async def publish(self, key: Key, *payloads: bytes) -> None:
        await self.bus.publish([(key, Envelope(payload)) for payload in payloads])

    async def got(self, *payloads: bytes) -> None:
        """Wait for exactly these payloads."""
        await until(lambda: len(self.delivered) >= len(payloads))
        assert [envelope.payload for _, envelope in self.delivered] == list(payloads)


@contextlib.asynccontextmanager
async def redis_node(url: str, *, linger: float = 0.0) -> AsyncIterator[Node]:
    async with redis_client(url) as client:
        node = Node(RedisBus(client, linger))
        await node.start()
        yield node
        await node.bus.close()


CLUSTERS = {"cluster": "redis_cluster", "valkey-cluster": "valkey_cluster"}


@pytest.fixture(params=["local", *BINARIES, *CLUSTERS, "lingering"])
async def node(request) -> AsyncIterator[Node]:
    if request.param == "local":
        local = Node(LocalBus())
        await local.start()
        yield local
        await local.bus.close()
        return
    if request.param in CLUSTERS:
        async with redis_node(request.getfixturevalue(CLUSTERS[request.param]).url) as started:
            yield started
        return
    lingering = request.param == "lingering"
    with RedisServer(BINARIES["valkey" if lingering else request.param]) as server:
        async with redis_node(server.url, linger=5.0 if lingering else 0.0) as started:
            yield started


class TestContract:
    async def test_what_is_published_after_the_confirmation_is_delivered_in_order(self, node):
        await node.subscribe(KEY)
        payloads = [str(n).encode() for n in range(200)]
        for payload in payloads[:100]:
            await node.publish(KEY, payload)
        await node.publish(KEY, *payloads[100:])
        await node.got(*payloads)

    async def test_concurrent_publishers_lose_nothing(self, node):
        await node.subscribe(KEY)
        await asyncio.gather(*(node.publish(KEY, str(n).encode()) for n in range(500)))
        await until(lambda: len(node.delivered) == 500)
        assert {int(envelope.payload) for _, envelope in node.delivered} == set(range(500))

    async def test_the_envelope_arrives_whole(self, node):
        await node.subscribe(KEY)
        envelope = Envelope(b"{}", "1.2", ("m", 3))
        await node.bus.publish([(KEY, envelope)])
        await until(lambda: node.delivered)
        assert node.delivered == [(KEY, envelope)]

    async def test_only_subscribed_channels_are_delivered(self, node):
        await node.subscribe(KEY)
        await node.publish(OTHER, b"other")
        await node.publish(KEY, b"mine")
        await node.got(b"mine")

    async def test_nothing_is_delivered_after_unsubscribing(self, node):
        await node.subscribe(KEY)
        await node.subscribe(OTHER)
        node.bus.unsubscribe(KEY)
        await node.publish(KEY, b"late")
        await node.publish(OTHER, b"other")
        await node.got(b"other")

    async def test_a_repeated_subscribe_is_confirmed_and_delivers(self, node):
        await node.subscribe(KEY)
        node.bus.unsubscribe(KEY)
        await node.publish(KEY, b"between")
        await node.subscribe(OTHER)
        await node.publish(OTHER, b"mark")  # what was before it on the way has arrived with it
        await node.got(b"mark")
        await node.subscribe(KEY)
        await node.publish(KEY, b"x")
        await node.got(b"mark", b"x")
        assert node.confirmed == [KEY, OTHER, KEY]

    async def test_unsubscribing_and_subscribing_at_once_delivers(self, node):
        for _ in range(5):
            node.bus.subscribe(KEY)
            node.bus.unsubscribe(KEY)
        count = len(node.confirmed)
        node.bus.subscribe(KEY)
        await until(lambda: len(node.confirmed) > count)
        await node.publish(KEY, b"x")
        await node.got(b"x")


@pytest.fixture
def server():
    with RedisServer(BINARIES["valkey"]) as started:
        yield started


async def test_two_nodes_receive_each_others_messages(server):
    async with redis_node(server.url) as ann, redis_node(server.url) as bob:
        await ann.subscribe(KEY)
        await bob.publish(KEY, b"x")
        await ann.got(b"x")
        assert bob.delivered == []


async def test_after_a_restart_of_redis_the_subscriptions_come_back(server, caplog):
    async with redis_node(server.url) as node:
        await node.subscribe(KEY)
        await node.subscribe(OTHER)
        server.kill()
        await until(lambda: node.bus.gaps == 1)
        with pytest.raises(BusError, match="Redis did not accept"):
            await node.publish(KEY, b"lost")
        node.bus.unsubscribe(OTHER)
        third = Key("1", "c")
        node.bus.subscribe(third)
        server.start()
        await until(lambda: node.confirmed.count(KEY) == 2 and third in node.confirmed)
        assert node.confirmed.count(OTHER) == 1
        await node.publish(KEY, b"x")
        await node.publish(third, b"y")
        await node.got(b"x", b"y")
        assert (node.bus.gaps, node.lost) == (1, [{KEY, OTHER}])
    assert "Redis connection lost" in caplog.text


async def test_an_internal_error_while_reading_reconnects(server, caplog):
    async with redis_node(server.url) as node:
        await node.subscribe(KEY)
        deliver, node.bus._on_message = node.bus._on_message, None
        await node.publish(KEY, b"lost")
        await until(lambda: node.bus.gaps == 1)
        node.bus._on_message = deliver
        await until(lambda: node.confirmed.count(KEY) == 2)
        await node.publish(KEY, b"x")
        await node.got(b"x")
    assert "reading from Redis failed" in caplog.text


async def test_an_internal_error_while_publishing_fails_the_publishers(server, monkeypatch, caplog):
    async with redis_node(server.url) as node:
        await node.subscribe(KEY)
        monkeypatch.setattr(node.bus._outbox._redis, "pipeline", None)
        with pytest.raises(BusError, match="could not be published"):
            await node.publish(KEY, b"x")
        monkeypatch.undo()
        await node.publish(KEY, b"y")
        await node.got(b"y")
    assert "publishing failed" in caplog.text


async def test_a_redis_without_sharded_pubsub_is_one_clear_error():
    with RedisServer(BINARIES["valkey"], "--rename-command", "SSUBSCRIBE", "") as old:
        async with redis_client(old.url) as client:
            with pytest.raises(BusError, match=r"Redis 7\.0 or newer"):
                await RedisBus(client).start(Handler())


async def test_an_unreachable_server_is_one_clear_error(tmp_path):
    async with redis_client(f"unix://{tmp_path}/none.sock") as client:
        with pytest.raises(BusError, match="Redis cannot be reached"):
            await Node(RedisBus(client)).start()


async def test_a_password_is_not_in_the_error():
    async with redis_client("redis://user:hunter2@127.0.0.1:1/0") as client:
        with pytest.raises(BusError) as caught:
            await Node(RedisBus(client)).start()
    assert "hunter2" not in str(caught.value)


async def test_an_idle_connection_is_pinged_and_kept(server, monkeypatch):
    monkeypatch.setattr(feed_module, "BUS_HEALTH_CHECK_SECONDS", 0.05)
    async with redis_node(server.url) as node:
        await node.subscribe(KEY)
        async with redis_client(server.url) as other:

            async def pings() -> int:
                return (await other.info("commandstats")).get("cmdstat_ping", {}).get("calls", 0)

            start = await pings()
            async with asyncio.timeout(5):
                while await pings() < start + 3:  # noqa: ASYNC110 - the count is in Redis
                    await asyncio.sleep(0.02)
        assert node.bus.gaps == 0
        await node.publish(KEY, b"x")
        await node.got(b"x")


async def test_a_frozen_redis_is_noticed(server, monkeypatch):
    monkeypatch.setattr(feed_module, "BUS_HEALTH_CHECK_SECONDS", 0.1)
    async with redis_node(server.url) as node:
        await node.subscribe(KEY)
        async with redis_client(server.url) as other:
            await other.client_pause(2_000, all=True)
        await until(lambda: node.bus.gaps == 1)


async def test_an_invalid_envelope_is_ignored(server, caplog):
    async with redis_node(server.url) as node:
        await node.subscribe(KEY)
        async with redis_client(server.url) as other:
            await other.execute_command("SPUBLISH", wire.bus_channel(*KEY), b"junk")
        await node.publish(KEY, b"x")
        await node.got(b"x")
    assert "ignored a message on the bus" in caplog.text


async def test_publishing_to_a_full_outbox_is_refused_at_once(server, monkeypatch):
    monkeypatch.setattr(outbox, "MAX_OUTBOX_MESSAGES", 2)
    async with redis_node(server.url) as node:
        with pytest.raises(BusError, match="too many messages wait"):
            await node.publish(KEY, b"1", b"2", b"3")
        await node.publish(KEY, b"1", b"2")


async def test_closing_fails_what_was_not_accepted_yet(server):
    async with redis_node(server.url) as node:
        waiting = asyncio.ensure_future(node.publish(KEY, b"x"))
        await asyncio.sleep(0)
        await node.bus.close()
        with pytest.raises(BusError, match="the server is stopping"):
            await waiting


async def test_many_subscriptions_at_once_are_all_confirmed(server):
    async with redis_node(server.url) as node:
        keys = [Key("1", f"c{n}") for n in range(1_200)]
        for key in keys:
            node.bus.subscribe(key)
        await until(lambda: len(node.confirmed) == len(keys))
        assert set(node.confirmed) == set(keys)


async def test_a_connection_that_uvloop_calls_closed_is_a_lost_one(valkey_url, monkeypatch):
    async def closed(*_arguments, **_options):
        raise RuntimeError("unable to perform operation on <UnixTransport>; the handler is closed")

    async with redis_client(valkey_url) as client:
        await client.ping()
        for kind in (Connection, UnixDomainSocketConnection):
            monkeypatch.setattr(kind, "send_packed_command", closed)
        with pytest.raises(BusError, match="Redis does not answer"):
            await ask(client.ping())
        monkeypatch.undo()
        assert await ask(client.ping())


class TestLingering:
    """A channel stays subscribed for a while after its last subscriber has left."""

    async def subscribed(self, server, *keys: Key) -> list[bool]:
        """The subscribed channels according to Redis."""
        async with redis_client(server.url) as other:
            names = [wire.bus_channel(*key) for key in keys]
            answer = await other.execute_command("PUBSUB", "SHARDNUMSUB", *names)
        return [bool(count) for count in answer[1::2]]

    async def becomes(self, server, keys: list[Key], expected: list[bool]) -> None:
        async with asyncio.timeout(40):
            while await self.subscribed(server, *keys) != expected:  # noqa: ASYNC110 - Redis says nothing
                await asyncio.sleep(0.02)

    async def commands(self, server) -> int:
        async with redis_client(server.url) as other:
            return (await other.info("commandstats"))["cmdstat_ssubscribe"]["calls"]

    async def test_a_lingering_channel_is_confirmed_at_once(self, server):
        async with redis_node(server.url, linger=5.0) as node:
            await node.subscribe(KEY)
            calls = await self.commands(server)
            for count in range(2, 5):
                node.bus.unsubscribe(KEY)
                node.bus.subscribe(KEY)
                assert node.confirmed == [KEY] * count
            await node.publish(KEY, b"x")
            await node.got(b"x")
            assert await self.commands(server) == calls

    async def test_a_lingering_channel_is_unsubscribed_when_its_delay_is_over(self, server):
        async with redis_node(server.url, linger=0.05) as node:
            await node.subscribe(KEY)
            await node.subscribe(OTHER)
            node.bus.unsubscribe(KEY)
            await self.becomes(server, [KEY, OTHER], [False, True])
            node.bus.unsubscribe(OTHER)
            await self.becomes(server, [OTHER], [False])
            await node.subscribe(KEY)
            assert await self.subscribed(server, KEY) == [True]

    async def test_many_expired_channels_are_unsubscribed_over_several_turns(self, monkeypatch):
        monkeypatch.setattr(linger, "UNSUBSCRIBES_PER_TURN", 2)
        gone: list[Key] = []
        lingering = linger.Lingering(0.01, gone.append)
        keys = [Key("1", str(number)) for number in range(5)]
        left = []
        end_due = lingering._end_due
        lingering._end_due = lambda: (end_due(), left.append(len(lingering.keys)))  # type: ignore[method-assign]
        for key in keys:
            lingering.put(key)
        await until(lambda: not lingering.keys)
        assert all(before - after <= 2 for before, after in itertools.pairwise([5, *left]))
        assert (len(left) >= 3, gone) == (True, keys)
        lingering.close()

    async def test_above_the_maximum_the_oldest_is_unsubscribed_at_once(self, server, monkeypatch):
        monkeypatch.setattr(linger, "MAX_LINGERING_CHANNELS", 1)
        async with redis_node(server.url, linger=1_000.0) as node:
            await node.subscribe(KEY)
            await node.subscribe(OTHER)
            node.bus.unsubscribe(KEY)
            node.bus.unsubscribe(OTHER)
            await self.becomes(server, [KEY, OTHER], [False, True])

    async def test_a_lost_connection_ends_lingering_and_a_subscriber_waits_for_confirmation(self, server):
        async with redis_node(server.url, linger=5.0) as node:
            await node.subscribe(KEY)
            await node.subscribe(OTHER)
            node.bus.unsubscribe(KEY)
            server.kill()
            await until(lambda: node.lost == [{KEY, OTHER}])
            node.bus.subscribe(KEY)
            node.bus.unsubscribe(OTHER)
            assert node.confirmed == [KEY, OTHER]
            server.start()
            await until(lambda: len(node.confirmed) == 3)
            assert node.confirmed == [KEY, OTHER, KEY]
            assert await self.subscribed(server, KEY, OTHER) == [True, False]
            await node.publish(KEY, b"x")
            await node.got(b"x")
            assert node.bus.gaps == 1
