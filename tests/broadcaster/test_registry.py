"""One contract suite over the local registry and the one in Redis, and the leases that only Redis has."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broadcaster.bus import BusError, RedisBus, redis_client
from broadcaster.hub import Key
from broadcaster.redis_registry import RedisRegistry
from broadcaster.registry import Cached, Counts, Joined, Left, LocalRegistry
from protocol import wire
from protocol.presence import Member
from tests.broadcaster.conftest import until
from tests.conftest import BINARIES
from tests.redis_servers import RedisServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ROOM, OTHER, NEWS = Key("1", "presence-room"), Key("1", "presence-other"), Key("1", "news")
ANN, BOB = Member("ann", b'{"name":"Ann"}'), Member(7)


class Node:
    """A registry, and what it announces."""

    def __init__(self, registry: Any) -> None:
        self.registry = registry
        self.announced: list[tuple[Key, str, Any]] = []
        self.left: list[tuple[Key, Member | None, Left]] = []
        self.lapses = 0

    def lapsed(self) -> None:
        self.lapses += 1

    def publish(self, _key, envelope) -> None:
        message = json.loads(envelope.payload)
        user_id = json.loads(message["data"])["user_id"]
        event = message["event"].removeprefix("pusher_internal:")
        self.announced.append((event, user_id, envelope.except_socket_id))

    async def join(self, key, socket_id, member=None, limit=100) -> Joined:
        done = asyncio.get_running_loop().create_future()
        self.registry.join(key, socket_id, member, limit, done.set_result)
        return await done

    async def leave(self, key, socket_id, member=None, *, disconnect=False) -> Left:
        done = asyncio.get_running_loop().create_future()
        self.registry.leave(key, socket_id, member, done.set_result, disconnect=disconnect)
        return await done

    async def release(self, key, user_id=None) -> bool:
        done = asyncio.get_running_loop().create_future()
        self.registry.release(key, user_id, done.set_result)
        return await done

    async def told(self, *announced) -> None:
        await until(lambda: len(self.announced) >= len(announced))
        assert self.announced == list(announced)


@contextlib.asynccontextmanager
async def redis_node(
    url: str, name: str = "node-1", lease: float = 15, holding=lambda _: False
) -> AsyncIterator[Node]:
    async with redis_client(url) as redis:
        node = Node(None)
        node.registry = RedisRegistry(redis, name, node.lapsed, lease, holding)
        bus = RedisBus(redis)
        confirmed: list[Key] = []
        await bus.start(node.publish, confirmed.append, lambda _keys: None)
        bus.subscribe(ROOM)
        await until(lambda: confirmed)
        await node.registry.start(lambda key, member, left: node.left.append((key, member, left)))
        yield node
        await node.registry.close()
        await bus.close()


@pytest.fixture(params=["local", *BINARIES, "cluster"])
async def node(request) -> AsyncIterator[Node]:
    if request.param == "local":
        local = Node(None)
        local.registry = LocalRegistry(local.publish)
        await local.registry.start(lambda *_: None)
        yield local
        await local.registry.close()
        return
    if request.param == "cluster":
        async with redis_node(request.getfixturevalue("redis_cluster").url) as started:
            yield started
        return
    with RedisServer(BINARIES[request.param]) as server:
        async with redis_node(server.url) as started:
            yield started


class TestContract:
    async def test_the_first_and_the_last_subscription_of_a_channel(self, node):
        assert await node.join(NEWS, "1.1") == Joined(1, first=True)
        assert await node.join(NEWS, "2.2") == Joined(2)
        assert await node.leave(NEWS, "1.1") == Left(1)
        assert await node.leave(NEWS, "2.2") == Left(0, last=True)

    async def test_repeating_changes_nothing(self, node):
        await node.join(ROOM, "1.1", ANN)
        assert await node.join(ROOM, "1.1", ANN) == Joined(1, members=(ANN,))
        await node.leave(ROOM, "1.1", ANN)
        assert await node.leave(ROOM, "1.1", ANN) == Left(0)
        assert await node.leave(OTHER, "9.9", BOB) == Left(0)
        await node.told(("member_added", "ann", "1.1"), ("member_removed", "ann", "1.1"))

    async def test_a_user_comes_with_the_first_connection_and_goes_with_the_last(self, node):
        assert await node.join(ROOM, "1.1", ANN) == Joined(1, True, True, (ANN,))
        second = Member("ann", b'{"name":"Other"}')
        assert await node.join(ROOM, "2.2", second) == Joined(2, members=(ANN,))
        joined = await node.join(ROOM, "3.3", BOB)
        assert (joined.first_of_user, set(joined.members)) == (True, {ANN, BOB})
        assert await node.leave(ROOM, "1.1", ANN) == Left(2)
        assert await node.leave(ROOM, "2.2", second) == Left(1, last_of_user=True)
        assert await node.leave(ROOM, "3.3", BOB) == Left(0, last=True, last_of_user=True)
        await node.told(
            ("member_added", "ann", "1.1"),
            ("member_added", 7, "3.3"),
            ("member_removed", "ann", "2.2"),
            ("member_removed", 7, "3.3"),
        )

    async def test_a_full_channel_takes_no_new_user_but_another_connection_of_one(self, node):
        await node.join(ROOM, "1.1", ANN, limit=1)
        assert (await node.join(ROOM, "2.2", BOB, limit=1)).full
        assert not (await node.join(ROOM, "3.3", ANN, limit=1)).full
        assert await node.registry.counts([ROOM]) == [Counts(2, 1)]
        await node.told(("member_added", "ann", "1.1"))

    async def test_answers_come_in_the_order_of_the_calls(self, node):
        answers: list[Any] = []
        for n in range(100):
            node.registry.join(NEWS, f"{n}.1", None, 100, answers.append)
        node.registry.leave(NEWS, "0.1", None, answers.append)
        await until(lambda: len(answers) == 101)
        assert [answer.subscriptions for answer in answers] == [*range(1, 101), 99]

    async def test_questions(self, node):
        assert await node.registry.counts([NEWS, ROOM]) == [Counts(0, 0), Counts(0, 0)]
        assert await node.registry.members(ROOM) == []
        await node.join(NEWS, "1.1")
        await node.join(ROOM, "1.1", BOB)
        await node.join(Key("1", "#server-to-user-7"), "1.1")
        await node.join(Key("2", "else"), "1.1")
        assert await node.registry.counts([NEWS, ROOM]) == [Counts(1, 0), Counts(1, 1)]
        assert await node.registry.occupied("1") == ["news", "presence-room"]
        assert await node.registry.members(ROOM) == ["7"]
        await node.leave(NEWS, "1.1")
        assert await node.registry.occupied("1") == ["presence-room"]
        assert await node.registry.counts([]) == []

    async def test_the_last_event_of_a_cache_channel(self, node):
        assert await node.registry.recall(NEWS) is None
        assert await node.registry.versions([NEWS]) == [0]
        first = await node.registry.remember(NEWS, "a", "1", 60)
        second = await node.registry.remember(NEWS, "b", "2", 60)
        event, data, ttl, version = await node.registry.recall(NEWS)
        assert 0 < first < second == version
        assert await node.registry.versions([ROOM, NEWS]) == [0, second]
        assert (event, data) == ("b", "2")
        assert 58 <= ttl <= 60


async def test_a_cached_event_ages():
    now = 0.0
    registry = LocalRegistry(lambda _key, _envelope: None, lambda: now)
    await registry.remember(NEWS, "a", "1", 60)
    now = 30.5
    assert await registry.recall(NEWS) == Cached("a", "1", 29, 1)
    now = 60.0
    assert await registry.recall(NEWS) is None
    await registry.remember(ROOM, "b", "2", 60)
    assert list(registry._cache) == [ROOM]


MOVES = st.lists(
    st.tuples(st.booleans(), st.sampled_from(["1.1", "2.2", "3.3"]), st.sampled_from([ANN, BOB])), max_size=30
)


@given(MOVES)
@settings(max_examples=100)
def test_announcements_are_a_history_that_can_have_happened(moves):
    node = Node(None)
    node.registry = LocalRegistry(node.publish)
    sockets: dict[str, Member] = {}
    for joins, socket_id, member in moves:
        if joins and socket_id not in sockets:
            sockets[socket_id] = member
            node.registry.join(ROOM, socket_id, member, 100, lambda _: None)
        elif not joins and socket_id in sockets:
            node.registry.leave(ROOM, socket_id, sockets.pop(socket_id), lambda _: None)
    there: set[Any] = set()
    for event, user_id, _ in node.announced:
        assert (user_id in there) == (event == "member_removed")
        there ^= {user_id}
    assert there == {member.user_id for member in sockets.values()}


@pytest.fixture
def server():
    with RedisServer(BINARIES["valkey"]) as started:
        yield started


async def test_two_nodes_are_one_registry(server):
    async with redis_node(server.url, "a") as one, redis_node(server.url, "b") as two:
        assert (await one.join(ROOM, "1.1", ANN)).first
        joined = await two.join(ROOM, "2.2", ANN)
        assert (joined.subscriptions, joined.first, joined.first_of_user) == (2, False, False)
        assert (await one.leave(ROOM, "1.1", ANN)).last_of_user is False
        assert (await two.leave(ROOM, "2.2", ANN)) == Left(0, last=True, last_of_user=True)
        for node in (one, two):
            await node.told(("member_added", "ann", "1.1"), ("member_removed", "ann", "2.2"))


async def test_a_lease_that_cannot_be_renewed_is_not_held_any_more_and_then_is_again(server):
    async with redis_node(server.url, lease=0.6) as node:
        assert node.registry.held
        async with redis_client(server.url) as other:
            await other.client_pause(1_500, all=False)  # writes alone
        await until(lambda: not node.registry.held)
        await until(lambda: node.registry.held)


async def test_what_a_dead_node_had_is_taken_back_once(server):
    async with contextlib.AsyncExitStack() as stack:
        one = await stack.enter_async_context(redis_node(server.url, "one", lease=0.3))
        two = await stack.enter_async_context(redis_node(server.url, "two", lease=0.3))
        async with redis_client(server.url) as redis:
            dead = RedisRegistry(redis, "dead", lambda: None, lease=0.3)
            await dead.start(lambda *_: None)
            done: list[Any] = []
            dead.join(ROOM, "1.1", ANN, 100, done.append)
            dead.join(NEWS, "1.1", None, 100, done.append)
            await until(lambda: len(done) == 2)
            for task in dead._tasks:
                task.cancel()
            await one.join(ROOM, "2.2", BOB)

            def taken() -> dict[Key, Any]:
                """What was taken back, by whichever node; a second try by the other has no effect."""
                left = one.left + two.left
                return {key: (who, how) for key, who, how in left if how.last or how.last_of_user}

            async with asyncio.timeout(10):
                while len(taken()) < 2:  # noqa: ASYNC110 - told by either node
                    await asyncio.sleep(0.02)
            effective = [how for _, _, how in one.left + two.left if how.last or how.last_of_user]
            assert len(effective) == 2
            assert await one.registry.counts([ROOM, NEWS]) == [Counts(1, 1), Counts(0, 0)]
            assert taken() == {
                ROOM: (ANN, Left(1, last_of_user=True)),
                NEWS: (None, Left(0, last=True)),
            }
            await until(lambda: ("member_removed", "ann", "1.1") in two.announced)
            async with asyncio.timeout(10):
                while await redis.sismember(wire.NODES_KEY, "dead"):  # noqa: ASYNC110 - it is in Redis
                    await asyncio.sleep(0.02)


async def test_a_node_that_was_thought_dead_notices(server):
    async with redis_node(server.url, "sleeper", lease=0.3) as node, redis_client(server.url) as redis:
        await redis.delete(wire.lease_key("sleeper"))
        await until(lambda: node.lapses == 1)
        async with asyncio.timeout(10):
            while not await redis.exists(wire.lease_key("sleeper")):  # noqa: ASYNC110 - it is in Redis
                await asyncio.sleep(0.02)


async def test_a_goodbye_leaves_nothing_behind(server):
    async with redis_node(server.url, "a") as node:
        await node.join(NEWS, "1.1")
        await node.leave(NEWS, "1.1")
    async with redis_client(server.url) as redis:
        left = {key async for key in redis.scan_iter("*")}
    assert left <= {b"legato:occupied:{1}"}


async def test_changes_wait_for_a_redis_that_is_away_and_scripts_come_back(server, caplog):
    async with redis_node(server.url) as node:
        await node.join(NEWS, "1.1")
        server.kill()
        joined = asyncio.ensure_future(node.join(ROOM, "1.1", ANN))
        with pytest.raises(BusError):
            await node.registry.counts([NEWS])
        await until(lambda: "does not take changes" in caplog.text)
        server.start()
        assert (await joined).first_of_user


async def test_a_fault_with_one_client_does_not_hold_the_others_up(server, caplog):
    async with redis_node(server.url) as node:
        node.registry.join(NEWS, "1.1", None, 100, lambda _: 1 / 0)
        assert (await node.join(NEWS, "2.2")).subscriptions == 2
    assert "not followed up" in caplog.text


async def test_closing_without_redis_takes_a_bounded_time(server, caplog, monkeypatch):
    monkeypatch.setattr("broadcaster.redis_registry.CLOSE_SECONDS", 0.1)
    async with redis_node(server.url) as node:
        server.kill()
        node.registry.join(NEWS, "1.1", None, 100, lambda _: None)
    assert "are left to the others" in caplog.text


@contextlib.asynccontextmanager
async def two_nodes(url: str) -> AsyncIterator[tuple[Node, Node]]:
    """Of applications that have webhooks."""
    async with (
        redis_node(url, "a", holding=lambda _: True) as one,
        redis_node(url, "b", holding=lambda _: True) as two,
    ):
        yield one, two


async def test_a_departure_that_is_held_back_is_undone_by_a_return_to_any_node(server):
    async with two_nodes(server.url) as (one, two):
        joined = await one.join(ROOM, "1.1", ANN)
        assert (joined.back, joined.user_back) == (False, False)
        assert (await one.leave(ROOM, "1.1", ANN, disconnect=True)).held
        back = await two.join(ROOM, "2.2", ANN)
        assert (back.first, back.back, back.first_of_user, back.user_back) == (True, True, True, True)
        assert not await one.release(ROOM, "ann")
        assert not await one.release(ROOM)
        assert not (await two.leave(ROOM, "2.2", ANN)).held
        assert not (await one.join(ROOM, "1.1", ANN)).back


async def test_a_departure_that_stands_is_released_once_and_by_who_held_it_last(server):
    async with two_nodes(server.url) as (one, two):
        await one.join(NEWS, "1.1")
        await one.leave(NEWS, "1.1", disconnect=True)
        assert (await two.join(NEWS, "2.2")).back
        await two.leave(NEWS, "2.2", disconnect=True)
        assert not await one.release(NEWS)
        assert await two.release(NEWS)
        assert not await two.release(NEWS)
        assert not (await one.join(NEWS, "1.1")).back


async def test_a_channel_that_is_left_behind_a_held_member_is_held_too(server):
    async with two_nodes(server.url) as (one, two):
        await one.join(ROOM, "1.1", ANN)
        await two.join(ROOM, "2.2", BOB)
        assert not (await one.leave(ROOM, "1.1", ANN, disconnect=True)).held
        assert (await two.leave(ROOM, "2.2", BOB)).held
        assert await one.release(ROOM, "ann")
        assert await two.release(ROOM)


async def test_without_webhooks_nothing_is_held_back(server):
    async with redis_node(server.url, "a") as one, redis_client(server.url) as redis:
        await one.join(NEWS, "1.1")
        assert not (await one.leave(NEWS, "1.1", disconnect=True)).held
        assert not await redis.exists(wire.held_key(*NEWS))
