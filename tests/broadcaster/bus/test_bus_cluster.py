"""The bus and the registry on a Cluster whose slots move and whose masters die."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest

from legato.broadcaster.bus.base import BusError
from legato.broadcaster.channels.subscriber import Key
from legato.broadcaster.redis_client import redis_client
from legato.broadcaster.registry.base import Left
from legato.protocol import wire
from legato.protocol.redis.slots import slot_of
from tests.broadcaster.bus.test_bus import Node, redis_node
from tests.broadcaster.registry.test_registry import ANN, NEWS, ROOM
from tests.broadcaster.registry.test_registry import redis_node as registry_node
from tests.conftest import SYSTEM
from tests.redis_clusters import Cluster
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.redis_clusters import TcpServer


def slot(key: Key) -> int:
    return slot_of(wire.bus_channel(*key).encode())


def key_on(cluster: Cluster, server: TcpServer) -> Key:
    """A channel in a slot of this server."""
    return next(
        key for key in (Key("1", f"room-{n}") for n in range(10_000)) if cluster.owner(slot(key)) is server
    )


def other_than(cluster: Cluster, key: Key) -> TcpServer:
    owner = cluster.owner(slot(key))
    return next(server for server in cluster.masters if server is not owner)


class Publisher:
    """Publishes consecutive numbers to a channel until stopped."""

    def __init__(self, node: Node, key: Key) -> None:
        self.node, self.key = node, key
        self.accepted: list[int] = []
        self.refused: list[int] = []
        self.stopped = False

    async def run(self) -> None:
        for number in range(1_000_000):
            if self.stopped:
                return
            try:
                await self.node.publish(self.key, str(number).encode())
            except BusError:
                self.refused.append(number)
            else:
                self.accepted.append(number)
            await asyncio.sleep(0.002)

    def heard_by(self, node: Node) -> list[int]:
        return [int(envelope.payload) for key, envelope in node.delivered if key == self.key]


@contextlib.asynccontextmanager
async def publishing(node: Node, *keys: Key) -> AsyncIterator[list[Publisher]]:
    publishers = [Publisher(node, key) for key in keys]
    tasks = [asyncio.create_task(publisher.run()) for publisher in publishers]
    try:
        yield publishers
    finally:
        for publisher in publishers:
            publisher.stopped = True
        await asyncio.gather(*tasks)


async def all_heard(publisher: Publisher, node: Node) -> None:
    """Publish a last message and wait for it."""
    await publisher.node.publish(publisher.key, b"1000000")
    await until(lambda: publisher.heard_by(node)[-1:] == [1_000_000])


async def test_channels_of_every_shard_have_one_reader_each(redis_cluster):
    async with redis_node(redis_cluster.url) as node:
        keys = [key_on(redis_cluster, server) for server in redis_cluster.masters]
        for key in keys:
            await node.subscribe(key)
            await node.publish(key, b"x")
        await until(lambda: len(node.delivered) == 3)
        assert {key for key, _ in node.delivered} == set(keys)
        for server in redis_cluster.masters:
            with server.client() as admin:
                readers = [client for client in admin.client_list() if client["ssub"] != "0"]
                assert [reader["ssub"] for reader in readers] == ["1"]
        assert node.bus.connected


async def test_a_slot_moves_while_it_is_published_and_listened_to(redis_cluster):
    moving = key_on(redis_cluster, redis_cluster.masters[0])
    staying = key_on(redis_cluster, redis_cluster.masters[1])
    async with redis_node(redis_cluster.url) as node, redis_node(redis_cluster.url) as sender:
        await node.subscribe(moving)
        await node.subscribe(staying)
        async with publishing(sender, moving, staying) as (moved, stayed):
            for target in (redis_cluster.masters[2], redis_cluster.masters[0]):
                confirmed = node.confirmed.count(moving)
                await until(lambda: len(moved.accepted) > 20)
                await asyncio.to_thread(redis_cluster.move, slot(moving), target)
                await until(lambda: node.confirmed.count(moving) > confirmed)  # noqa: B023 - waited for here
                count = len(moved.heard_by(node))
                await until(lambda: len(moved.heard_by(node)) > count + 20)  # noqa: B023
        await all_heard(moved, node)
        await all_heard(stayed, node)
        # The move costs the messages of a moment, never the order, and never a message twice.
        assert (moved.refused, stayed.refused) == ([], [])
        heard = moved.heard_by(node)
        assert heard == sorted(set(heard))
        assert stayed.heard_by(node) == [*stayed.accepted, 1_000_000]
        assert (node.lost, node.confirmed.count(staying)) == ([{moving}, {moving}], 1)
        assert (node.bus.gaps, node.bus.connected) == (2, True)


async def test_a_slot_that_moved_without_subscribers_is_found(redis_cluster):
    async with redis_node(redis_cluster.url) as node:
        key = key_on(redis_cluster, redis_cluster.masters[1])
        await node.publish(key, b"learn who has what")
        await asyncio.to_thread(redis_cluster.move, slot(key), redis_cluster.masters[2])
        await node.subscribe(key)
        await node.publish(key, b"x")
        await node.got(b"x")
        assert (node.lost, node.bus.gaps) == ([], 0)


async def test_an_unserved_slot_is_waited_for(redis_cluster):
    lost, kept = (key_on(redis_cluster, server) for server in redis_cluster.masters[:2])
    owner = redis_cluster.owner(slot(lost))
    async with redis_node(redis_cluster.url) as node:
        await node.subscribe(lost)
        await node.subscribe(kept)
        for server in redis_cluster.masters:
            with server.client() as admin:
                admin.execute_command("CLUSTER", "DELSLOTS", slot(lost))
        await until(lambda: node.lost == [{lost}])
        await until(lambda: not node.bus.connected)
        with pytest.raises(BusError, match="Redis did not accept"):
            await node.publish(lost, b"refused")
        await node.publish(kept, b"kept")
        for server in redis_cluster.masters:
            with server.client() as admin, owner.client() as old:
                admin.execute_command(
                    "CLUSTER", "SETSLOT", slot(lost), "NODE", old.execute_command("CLUSTER", "MYID")
                )
        await until(lambda: node.confirmed.count(lost) == 2)
        await until(lambda: node.bus.connected)
        await node.publish(lost, b"back")
        await node.got(b"kept", b"back")
        assert node.confirmed.count(kept) == 1


async def test_changes_of_a_channel_wait_until_its_keys_have_moved(redis_cluster):
    target = other_than(redis_cluster, ROOM)
    async with registry_node(redis_cluster.url) as node:
        await node.join(ROOM, "1.1", ANN)
        await asyncio.to_thread(redis_cluster.begin_move, slot(ROOM), target)
        joining = asyncio.ensure_future(node.join(ROOM, "2.2", ANN))
        leaving = asyncio.ensure_future(node.leave(ROOM, "1.1", ANN))
        elsewhere = asyncio.ensure_future(node.join(NEWS, "2.2"))
        await asyncio.to_thread(redis_cluster.move_keys, slot(ROOM), target)
        await asyncio.to_thread(redis_cluster.end_move, slot(ROOM), target)
        assert (await joining).subscriptions == 2
        assert (await leaving).subscriptions == 1
        assert (await elsewhere).first
        assert await node.registry.members(ROOM) == ["ann"]
        assert await node.registry.counts([ROOM, NEWS]) == [(1, 1), (1, 0)]


@contextlib.contextmanager
def refusing_writes(server: TcpServer) -> Iterator[None]:
    """Changes wait on the server."""
    with server.client() as admin:
        admin.client_pause(60_000, all=False)
        try:
            yield
        finally:
            admin.client_unpause()


async def test_an_entry_is_in_the_nodes_list_before_it_is_added_and_until_it_is_removed(redis_cluster):
    """List and channel are on different masters. Whichever is slow, a crash leaves no stale entry."""
    room = redis_cluster.owner(slot(ROOM))
    names = (f"node-{n}" for n in range(1_000))
    name = next(
        name for name in names if redis_cluster.owner(slot_of(wire.entries_key(name).encode())) is not room
    )
    lists = redis_cluster.owner(slot_of(wire.entries_key(name).encode()))
    async with registry_node(redis_cluster.url, name) as node, redis_client(redis_cluster.url) as redis:

        async def listed() -> int:
            return await redis.scard(wire.entries_key(name))

        async def there() -> int:
            return await redis.hlen(wire.subscriptions_key(*ROOM))

        await node.join(ROOM, "1.1", ANN)
        with refusing_writes(lists):
            joining = asyncio.ensure_future(node.join(ROOM, "2.2", ANN))
            assert [await there() for _ in range(100)] == [1] * 100
        await joining
        with refusing_writes(room):
            leaving = asyncio.ensure_future(node.leave(ROOM, "1.1", ANN))
            assert [await listed() for _ in range(100)] == [2] * 100
        await leaving
        # Gone and come again in one moment: what counts is what it was last.
        results = await asyncio.gather(
            node.leave(ROOM, "2.2", ANN), node.join(ROOM, "2.2", ANN), node.leave(ROOM, "2.2", ANN)
        )
        assert [result.subscriptions for result in results] == [0, 1, 0]
        assert (await listed(), await there()) == (0, 0)
        await asyncio.gather(node.leave(ROOM, "2.2", ANN), node.join(ROOM, "2.2", ANN))
        assert (await listed(), await there()) == (1, 1)


async def test_a_server_that_lacks_the_scripts_costs_the_others_no_departure(redis_cluster):
    """A promoted replica lacks them, too. A repeated departure has no effect that could be announced."""
    keys = [key_on(redis_cluster, server) for server in redis_cluster.masters]
    async with registry_node(redis_cluster.url) as node:
        for key in keys:
            await node.join(key, "1.1")
        with redis_cluster.masters[0].client() as admin:
            admin.script_flush()
        left = await asyncio.gather(*(node.leave(key, "1.1") for key in keys))
        assert left == [Left(0, last=True)] * 3


async def test_channels_on_a_live_server_do_not_wait_for_a_dead_one():
    with Cluster(SYSTEM, 3) as cluster:
        nodes = cluster.owner(slot_of(wire.NODES_KEY.encode()))
        dead = next(server for server in cluster.masters if server is not nodes)
        names = (f"node-{number}" for number in range(1_000))
        name = next(one for one in names if cluster.owner(slot_of(wire.lease_key(one).encode())) is not dead)
        there, lost = key_on(cluster, nodes), key_on(cluster, dead)
        async with registry_node(cluster.url, name, lease=3, room=there) as node:
            dead.kill()
            joining = asyncio.ensure_future(node.join(lost, "1.1"))
            await until(lambda: node.registry.stuck)
            for number in range(3):
                assert (await node.join(there, f"{number}.1")).subscriptions == number + 1
            assert node.registry.held
            assert not joining.done()
            dead.start()
            assert (await joining).first
            await until(lambda: not node.registry.stuck)


async def test_a_master_dies_and_its_replica_takes_over_and_then_the_other_way_round():
    with Cluster(SYSTEM, 3, 1) as cluster:
        dead, alive = (key_on(cluster, server) for server in cluster.masters[:2])
        first, second = cluster.servers[0], cluster.servers[3]
        async with redis_node(cluster.url) as node, redis_node(cluster.url) as sender:
            await node.subscribe(dead)
            await node.subscribe(alive)
            async with publishing(sender, dead, alive) as (lost, kept):
                await until(lambda: len(lost.accepted) > 20)
                first.kill()
                await until(lambda: not node.bus.connected)
                await until(lambda: len(lost.refused) > 2)
                cluster.promote(second)
                await until(lambda: node.confirmed.count(dead) == 2)
                count = len(lost.heard_by(node))
                await until(lambda: len(lost.heard_by(node)) > count + 20)
                first.start()
                await until(lambda: cluster.follows(first))
                refused = len(lost.refused)
                cluster.promote(first)  # the second lives: it ends subscriptions, and takes them as a replica
                await until(lambda: node.confirmed.count(dead) == 3)
                await until(lambda: cluster.owner(slot(dead)) is first)
            await all_heard(lost, node)
            await all_heard(kept, node)
            assert len(lost.refused) == refused
            heard = lost.heard_by(node)
            assert heard == sorted(set(heard))
            assert set(heard) <= {*lost.accepted, *lost.refused, 1_000_000}
            assert (kept.refused, kept.heard_by(node)) == ([], [*kept.accepted, 1_000_000])
            assert (node.lost, node.confirmed.count(alive), node.bus.connected) == ([{dead}] * 2, 1, True)
