"""A node asks the bus for a channel from its first subscriber to its last."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from legato.broadcaster.bus.local import LocalBus
from legato.broadcaster.channels.subscriber import Key
from legato.broadcaster.composition import running
from legato.broadcaster.redis_client import redis_client
from legato.protocol import stream, wire
from legato.protocol.settings import Redis
from tests.broadcaster.channels.test_features import join, nothing_more, sign_in
from tests.broadcaster.conftest import APP, client, local_settings
from tests.waiting import WAIT, until

if TYPE_CHECKING:
    from legato.broadcaster.composition import Running
    from tests.broadcaster.conftest import Client

USERS_OWN = "#server-to-user-ann"
CHANNELS = ("news", "presence-room")


async def asked_for(server: Running) -> list[str]:
    """Which of these channels the bus delivers to the node: what Redis says, or the bus of one process."""
    keys = [Key(APP.id, channel) for channel in (*CHANNELS, USERS_OWN)]
    bus = server.node.bus
    if isinstance(bus, LocalBus):
        return [key.channel for key in keys if key in bus._channels]
    async with redis_client(server.node.settings.redis.url) as redis:
        names = [wire.bus_channel(*key) for key in keys]
        counts = (await redis.execute_command("PUBSUB", "SHARDNUMSUB", *names))[1::2]
    return [key.channel for key, count in zip(keys, counts, strict=True) if count]


async def enter(one: Client) -> None:
    """Subscribe to all of them, as the same user."""
    assert (await sign_in(one, "ann"))["event"] == "pusher:signin_success"
    await one.subscribe("news")
    await join(one, "ann")


async def leave(one: Client, how: str) -> None:
    """End the subscriptions; a signed-in user keeps the user's own channel until the connection ends."""
    if how == "disconnect":
        await one.connection.close()
        return
    for channel in CHANNELS:
        await one.send("pusher:unsubscribe", {"channel": channel})
    await nothing_more(one)


@pytest.mark.parametrize(("how", "left"), [("unsubscribe", [USERS_OWN]), ("disconnect", [])])
async def test_the_last_subscriber_ends_the_subscription_to_the_bus(server, how, left):
    """Otherwise Redis would send a node every channel that ever had a subscriber there."""
    if not isinstance(server.node.bus, LocalBus):
        server.node.bus._lingering.seconds = 0.0
    async with client(server.port) as ann, client(server.port) as also_ann:
        await enter(ann)
        await enter(also_ann)
        assert await asked_for(server) == [*CHANNELS, USERS_OWN]
        await leave(ann, how)
        await until(lambda: server.node.hub.count(Key(APP.id, "presence-room")) == 1)
        assert await asked_for(server) == [*CHANNELS, USERS_OWN]
        await leave(also_ann, how)

        async def ended() -> bool:
            return await asked_for(server) == left

        await until(ended)


async def test_nothing_is_kept_of_a_channel_without_subscribers(valkey_url):
    """Neither the version of its cached event, nor its replies; and what waits for its fence goes on."""
    chat = stream.chat_channel("ann")
    async with running(local_settings(redis=Redis(url=valkey_url))) as server:
        node = server.node
        fence = node.delivery._fence
        fence._ask = lambda _: None  # a bus that never answers
        async with client(server.port) as ann:
            await ann.subscribe("cache-news")
            assert (await ann.receive())["event"] == "pusher:cache_miss"
            await ann.subscribe(chat)
            assert list(node.cached._versions) == [Key(APP.id, "cache-news")]
            assert list(node.healer._channels) == [Key(APP.id, chat)]
            passed = asyncio.ensure_future(fence.passed([Key(APP.id, chat)]))
            await until(lambda: fence._waiting)
            assert not passed.done()
        async with asyncio.timeout(WAIT):
            await passed
        await until(lambda: not node.cached._versions and not node.healer._channels)
