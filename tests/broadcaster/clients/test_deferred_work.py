"""Large batches of work are done in small steps: a client with many channels delays no other."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from legato.broadcaster.channels.subscriber import Key
from legato.broadcaster.clients import deferred_work as module
from legato.broadcaster.clients.deferred_work import DeferredWork
from legato.broadcaster.composition import running
from legato.broadcaster.redis_client import redis_client
from legato.protocol import signatures, wire
from legato.protocol.settings import Redis
from tests.broadcaster.conftest import APP, client, local_settings
from tests.broadcaster.fake_loop import run_turn
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from legato.broadcaster.clients.client import Client as NodeClient

MANY = 300
"""Channels of one client; more than one turn of the loop can process."""


class Loop:
    """Batches that record their steps, and a clock that advances with each read."""

    def __init__(self) -> None:
        self.scheduled: list[Callable[[], None]] = []
        self.done: list[str] = []
        self.now = 0.0
        self.deferred = DeferredWork(self.scheduled.append, self.clock)

    def clock(self) -> float:
        self.now += module.DEFERRED_TURN_SECONDS
        return self.now

    def heap(self, name: str, steps: int) -> Iterator[None]:
        for _ in range(steps):
            self.done.append(name)
            yield

    def turn(self) -> None:
        run_turn(self.scheduled)


@pytest.fixture
def loop(monkeypatch) -> Loop:
    monkeypatch.setattr(module, "DEFERRED_STEPS_PER_TURN", 4)
    monkeypatch.setattr(module, "LOW", 2)
    monkeypatch.setattr(module, "DEFERRED_STEPS_PER_BATCH", 2)
    return Loop()


def test_a_small_batch_is_done_at_once(loop):
    assert loop.deferred.put(loop.heap("a", 1))
    assert loop.done == ["a"]
    assert len(loop.deferred) == 0


def test_large_batches_continue_in_later_turns_in_rotation(loop):
    assert not loop.deferred.put(loop.heap("a", 9))
    assert not loop.deferred.put(loop.heap("b", 3))
    assert loop.done == ["a"] * 4
    seen = []
    while loop.scheduled:
        before = len(loop.done)
        loop.turn()
        seen.append("".join(loop.done[before:]))
    assert seen == ["aa", "bb", "aa", "b", "a"]
    assert len(loop.deferred) == 0


def test_work_behind_a_batch_waits_until_it_is_done(loop):
    loop.deferred.put(loop.heap("a", 9))
    assert not loop.deferred.take(1)
    while loop.scheduled:
        loop.turn()
    assert loop.deferred.take(3)
    assert not loop.deferred.take(3)
    loop.turn()
    assert loop.deferred.take(3)


def test_an_error_in_one_batch_is_logged_and_the_others_continue(loop, caplog):
    def faulty() -> Iterator[None]:
        yield from loop.heap("a", 5)
        raise ValueError("a fault")

    loop.deferred.put(faulty())
    loop.deferred.put(loop.heap("b", 5))
    while loop.scheduled:
        loop.turn()
    assert loop.done.count("b") == 5
    assert "a fault" in caplog.text


def test_a_step_may_add_another_batch(loop):
    def outer() -> Iterator[None]:
        yield
        loop.deferred.put(loop.heap("inner", 9))
        yield from loop.heap("outer", 1)

    loop.deferred.put(outer())
    while loop.scheduled:
        loop.turn()
    assert (loop.done.count("inner"), loop.done.count("outer")) == (9, 1)


async def test_done_waits_until_no_batch_is_left(loop):
    await loop.deferred.done()
    loop.deferred.put(loop.heap("a", 9))
    waiting = asyncio.create_task(loop.deferred.done())
    await asyncio.sleep(0)
    assert not waiting.done()
    while loop.scheduled:
        loop.turn()
    await waiting


# --- a node


class Steps:
    """Records the loop turn in which each channel lost a subscriber."""

    def __init__(self, node: Any) -> None:
        self.turns: list[int] = []
        self._turn = 0
        unsubscribe, loop = node.hub.unsubscribe, asyncio.get_running_loop()

        def recorded(subscriber: Any, key: Key) -> None:
            self.turns.append(self._turn)
            unsubscribe(subscriber, key)

        def turn() -> None:
            self._turn += 1
            self._next = loop.call_soon(turn)

        node.hub.unsubscribe = recorded
        self._next = loop.call_soon(turn)

    def close(self) -> int:
        """The maximum per turn."""
        self._next.cancel()
        return max(self.turns.count(turn) for turn in set(self.turns))


async def subscribe_to_many(one: Any, names: list[str]) -> None:
    for name in names:
        auth = signatures.sign_channel(APP.key, APP.secret, one.socket_id, name)
        await one.send("pusher:subscribe", {"channel": name, "auth": auth})
    for _ in names:
        assert (await one.receive())["event"] == "pusher_internal:subscription_succeeded"


async def test_a_client_with_many_channels_leaves_them_over_many_turns(server, monkeypatch):
    monkeypatch.setattr(module, "DEFERRED_TURN_SECONDS", 0.0)
    names = [f"private-{number}" for number in range(MANY)]
    async with client(server.port) as bob:
        async with client(server.port) as ann:
            await subscribe_to_many(ann, names)
            await subscribe_to_many(bob, names[:3])
            assert server.node.subscriptions.open == MANY + 3
            steps = Steps(server.node)
            ann.connection.transport.abort()
        await until(lambda: server.node.subscriptions.open == 3)
        assert steps.close() <= module.DEFERRED_STEPS_PER_TURN
        assert len(steps.turns) == MANY
        assert (len(server.node.hub), server.node.hub._departed) == (3, set())
        await bob.send("pusher:ping")
        assert (await bob.receive())["event"] == "pusher:pong"
        await until_async(lambda: occupied(server.node), names[:3])


async def occupied(node: Any) -> list[str]:
    return list(await node.registry.occupied("1"))


async def until_async(ask: Callable[[], Any], expected: Any) -> None:
    async with asyncio.timeout(30):
        while await ask() != expected:  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0.01)


async def test_nothing_is_written_to_a_client_that_has_left_while_its_channels_wait(server, monkeypatch):
    monkeypatch.setattr(module, "DEFERRED_STEPS_PER_TURN", 0)
    names = [f"private-{number}" for number in range(MANY)]
    async with client(server.port) as ann, client(server.port) as bob:
        await subscribe_to_many(ann, names)
        await subscribe_to_many(bob, names[-1:])
        (left,) = [one for one in server.node.clients.open if one.socket_id == ann.socket_id]
        turn, server.node.deferred._turn = server.node.deferred._turn, lambda: None  # no step is done
        server.node.deferred._left = 0
        left.leave()
        assert server.node.hub.count(Key("1", names[-1])) == 2
        server.node.hub.deliver(Key("1", names[-1]), b'{"event":"e"}')
        assert (await bob.receive())["event"] == "e"
        assert server.node.hub.count(Key("1", names[-1])) == 1
        assert left not in server.node.hub.subscribers(Key("1", names[0]))
        turn()
        server.node.deferred._turn = turn
        server.node.deferred._scheduled = False
        server.node.deferred._schedule()
        await until(lambda: len(server.node.hub) == 1)
        left.write_now(b"\x81\x05there")
        assert await ann.connection.recv() == "there"


async def test_a_late_departure_of_a_member_is_announced_once(server, monkeypatch):
    monkeypatch.setattr(module, "DEFERRED_TURN_SECONDS", 0.0)
    names = [f"private-{number}" for number in range(MANY)]
    async with client(server.port) as bob:
        await enter(bob, "bob")
        async with client(server.port) as ann:
            await subscribe_to_many(ann, names)
            await enter(ann, "ann")
            assert (await bob.receive())["event"] == "pusher_internal:member_added"
            ann.connection.transport.abort()
        gone = await bob.receive()
        assert gone["event"] == "pusher_internal:member_removed"
        assert json.loads(gone["data"])["user_id"] == "ann"
        async with client(server.port) as again:
            assert set(json.loads((await enter(again, "ann"))["data"])["presence"]["ids"]) == {"ann", "bob"}
            assert (await bob.receive())["event"] == "pusher_internal:member_added"


async def enter(one: Any, name: str) -> dict[str, Any]:
    data = json.dumps({"user_id": name})
    auth = signatures.sign_channel(APP.key, APP.secret, one.socket_id, "presence-room", data)
    await one.send("pusher:subscribe", {"channel": "presence-room", "auth": auth, "channel_data": data})
    return await one.receive()


async def test_many_dismissed_clients_leave_at_once_and_are_closed_over_many_turns(server, monkeypatch):
    monkeypatch.setattr(module, "DEFERRED_STEPS_PER_TURN", 2)
    monkeypatch.setattr(module, "DEFERRED_STEPS_PER_BATCH", 2)
    monkeypatch.setattr(module, "DEFERRED_TURN_SECONDS", 0.0)
    server.node.deferred._left = 2
    told: list[NodeClient] = []
    async with contextlib.AsyncExitStack() as stack:
        people = [await stack.enter_async_context(client(server.port)) for _ in range(9)]
        for one in people:
            await one.subscribe("private-a")
        for one in server.node.clients.open:
            monkeypatch.setattr(type(one), "say_goodbye", _recording(type(one).say_goodbye, told))
            break
        await server.node.app_changes.apply((msgspec.structs.replace(APP, enabled=False),))
        assert len(server.node.clients.open) == 0
        assert len(told) <= 2
        for one in people:
            assert (await one.receive())["data"]["code"] == 4003
            assert await one.closed() == 4003
        await until(lambda: len(server.node.hub) == 0)


def _recording(say_goodbye: Any, told: list[NodeClient]) -> Any:
    def recorded(one: NodeClient, error: Any) -> None:
        told.append(one)
        say_goodbye(one, error)

    return recorded


async def test_a_departure_processed_after_the_lease_expired_leaves_nothing_behind(valkey_url, monkeypatch):
    """It is registered under the node's old name, and ends under it."""
    names = [f"private-{number}" for number in range(MANY)]
    async with (
        running(local_settings(redis=Redis(url=valkey_url))) as server,
        redis_client(valkey_url) as redis,
        client(server.port) as ann,
    ):
        await subscribe_to_many(ann, names)
        monkeypatch.setattr(module, "DEFERRED_TURN_SECONDS", 0.0)
        registry, old = server.node.registry, server.node.registry.name
        assert await redis.scard(wire.entries_key(old)) == MANY
        registry.start_anew()
        assert registry.name != old
        assert len(server.node.deferred) > 0
        assert await ann.closed() == 4100
        await server.node.deferred.done()
        await registry.flush()
        assert await registry.occupied("1") == {}
        assert await redis.scard(wire.entries_key(old)) == 0
        assert await redis.scard(wire.entries_key(registry.name)) == 0


async def test_a_subscription_above_the_limit_of_the_process_is_refused_in_order(settings):
    server_settings = msgspec.structs.replace(settings.server, max_subscriptions=2)
    async with (
        running(msgspec.structs.replace(settings, server=server_settings)) as server,
        client(server.port) as ann,
    ):
        for name in ("a", "b", "c", "c", "d"):
            await ann.send("pusher:subscribe", {"channel": name})
        await ann.send("pusher:ping")
        told = [await ann.receive() for _ in range(6)]
        assert [one.get("channel", "pong") for one in told] == ["a", "b", "c", "c", "d", "pong"]
        assert {one["event"] for one in told[2:5]} == {"pusher:subscription_error"}
        assert told[2]["data"] == {
            "type": "LimitReached",
            "error": "The server has 2 subscriptions already",
            "status": 4100,
        }
        assert (server.node.subscriptions.open, server.node.subscriptions.refused) == (2, 3)
        await ann.send("pusher:unsubscribe", {"channel": "a"})
        assert (await ann.subscribe("e"))["event"] == "pusher_internal:subscription_succeeded"
        assert server.node.subscriptions.open == 2
