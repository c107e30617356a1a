"""One contract suite over the local registry and the one in Redis, and the leases that only Redis has."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.exceptions import ClusterDownError

from legato.broadcaster.bus.base import BusError
from legato.broadcaster.bus.redis import RedisBus
from legato.broadcaster.channels.subscriber import Key
from legato.broadcaster.limits import SCRIPT_ANSWER_SECONDS
from legato.broadcaster.redis_client import redis_client
from legato.broadcaster.registry import lease as leases
from legato.broadcaster.registry.base import Counts, Joined, Left, LocalRegistry
from legato.broadcaster.registry.codec import RegistryOwner, decode_entry, encode_entry
from legato.broadcaster.registry.event_cache import Cached
from legato.broadcaster.registry.other_nodes import OtherNodes
from legato.broadcaster.registry.redis import RedisRegistry
from legato.protocol import wire
from legato.protocol.presence import Member
from tests.broadcaster.bus.test_bus import Handler
from tests.conftest import BINARIES
from tests.redis_servers import RedisServer
from tests.tiers import amount
from tests.waiting import WAIT, until

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
        self.joined: dict[tuple[Key, str], Member | None] = {}

    def lapsed(self) -> None:
        self.lapses += 1
        for key, socket_id in list(self.joined):
            self.registry.leave(key, socket_id, self.joined.pop((key, socket_id)), lambda _: None)

    def mine(self):
        return [(*place, member) for place, member in self.joined.items()]

    def publish(self, _key, envelope) -> None:
        message = json.loads(envelope.payload)
        user_id = json.loads(message["data"])["user_id"]
        event = message["event"].removeprefix("pusher_internal:")
        self.announced.append((event, user_id, envelope.except_socket_id))

    async def join(self, key, socket_id, member=None, limit=100) -> Joined:
        done = asyncio.get_running_loop().create_future()
        self.registry.join(key, socket_id, member, limit, done.set_result)
        joined = await done
        if not joined.full:
            self.joined[key, socket_id] = member
        return joined

    async def leave(self, key, socket_id, member=None, *, disconnect=False) -> Left:
        done = asyncio.get_running_loop().create_future()
        self.registry.leave(key, socket_id, member, done.set_result, disconnect=disconnect)
        self.joined.pop((key, socket_id), None)
        return await done

    async def enter(self, app_id, socket_id, limit) -> bool:
        done = asyncio.get_running_loop().create_future()
        self.registry.enter(app_id, socket_id, limit, done.set_result)
        entered = await done
        if entered:
            self.joined[Key(app_id, wire.CONNECTIONS), socket_id] = None
        return entered

    async def release(self, key, user_id=None) -> bool:
        done = asyncio.get_running_loop().create_future()
        self.registry.release(key, user_id, done.set_result)
        return await done

    async def told(self, *announced) -> None:
        await until(lambda: len(self.announced) >= len(announced))
        assert self.announced == list(announced)


@contextlib.asynccontextmanager
async def redis_node(
    url: str, name: str = "node-1", lease: float = 15, holding=lambda _: False, room: Key = ROOM
) -> AsyncIterator[Node]:
    async with redis_client(url) as redis:
        node = Node(None)
        node.registry = RedisRegistry(redis, name, RegistryOwner(node.lapsed, holding, node.mine), lease)
        bus = RedisBus(redis)
        confirmed: list[Key] = []
        await bus.start(Handler(node.publish, confirmed.append))
        bus.subscribe(room)
        await until(lambda: confirmed)
        await node.registry.start(lambda key, member, left: node.left.append((key, member, left)))
        try:
            yield node
        finally:  # else a failing test leaves tasks that one cancellation does not end
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
        assert [*await node.registry.occupied("1")] == ["news", "presence-room"]
        assert await node.registry.occupied("1", "pre") == {"presence-room": Counts(1, 1)}
        assert await node.registry.occupied("1", "*") == await node.registry.occupied("1", "x") == {}
        assert await node.registry.members(ROOM) == ["7"]
        await node.leave(NEWS, "1.1")
        assert [*await node.registry.occupied("1")] == ["presence-room"]
        assert await node.registry.counts([]) == []

    async def test_connections_are_let_in_up_to_a_limit(self, node):
        assert await node.enter("1", "1.1", 2)
        assert await node.enter("1", "2.2", 2)
        assert not await node.enter("1", "3.3", 2)
        assert await node.enter("1", "2.2", 2)  # repeated: it is in already
        assert await node.enter("2", "3.3", 2)  # another application
        assert await node.enter("1", "4.4", 0)  # counted, however many there are
        assert [*await node.registry.occupied("1")] == []
        assert await node.leave(Key("1", wire.CONNECTIONS), "1.1") == Left(2)
        assert not await node.enter("1", "3.3", 2)
        await node.leave(Key("1", wire.CONNECTIONS), "2.2")
        assert await node.enter("1", "3.3", 2)

    async def test_flushing_waits_for_what_was_asked_for(self, node):
        done: list[Any] = []
        for n in range(1000):
            node.registry.join(NEWS, f"{n}.1", None, 100, done.append)
        await node.registry.flush()
        assert len(done) == 1000

    async def test_alone_there_is_no_peer(self, node):
        assert not await node.registry.peers()

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
    assert len(registry._cache) == 1


MOVES = st.lists(
    st.tuples(st.booleans(), st.sampled_from(["1.1", "2.2", "3.3"]), st.sampled_from([ANN, BOB])), max_size=30
)


@given(MOVES)
@settings(max_examples=amount(100, 5_000))
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


def note_batches(node: Node, monkeypatch) -> list[list[str]]:
    """The scripts of each pipeline, which is sent all the same."""
    send, sent = node.registry._changes.batches.send, list[list[str]]()

    async def noted(batch, *, again):
        sent.append([change.script for change in batch])
        return await send(batch, again=again)

    monkeypatch.setattr(node.registry._changes.batches, "send", noted)
    return sent


async def test_changes_of_one_turn_of_the_loop_travel_in_one_pipeline(server, monkeypatch):
    async with redis_node(server.url, "a") as node:
        sent = note_batches(node, monkeypatch)
        await asyncio.gather(*(node.join(NEWS, f"{n}.1") for n in range(100)))
        await asyncio.gather(*(node.leave(NEWS, f"{n}.1") for n in range(100)))
        assert [len(batch) for batch in sent] == [100, 100]


async def test_who_leaves_and_comes_back_at_once_holds_up_no_other_channel(server, monkeypatch):
    keys = [Key("1", f"page-{number}") for number in range(100)]
    async with redis_node(server.url, "a") as node:
        await asyncio.gather(*(node.join(key, "1.1") for key in keys))
        sent = note_batches(node, monkeypatch)
        joined: list[Joined] = []
        for key in keys:
            node.registry.leave(key, "1.1", None, lambda _: None)
            node.registry.join(key, "1.1", None, 100, joined.append)
        await node.registry.flush()
        assert [one.first for one in joined] == [True] * 100
        assert sent == [["leave"] * 100, [*["join"] * 100, ""]]


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
            dead = RedisRegistry(redis, "dead", RegistryOwner(lambda: None), lease=0.3)
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


async def eventually(ask, expected, seconds=WAIT) -> None:
    """Until Redis answers as expected."""

    async def answers() -> bool:
        try:
            return await ask() == expected
        except BusError:
            return False

    await until(answers, seconds)


async def test_a_node_that_was_taken_for_dead_starts_anew_under_another_name(server):
    """Everything that it had is taken back, by itself if nobody else is there; nothing is left behind."""
    async with redis_node(server.url, "sleeper", lease=0.6) as node, redis_client(server.url) as redis:
        await node.join(ROOM, "1.1", ANN)
        await node.enter("1", "1.1", 1)
        await redis.set(wire.lease_key("sleeper"), leases.GONE)
        await until(lambda: node.lapses == 1)
        await eventually(lambda: redis.sismember(wire.NODES_KEY, "sleeper"), 0)
        assert await node.registry.counts([ROOM]) == [Counts(0, 0)]
        assert await node.enter("1", "2.2", 1)
        assert await node.join(ROOM, "2.2", BOB) == Joined(1, True, True, (BOB,))
        (name,) = await redis.smembers(wire.NODES_KEY)
        assert await redis.scard(wire.entries_key(name.decode())) == 2
        assert not await redis.exists(wire.entries_key("sleeper"))
        assert node.lapses == 1
    await node.told(
        ("member_added", "ann", "1.1"), ("member_removed", "ann", "1.1"), ("member_added", 7, "2.2")
    )


async def test_a_lapse_that_nobody_has_noticed_costs_nothing(server, caplog):
    async with redis_node(server.url, "sleeper", lease=0.6) as node, redis_client(server.url) as redis:
        await node.join(ROOM, "1.1", ANN)
        await redis.delete(wire.lease_key("sleeper"))
        await until(lambda: "registering everything again" in caplog.text)
        await eventually(lambda: redis.get(wire.lease_key("sleeper")), leases.OPEN.encode())
        await node.registry.flush()
        assert await node.registry.counts([ROOM]) == [Counts(1, 1)]
        assert (node.lapses, node.left) == (0, [])
        await node.join(ROOM, "2.2", BOB)
        await node.told(("member_added", "ann", "1.1"), ("member_added", 7, "2.2"))


async def test_a_stopped_node_carries_out_nothing_before_it_has_looked_after_its_lease(server, monkeypatch):
    """Its clock says that the lease has lapsed: what was asked for before it was stopped is dropped."""
    async with redis_node(server.url, "sleeper") as node, redis_client(server.url) as redis:
        await node.join(ROOM, "1.1", ANN)
        await redis.set(wire.lease_key("sleeper"), leases.GONE)
        node.registry._lease._until = 0.0
        answers: list[Any] = []
        node.registry.join(ROOM, "2.2", BOB, 100, answers.append)
        await until(lambda: node.lapses == 1)
        assert (await node.join(NEWS, "3.3")).first
        assert not answers
        assert ("member_added", 7, "2.2") not in node.announced
        assert await redis.hget(wire.subscriptions_key(*NEWS), "3.3") != b"sleeper:10"


async def test_a_node_that_was_cut_off_does_not_repeat_what_the_others_have_done(server, monkeypatch):
    """It has changes queued when Redis answers again: who came starts anew, who left has left once."""
    async with (
        redis_node(server.url, "cut", lease=0.6) as cut,
        redis_node(server.url, "other", lease=0.6) as other,
    ):
        await cut.join(ROOM, "1.1", ANN)
        await cut.join(ROOM, "2.2", BOB)

        async def away(*_arguments, **_options):
            raise ConnectionError

        with monkeypatch.context() as patched:
            patched.setattr(cut.registry._changes.batches, "send", away)
            patched.setattr(cut.registry._lease, "renew", away)
            told: list[Any] = []
            cut.registry.leave(ROOM, "1.1", cut.joined.pop((ROOM, "1.1")), told.append)
            cut.registry.join(NEWS, "3.3", None, 0, told.append)
            await until(lambda: len(other.left) == 2)
        await until(lambda: cut.lapses == 1)
        await cut.registry.flush()
        assert told == [Left(0)]
        assert await other.registry.counts([ROOM, NEWS]) == [Counts(0, 0), Counts(0, 0)]
        assert sum(left.last for _, _, left in other.left) == 1
        assert [event for event, _, _ in other.announced].count("member_removed") == 2


async def test_what_comes_after_a_node_was_taken_back_is_taken_back_too(server):
    """It was on its way when the node was stopped, and reaches Redis after everybody has looked."""
    async with redis_node(server.url, "one", lease=0.6) as one, redis_client(server.url) as redis:
        late = RedisRegistry(redis, "late", RegistryOwner(lambda: None), lease=60)
        await redis.set(wire.lease_key("late"), leases.GONE)
        late._lease._until = late._lease.clock() + 60  # the moment between its look and the write
        done: list[Any] = []
        late.join(ROOM, "1.1", ANN, 100, done.append)
        await until(lambda: done)
        assert done[0].first
        await late._changes.close()
        await until(lambda: one.left)
        await eventually(lambda: one.registry.counts([ROOM]), [Counts(0, 0)])
        await eventually(lambda: redis.sismember(wire.NODES_KEY, "late"), 0)


async def test_nobody_is_judged_by_one_who_was_cut_off_itself(server):
    """After a failure of Redis every lease has lapsed: who comes back first must leave time to others."""
    now = 100.0
    async with redis_client(server.url) as redis:
        lease = leases.Lease(redis, "judge", 15, lambda: leases.OPEN, lambda: now)
        peers = OtherNodes(redis, lease)
        await redis.sadd(wire.NODES_KEY, "other")
        assert await lease.renew() is leases.Renewal.REVIVED
        assert await peers.dead() == []
        for _ in range(3):
            now += 5
            assert await lease.renew() is leases.Renewal.KEPT
        lease.doubt()
        assert lease.doubtful
        await lease.renew()
        assert await peers.dead() == []
        now += 11  # stopped, or Redis did not answer
        await lease.renew()
        now += 8
        await lease.renew()
        assert await peers.dead() == []
        now += 8
        await lease.renew()
        assert await peers.dead() == ["other"]
        assert await redis.get(wire.lease_key("other")) == leases.GONE.encode()
        late = leases.Lease(redis, "other", 15, lambda: leases.OPEN, lambda: now)
        assert await late.renew() is leases.Renewal.GONE


async def test_a_dead_node_stays_listed_while_an_entry_of_it_is_left(server):
    """One that has arrived since everybody looked: without the name nobody would find it."""
    async with redis_client(server.url) as redis:
        others = OtherNodes(redis, leases.Lease(redis, "one", 15, lambda: leases.OPEN))
        await redis.sadd(wire.NODES_KEY, "dead")
        await redis.sadd(wire.entries_key("dead"), "late")
        await others.forget("dead")
        assert await redis.sismember(wire.NODES_KEY, "dead")
        await redis.delete(wire.entries_key("dead"))
        await others.forget("dead")
        assert not await redis.sismember(wire.NODES_KEY, "dead")


async def test_a_lease_lasts_from_when_redis_was_asked(server):
    """Not from the answer: until then it has been running in Redis already."""
    now = 100.0

    def state() -> str:
        nonlocal now
        now += 10  # the time that the answer takes
        return leases.OPEN

    async with redis_client(server.url) as redis:
        lease = leases.Lease(redis, "slow", 15, state, lambda: now)
        await lease.renew()
        now = 114.0
        assert lease.held
        now = 115.0
        assert not lease.held
        assert lease.doubtful


async def test_a_peer_is_a_node_that_takes_connections(server):
    async with redis_client(server.url) as redis, redis_node(server.url, "one") as one:
        states = iter((leases.OPEN, leases.FULL, leases.LEAVING))
        other = leases.Lease(redis, "other", 15, lambda: next(states))
        for there in (True, False, False):
            await other.renew()
            assert await one.registry.peers() == there


async def test_data_that_redis_has_lost_is_registered_again(server, caplog):
    async with (
        redis_node(server.url, "one", lease=0.6, holding=lambda _: True) as one,
        redis_node(server.url, "two", lease=0.6) as two,
    ):
        for node, socket_id, member in ((one, "1.1", ANN), (one, "2.2", ANN), (two, "3.3", BOB)):
            await node.join(ROOM, socket_id, member)
            await node.enter("1", socket_id, 3)
        server.kill()
        server.start()
        await eventually(lambda: one.registry.counts([ROOM]), [Counts(3, 2)], WAIT)
        assert not await two.enter("1", "4.4", 3)
        assert set(await one.registry.members(ROOM)) == {"ann", "7"}
        assert [*await one.registry.occupied("1")] == ["presence-room"]
        assert (one.lapses, two.lapses, one.left + two.left) == (0, 0, [])
        assert not (await one.leave(ROOM, "1.1", ANN)).last_of_user


async def test_what_redis_forgot_that_it_forgot_is_gone_again(server):
    """A replica that takes over may lack the last departures."""
    async with redis_node(server.url, "one", lease=0.6) as one, redis_client(server.url) as redis:
        await one.join(ROOM, "1.1", ANN)
        await one.join(ROOM, "2.2", BOB)
        one.joined.pop((ROOM, "2.2"))
        one.registry._cleanup._identity._known = {None: "another"}
        one.registry._lease.doubt()
        await eventually(lambda: one.registry.counts([ROOM]), [Counts(1, 1)])
        assert [(key, member) for key, member, _ in one.left] == [(ROOM, BOB)]
        assert await redis.scard(wire.entries_key("one")) == 1


def lose_answers(node: Node, monkeypatch) -> list[Any]:
    """The scripts run, but the connection breaks before the node knows: the changes that are sent again."""
    send = node.registry._changes.batches.send
    lost: list[Any] = []

    async def answer_lost(batch, *, again):
        answers = await send(batch, again=again)
        if not again:
            lost.append(batch)
            raise ConnectionError
        return answers

    monkeypatch.setattr(node.registry._changes.batches, "send", answer_lost)
    return lost


async def test_a_lost_answer_is_given_again(server, monkeypatch):
    """Nobody else will tell."""
    async with redis_node(server.url, "a", holding=lambda _: True) as node:
        lost = lose_answers(node, monkeypatch)
        assert await node.join(ROOM, "1.1", ANN) == Joined(1, True, True, (ANN,))
        assert (await node.join(ROOM, "2.2", ANN)) == Joined(2, members=(ANN,))
        assert await node.leave(ROOM, "1.1", ANN, disconnect=True) == Left(1)
        left = await node.leave(ROOM, "2.2", ANN, disconnect=True)
        assert left == Left(0, last=True, last_of_user=True, held=True)
        assert len(lost) == 4
        await node.told(("member_added", "ann", "1.1"), ("member_removed", "ann", "2.2"))


async def test_the_lost_answer_to_an_unsubscribe_is_given_again_once(server, monkeypatch):
    """It is told at once, not held back: no hold says what it was."""
    async with redis_node(server.url, "a", holding=lambda _: True) as node:
        lose_answers(node, monkeypatch)
        await node.join(ROOM, "1.1", ANN)
        await node.join(ROOM, "2.2", BOB)
        assert await node.leave(ROOM, "1.1", ANN) == Left(1, last_of_user=True)
        await node.join(ROOM, "1.1", ANN)
        await node.join(ROOM, "3.3", ANN)
        assert await node.leave(ROOM, "1.1", ANN) == Left(2)  # not what the same socket was told before
        assert await node.leave(ROOM, "3.3", ANN) == Left(1, last_of_user=True)
        assert await node.leave(ROOM, "2.2", BOB) == Left(0, last=True, last_of_user=True)


async def test_the_lost_answers_of_who_unsubscribes_behind_a_held_departure_are_given_again(
    server, monkeypatch
):
    async with redis_node(server.url, "a", holding=lambda _: True) as node:
        await node.join(ROOM, "1.1", ANN)
        await node.join(ROOM, "2.2", BOB)
        lose_answers(node, monkeypatch)
        assert await node.leave(ROOM, "1.1", ANN, disconnect=True) == Left(1, last_of_user=True)
        assert await node.leave(ROOM, "2.2", BOB) == Left(0, last=True, last_of_user=True, held=True)
        assert await node.release(ROOM, "ann")
        assert await node.release(ROOM)
        assert not await node.release(ROOM)


async def test_who_unsubscribed_is_not_taken_for_the_one_whose_departure_is_held_back(server, monkeypatch):
    async with redis_node(server.url, "a", holding=lambda _: True) as node:
        await node.join(ROOM, "1.1", ANN)
        await node.join(ROOM, "2.2", ANN)
        await node.join(ROOM, "3.3", BOB)
        lose_answers(node, monkeypatch)
        left = await asyncio.gather(
            node.leave(ROOM, "1.1", ANN), node.leave(ROOM, "2.2", ANN, disconnect=True)
        )
        assert left == [Left(1), Left(1, last_of_user=True)]  # as it is when the answers come, not as it was


async def test_the_lost_answer_to_a_release_is_given_again_whoever_comes_meanwhile(server, monkeypatch):
    async with two_nodes(server.url) as (one, two):
        await one.join(NEWS, "1.1")
        await one.leave(NEWS, "1.1", disconnect=True)
        send = one.registry._changes.batches.send

        async def back_before_the_answer(batch, *, again):
            answers = await send(batch, again=again)
            if not again:
                assert not (await two.join(NEWS, "2.2")).back
                raise ConnectionError
            return answers

        monkeypatch.setattr(one.registry._changes.batches, "send", back_before_the_answer)
        assert await one.release(NEWS)


async def test_what_is_kept_of_answers_goes_by_itself(server):
    async with redis_node(server.url, "a", holding=lambda _: True) as node, redis_client(server.url) as redis:
        await node.join(NEWS, "1.1")
        await node.leave(NEWS, "1.1")
        await node.join(NEWS, "1.1")
        await node.leave(NEWS, "1.1", disconnect=True)
        await node.release(NEWS)
        kept = [key async for key in redis.scan_iter("legato:answer:*")]
        assert len(kept) == 2
        assert all([0 < await redis.ttl(key) <= SCRIPT_ANSWER_SECONDS for key in kept])


async def test_what_one_channel_was_answered_does_not_wait_for_another(server, monkeypatch):
    """A shard that fails, alone, costs the departures of the others nothing: a repeated one has no effect."""
    async with redis_node(server.url, "a") as node:
        for key in (NEWS, ROOM):
            await node.join(key, "1.1")
        batches, refused, again = node.registry._changes.batches, [], []
        pipe = batches._pipe

        async def refusing(commands):
            of_room = [at for at, one in enumerate(commands) if one[0] == "EVALSHA" and ROOM[1] in one[3]]
            if refused or not of_room:
                again.extend(one for one in commands if refused and one[0] == "SADD")
                return await pipe(commands)
            refused.extend(of_room)
            answers = await pipe([one for at, one in enumerate(commands) if at not in of_room])
            return [*answers[: of_room[0]], ClusterDownError("down"), *answers[of_room[0] :]]

        monkeypatch.setattr(batches, "_pipe", refusing)
        told: list[tuple[Key, Left]] = []
        for key in (NEWS, ROOM):
            node.registry.leave(key, "1.1", None, lambda left, key=key: told.append((key, left)))
        await node.registry.flush()
        assert refused
        assert told == [(NEWS, Left(0, last=True)), (ROOM, Left(0, last=True))]
        assert not node.registry.stuck
        # Its line went with the first try: it is listed before the second.
        assert ("SADD", wire.entries_key("a"), encode_entry(ROOM, "1.1", None)) in again
    async with redis_client(server.url) as redis:
        assert await redis.scard(wire.entries_key("a")) == 0


async def test_who_is_refused_leaves_nothing_behind(server):
    """Each try has another socket id, and there may be one every second."""
    async with redis_node(server.url, "a") as node, redis_client(server.url) as redis:
        admitted: list[bool] = []
        for number in range(20):
            node.registry.enter("1", f"{number}.1", 1, admitted.append)
        full: list[Joined] = []
        for number in range(20):
            node.registry.join(ROOM, f"{number}.1", Member(str(number)), 1, full.append)
        await node.registry.flush()
        await node.registry.flush()
        assert (sum(admitted), sum(joined.full for joined in full)) == (1, 19)
        assert await redis.scard(wire.entries_key("a")) == 2


async def test_nobody_is_judged_right_after_redis_is_another_one(server):
    """An older snapshot knows the nodes, but not their leases: they are all there, and all without one."""
    async with redis_node(server.url, "one", lease=2) as one, redis_client(server.url) as redis:
        lease, peers = one.registry._lease, one.registry._others
        await until(peers._may_judge)
        async with one.registry._keeper.renewing:
            await redis.sadd(wire.NODES_KEY, "other")
            one.registry._cleanup._identity._known = {None: "before"}
            judged: list[str] = []
            declare = peers._declare_dead

            async def declared(name):
                judged.append((name, lease.contact.lasts(lease.clock())))
                return await declare(name)

            peers._declare_dead = declared
            since = lease.clock()
        await until(lambda: judged)
        assert judged[0][0] == "other"
        assert lease.contact._since > since
        assert judged[0][1] >= 2


async def test_a_channel_that_is_occupied_again_stays_listed(server, monkeypatch):
    async with redis_node(server.url, "a") as one, redis_node(server.url, "b") as two:
        await two.join(NEWS, "1.1")
        await two.leave(NEWS, "1.1")
        counts = one.registry.counts

        async def late(keys):
            found = await counts(keys)
            monkeypatch.undo()
            await two.join(NEWS, "2.2")  # after it was counted, before its hint is dropped
            return found

        monkeypatch.setattr(one.registry, "counts", late)
        assert [*await one.registry.occupied("1")] == [NEWS.channel]
        assert [*await one.registry.occupied("1")] == [NEWS.channel]


async def test_registering_again_that_breaks_off_is_done_once_more(server, monkeypatch):
    async with redis_node(server.url, "one", lease=0.6) as one, redis_client(server.url) as redis:
        await one.join(ROOM, "1.1", ANN)
        await one.join(ROOM, "2.2", BOB)
        one.joined.pop((ROOM, "2.2"))
        smembers, failed = one.registry._redis.smembers, []

        async def failing(key):
            if key == wire.entries_key("one") and not failed:
                failed.append(key)
                raise ConnectionError
            return await smembers(key)

        monkeypatch.setattr(one.registry._redis, "smembers", failing)
        one.registry._cleanup._identity._known = {None: "another"}
        await eventually(lambda: one.registry.counts([ROOM]), [Counts(1, 1)])
        assert failed
        assert await redis.scard(wire.entries_key("one")) == 1


async def test_departures_that_a_dead_node_held_back_are_taken_over_once(server):
    """Also by a node that dies itself; told are a member's and the channel's, each by one node."""
    async with contextlib.AsyncExitStack() as stack:
        one, two = [
            await stack.enter_async_context(redis_node(server.url, name, lease=0.6, holding=lambda _: True))
            for name in ("one", "two")
        ]
        async with redis_node(server.url, "dead", holding=lambda _: True) as dead:
            await dead.join(ROOM, "1.1", ANN)
            await dead.join(ROOM, "2.2", ANN)
            await dead.leave(ROOM, "1.1", ANN, disconnect=True)
            assert (await dead.leave(ROOM, "2.2", ANN, disconnect=True)).held
        # It has ended, and left what it held back to the others.
        async with redis_client(server.url) as redis:
            await eventually(lambda: redis.sismember(wire.NODES_KEY, "dead"), 0)
        effective = [left for _, _, left in one.left + two.left if left.last or left.last_of_user]
        assert sum(left.last_of_user for left in effective) == 1
        assert [left.held for left in effective if left.last] == [True]
        released = [await node.release(ROOM, who) for node in (one, two) for who in ("ann", None)]
        assert sum(released) == 2
        async with redis_client(server.url) as redis:
            for node in ("one", "two", "dead"):
                await eventually(lambda node=node: redis.exists(wire.entries_key(node)), 0)


async def test_a_hold_that_is_undone_is_listed_no_more(server):
    async with two_nodes(server.url) as (one, two), redis_client(server.url) as redis:
        await one.join(ROOM, "1.1", ANN)
        await one.leave(ROOM, "1.1", ANN, disconnect=True)
        assert await redis.scard(wire.entries_key("a")) == 1
        await two.join(ROOM, "2.2", ANN)
        await one.release(ROOM, "ann")
        assert await redis.scard(wire.entries_key("a")) == 1  # until the channel's is settled too
        await one.release(ROOM)
        await one.registry.flush()
        assert await redis.scard(wire.entries_key("a")) == 0
        await two.leave(ROOM, "2.2", ANN, disconnect=True)
        assert (await two.join(ROOM, "3.3", ANN)).back
        await two.registry.flush()
        assert await redis.scard(wire.entries_key("b")) == 1


async def test_who_leaves_and_comes_back_on_the_same_connection_stays_listed(server):
    """At once, as pages do that subscribe twice; or while the departure is held back."""
    async with two_nodes(server.url) as (one, two), redis_client(server.url) as redis:
        await two.join(NEWS, "2.2")
        await one.join(NEWS, "1.1")
        await asyncio.gather(one.leave(NEWS, "1.1"), one.join(NEWS, "1.1"))
        await one.registry.flush()
        await one.registry.flush()
        assert await redis.scard(wire.entries_key("a")) == 1
        await one.join(ROOM, "1.1", ANN)
        await one.leave(ROOM, "1.1", ANN, disconnect=True)
        await one.join(ROOM, "1.1", ANN)
        assert not await one.release(ROOM)
        await one.registry.flush()
        assert await redis.scard(wire.entries_key("a")) == 2
        await one.leave(ROOM, "1.1", ANN)
        await one.leave(NEWS, "1.1")
        await one.registry.flush()
        assert await redis.scard(wire.entries_key("a")) == 0


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
        await until(lambda: "does not accept changes" in caplog.text)
        server.start()
        assert (await joined).first_of_user


async def test_a_fault_with_one_client_does_not_hold_the_others_up(server, caplog):
    async with redis_node(server.url) as node:
        node.registry.join(NEWS, "1.1", None, 100, lambda _: 1 / 0)
        assert (await node.join(NEWS, "2.2")).subscriptions == 2
    assert "the callback of a change failed" in caplog.text


async def test_closing_without_redis_takes_a_bounded_time(server, caplog, monkeypatch):
    monkeypatch.setattr("legato.broadcaster.registry.redis.REGISTRY_CLOSE_SECONDS", 0.1)
    async with redis_node(server.url) as node:
        server.kill()
        node.registry.join(NEWS, "1.1", None, 100, lambda _: None)
    assert "changes were not carried out" in caplog.text


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


WORDS = st.text(max_size=20)


@given(
    WORDS,
    st.one_of(
        st.none(), st.builds(Member, st.text(min_size=1, max_size=20), st.sampled_from([b"", b'{"a":\n1}']))
    ),
)
def test_a_line_says_again_what_it_was_made_of(channel, member):
    """Users have any characters in their ids, and so have their channels."""
    key = Key("app-1", f"#server-to-user-{channel}")
    assert decode_entry(encode_entry(key, "123.456", member)) == (key, "123.456", member)
    assert decode_entry(encode_entry(key, "123.456", member).decode()) == (key, "123.456", member)
