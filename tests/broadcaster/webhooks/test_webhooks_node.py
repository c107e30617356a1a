"""Webhooks of running servers: one node, and two that share Redis."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from legato.broadcaster.composition import running
from legato.protocol import signatures
from legato.protocol.apps import Webhook
from legato.protocol.settings import Redis
from tests.broadcaster.conftest import APP, client, local_settings
from tests.broadcaster.webhooks.webhook_receiver import Receiver
from tests.waiting import until

ROOM = "presence-room"


@pytest.fixture
async def receiver():
    receiver = Receiver()
    async with receiver.listening():
        yield receiver


def settings_for(receiver, redis_url=""):
    app = msgspec.structs.replace(APP, webhooks=(Webhook(url=receiver.url),))
    return local_settings(app, redis=Redis(url=redis_url))


async def join(connected, user_id="7", channel=ROOM):
    data = msgspec.json.encode({"user_id": user_id}).decode()
    auth = signatures.sign_channel(APP.key, APP.secret, connected.socket_id, channel, data)
    await connected.send("pusher:subscribe", {"channel": channel, "auth": auth, "channel_data": data})
    assert (await connected.receive())["event"] == "pusher_internal:subscription_succeeded"


async def test_one_node_tells_who_comes_and_goes(receiver):
    async with running(settings_for(receiver)) as server, client(server.port) as one:
        await join(one)
        await one.send("client-a", {"b": 1}, channel=ROOM)
        await one.send("pusher:unsubscribe", {"channel": ROOM})
        await until(lambda: len(receiver.events) == 5)
    assert receiver.names == [
        "channel_occupied",
        "member_added",
        "client_event",
        "member_removed",
        "channel_vacated",
    ]


@pytest.mark.parametrize("engine", ["local", "valkey"])
async def test_a_subscriber_that_comes_back_to_the_node_has_never_been_away(receiver, request, engine):
    url = "" if engine == "local" else request.getfixturevalue("valkey_url")
    async with running(settings_for(receiver, url)) as server:
        async with client(server.port) as one:
            await one.subscribe("private-x")
        await until(lambda: server.node.webhooks._departures.held.next_due is not None)
        async with client(server.port) as two:
            await two.subscribe("private-x")
            await until(lambda: server.node.webhooks._departures.held.next_due is None)
            await two.send("pusher:unsubscribe", {"channel": "private-x"})
            await until(lambda: "channel_vacated" in receiver.names)
    assert receiver.names == ["channel_occupied", "channel_vacated"]


async def test_a_member_that_comes_back_to_another_node_has_never_been_away(receiver, valkey_url):
    settings = settings_for(receiver, valkey_url)
    async with running(settings) as first, running(settings) as second:
        async with client(first.port) as one:
            await join(one)
        await until(lambda: first.node.webhooks._departures.held.next_due is not None)
        async with client(second.port) as two:
            await join(two)
            await until(lambda: first.node.webhooks._departures.held.next_due is None)
            await two.send("pusher:unsubscribe", {"channel": ROOM})
            await until(lambda: "channel_vacated" in receiver.names)
    assert receiver.names == ["channel_occupied", "member_added", "member_removed", "channel_vacated"]


async def test_when_a_node_stops_its_departures_are_told(receiver, valkey_url):
    async with running(settings_for(receiver, valkey_url)) as first, client(first.port) as one:
        await join(one)
    assert receiver.names == ["channel_occupied", "member_added", "member_removed", "channel_vacated"]


async def test_occupied_is_told_before_vacated_however_long_the_welcome_takes(receiver, monkeypatch):
    """A cache channel's subscriber waits for the cached event, and may be gone before it comes."""
    found = asyncio.Event()
    async with running(settings_for(receiver)) as server, client(server.port) as one:
        recall = server.node.registry.recall

        async def slow(key):
            await found.wait()
            return await recall(key)

        monkeypatch.setattr(server.node.registry, "recall", slow)
        await one.subscribe("cache-x")
        await one.send("pusher:unsubscribe", {"channel": "cache-x"})
        await until(lambda: "channel_vacated" in receiver.names)
        found.set()
        await until(lambda: "cache_miss" in receiver.names)
    assert receiver.names[:2] == ["channel_occupied", "channel_vacated"]


async def test_webhooks_follow_applications_that_change(receiver):
    settings = settings_for(receiver)
    async with running(settings) as server, client(server.port) as one:
        kept = server.node.webhooks
        (app,) = settings.apps
        await server.node.app_changes.apply((app, msgspec.structs.replace(APP, id="2", key="other")))
        await one.subscribe("private-x")
        await until(lambda: receiver.names == ["channel_occupied"])
        assert server.node.webhooks is kept
        await server.node.app_changes.apply((APP,))
        await one.subscribe("private-y")
        await one.subscribe("private-z")
        await until(lambda: not kept._senders.all)
    assert receiver.names == ["channel_occupied"]
