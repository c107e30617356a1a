"""Work on many channels is done in slices, on matching channels only, with an unchanged result."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from legato.broadcaster.channels.subscriber import Key
from legato.broadcaster.clients.admission import socket_ids
from legato.broadcaster.composition import running
from legato.broadcaster.limits import CHANNELS_PER_QUERY, ITEMS_PER_TURN
from legato.broadcaster.redis_client import redis_client
from legato.broadcaster.registry.base import Counts, LocalRegistry
from legato.broadcaster.registry.event_cache import DROPS, EventCache
from legato.broadcaster.registry.queries import RegistryQueries, glob_of
from legato.broadcaster.slices import in_order, slices
from legato.protocol import errors, wire
from tests.broadcaster.channels.test_features import get
from tests.broadcaster.conftest import APP, local_settings
from tests.broadcaster.test_fan_out_cost import instructions
from tests.broadcaster.transport.fed import door
from tests.broadcaster.transport.test_plain import FIREFOX

if TYPE_CHECKING:
    from collections.abc import Coroutine

MANY = 5 * ITEMS_PER_TURN


async def turns(work: Coroutine[Any, Any, Any]) -> tuple[Any, int]:
    """The result, and the number of loop turns meanwhile."""
    loop, count, running = asyncio.get_running_loop(), 0, True

    def tick() -> None:
        nonlocal count
        count += 1
        if running:
            loop.call_soon(tick)

    tick()
    try:
        return await work, count
    finally:
        running = False


@given(st.lists(st.text(max_size=3), max_size=30), st.integers(1, 7))
def test_slices_are_the_whole_in_its_order(names, size):
    async def whole() -> list[str]:
        return [name async for part in slices(names, size) for name in part]

    assert asyncio.run(whole()) == names


@pytest.mark.parametrize("count", [0, 1, ITEMS_PER_TURN, ITEMS_PER_TURN + 1, MANY])
async def test_sorting_lets_the_loop_run(count):
    names = [f"{n * 7919 % MANY}" for n in range(count)]
    found, taken = await turns(in_order(names))
    assert found == sorted(names)
    assert taken >= count // ITEMS_PER_TURN


async def test_local_channels_are_searched_in_slices():
    registry = LocalRegistry(lambda *_: None)
    for n in range(MANY):
        registry.join(Key("1", f"a-{n}"), "1.1", None, 1, lambda _: None)
        registry.join(Key("2", f"a-{n}"), "1.1", None, 1, lambda _: None)
    registry.join(Key("1", "b"), "1.1", None, 1, lambda _: None)
    found, taken = await turns(registry.occupied("1", "a-"))
    assert [*found] == sorted(f"a-{n}" for n in range(MANY))
    assert taken >= 3 * MANY // ITEMS_PER_TURN
    assert await registry.occupied("1", "b") == {"b": Counts(1, 0)}


async def test_only_matching_channels_are_queried_in_redis(valkey_url):
    async with redis_client(valkey_url) as redis:
        names = [f"a-{n}" for n in range(MANY)]
        await redis.sadd(wire.occupied_key("1"), *names, "presence-b", "presence-vacant")
        for name in ("a-1", "presence-b"):
            await redis.hset(wire.subscriptions_key("1", name), "1.1", "node")
        await redis.hset(wire.users_key("1", "presence-b"), "ann", 1)
        await redis.config_resetstat()
        found, _ = await turns(RegistryQueries(redis).occupied("1", "presence-"))
        assert found == {"presence-b": Counts(1, 1)}
        stats = await redis.info("commandstats")
        assert stats["cmdstat_hlen"]["calls"] == 2 * 2 + 2  # of two channels, and of the vacant one once more
        assert "cmdstat_smembers" not in stats
        await redis.config_resetstat()
        found, taken = await turns(RegistryQueries(redis).occupied("1", "a-"))
        assert found == {"a-1": Counts(1, 0)}
        assert taken >= MANY // CHANNELS_PER_QUERY
        # No question about users of a channel without; those that are vacant are looked at once more.
        assert (await redis.info("commandstats"))["cmdstat_hlen"]["calls"] == 2 * MANY - 1
        assert await redis.scard(wire.occupied_key("1")) == 2


async def test_the_answer_is_built_in_slices():
    async with running(local_settings()) as server:
        registry = server.node.registry
        for n in range(MANY):
            registry.join(Key("1", f"presence-{n}"), "1.1", None, 1, lambda _: None)
        assert (await get(server, "/apps/1/channels"))[1] == {
            "channels": {f"presence-{n}": {} for n in range(MANY)}
        }
        query = {"filter_by_prefix": "presence-1", "info": "subscription_count,user_count"}
        _, answer = await get(server, "/apps/1/channels", **query)
        assert len(answer["channels"]) == sum(str(n).startswith("1") for n in range(MANY))
        assert answer["channels"]["presence-1"] == {"subscription_count": 1, "user_count": 0}


@pytest.mark.parametrize("prefix", ["a*", "a?", "[ab]", "a\\", "^a", "a-", "[^a]", "a"])
async def test_redis_takes_the_prefix_literally(prefix, valkey_url):
    async with redis_client(valkey_url) as redis:
        names = ["a*x", "a?x", "[ab]x", "a\\x", "^ax", "a-x", "[^a]x", "ax", "bx"]
        await redis.sadd("s", *names)
        _, found = await redis.sscan("s", 0, match=glob_of(prefix), count=1000)
        assert {name.decode() for name in found} == {name for name in names if name.startswith(prefix)}


async def test_changed_applications_are_applied_to_clients_in_slices():
    async with door() as opened:
        node = opened.node
        node.admission._socket_ids = socket_ids()
        clients = [opened.come() for _ in range(2 * ITEMS_PER_TURN)]
        for one in clients:
            one.read(FIREFOX)
        assert len(node.clients.open) == len(clients)
        changed = msgspec.structs.replace(APP, max_connections=10 * ITEMS_PER_TURN)
        last = list(node.clients.open)[-1]
        asyncio.get_running_loop().call_soon(last.close, errors.TERMINATED)
        _, taken = await turns(node.app_changes.apply((changed,)))
        assert taken >= 2
        assert all(client.session.app is changed for client in node.clients.open)
        (counted,) = await node.registry.counts([Key(APP.id, wire.CONNECTIONS)])
        assert counted.subscriptions == len(node.clients.open) < len(clients)


class TestEventCache:
    def test_caching_an_event_has_constant_cost(self):
        costs = []
        for count in (10, 10_000):
            cache = EventCache(lambda: 0.0)
            for n in range(count):
                cache.remember(Key("1", f"cache-{n}"), "e", "d", 60)
            costs.append(instructions(lambda cache=cache: cache.remember(Key("1", "x"), "e", "d", 60)))
            costs.append(instructions(lambda cache=cache: cache.remember(Key("1", "x"), "e", "d", 60)))
        assert costs[:2] == costs[2:]

    def test_expired_events_are_removed_a_few_at_a_time(self):
        now = 0.0
        cache = EventCache(lambda: now)
        for n in range(1000):
            cache.remember(Key("1", f"cache-{n}"), "e", "d", 60 if n % 2 else 30)
        now = 61.0
        assert cache.recall(Key("1", "cache-1")) is None
        before = len(cache)
        cache.remember(Key("1", "new"), "e", "d", 60)
        assert len(cache) == before + 1 - DROPS
        for n in range(1000 // DROPS):
            cache.remember(Key("1", f"other-{n}"), "e", "d", 60)
        assert len(cache) == 1000 // DROPS + 1

    @given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 9), st.integers(0, 5)), max_size=40))
    def test_it_equals_an_unbounded_dictionary(self, steps):
        now, kept = 0, dict[str, tuple[int, int]]()
        cache = EventCache(lambda: now)
        for name, seconds, wait in steps:
            version = cache.remember(Key("1", name), "e", name, seconds)
            assert all(version > before for _, before in kept.values())
            kept[name] = (now + seconds, version)
            now += wait
            for one, (until, told) in kept.items():
                found = cache.recall(Key("1", one))
                expected = (until - now, told) if until > now else None
                assert (found and (found.ttl, found.version)) == expected
