"""Applications that come, change and go while the server runs."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from broadcaster.bus import redis_client
from broadcaster.config import AppSource, Auth, Chat
from broadcaster.server import StartError, running
from protocol import signatures
from protocol.apps import App
from protocol.settings import Redis, SettingsError
from tests.broadcaster.conftest import APP, client, dial, local_settings, until
from tests.broadcaster.test_http_api import call, signed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HASH = "legato:apps"


@pytest.fixture
async def redis(valkey_url) -> AsyncIterator[Any]:
    async with redis_client(valkey_url) as connected:
        yield connected


@pytest.fixture
def settings(valkey_url):
    source = AppSource(redis_hash=HASH, seconds=0.1)
    return local_settings(redis=Redis(url=valkey_url), app_source=source)


async def put(redis, app_id: str, **values: Any) -> None:
    await redis.hset(HASH, app_id, json.dumps(values))


async def test_an_application_is_there_from_the_start_or_comes_later(settings, redis):
    await put(redis, "7", key="k7", secret="s7")
    async with running(settings) as server:
        async with dial(server.port, "/app/k7") as ann:
            assert (await ann.receive())["event"] == "pusher:connection_established"
        async with dial(server.port, "/app/k8") as bob:
            assert (await bob.receive())["data"]["code"] == 4001
        await put(redis, "8", key="k8", secret="s8")
        await until(lambda: "8" in server.node.apps)
        async with dial(server.port, "/app/k8") as bob:
            assert (await bob.receive())["event"] == "pusher:connection_established"
        assert set(server.node.apps) == {APP.id, "7", "8"}


@pytest.mark.parametrize(("change", "code"), [({"enabled": False}, 4003), (None, 4001)])
async def test_connections_of_one_that_is_disabled_or_removed_are_closed(settings, redis, change, code):
    values = {"key": "k7", "secret": "s7"}
    await put(redis, "7", **values)
    async with running(settings) as server, dial(server.port, "/app/k7") as ann, client(server.port) as bob:
        await ann.receive()
        await ann.send("pusher:subscribe", {"channel": "x"})
        await ann.receive()
        if change is None:
            await redis.hdel(HASH, "7")
        else:
            await put(redis, "7", **values, **change)
        assert (await ann.receive())["data"]["code"] == code
        assert await ann.closed() == code
        await bob.send("pusher:ping")
        assert (await bob.receive())["event"] == "pusher:pong"


async def test_a_secret_is_rotated_without_a_break(settings, redis):
    await put(redis, "7", key="k7", secret="old")
    async with running(settings) as server, dial(server.port, "/app/k7") as ann:
        ann.socket_id = json.loads((await ann.receive())["data"])["socket_id"]
        await put(redis, "7", key="new", secret="fresh", old_keys={"k7": "old"})
        await until(lambda: server.node.apps["7"].key == "new")
        for key, secret in (("k7", "old"), ("new", "fresh")):
            channel = f"private-{key}"
            auth = signatures.sign_channel(key, secret, ann.socket_id, channel)
            await ann.send("pusher:subscribe", {"channel": channel, "auth": auth})
            assert (await ann.receive())["event"] == "pusher_internal:subscription_succeeded"
            async with dial(server.port, f"/app/{key}") as bob:
                assert (await bob.receive())["event"] == "pusher:connection_established"
            body = b'{"name":"e","data":"x","channel":"a"}'
            path = signed("/apps/7/events", body, app=App(id="7", key=key, secret=secret))
            assert (await call(server.port, path, body))[0] == 200


async def test_what_is_no_application_is_left_out_and_said_once(settings, redis, caplog):
    await put(redis, "7", key="k7")
    await redis.hset(HASH, "junk", "{")
    await redis.hset(HASH, "bad id", json.dumps({"key": "k9", "secret": "hush-hush"}))
    await put(redis, "thief", key=APP.key, secret="x")
    await put(redis, "8", key="k8", secret="s8")
    async with running(settings) as server:
        assert set(server.node.apps) == {APP.id, "8"}
        await put(redis, "9", key="k9", secret="s9")
        await until(lambda: "9" in server.node.apps)
    assert caplog.text.count("'7' is left out") == 1
    assert caplog.text.count("'junk' is left out") == 1
    assert "application thief is left out" in caplog.text
    assert "hush-hush" not in caplog.text


async def test_the_settings_win_over_the_hash(settings, redis):
    await put(redis, APP.id, key="other", secret="other")
    async with running(settings) as server:
        assert server.node.apps == {APP.id: APP}


async def test_while_redis_is_away_what_is_known_stays(settings, redis, caplog):
    await put(redis, "7", key="k7", secret="s7")
    async with running(settings) as server:
        await redis.rename(HASH, "elsewhere")
        await redis.set(HASH, "not a hash")
        async with asyncio.timeout(10):
            while "cannot be read" not in caplog.text:  # noqa: ASYNC110 - the log is the only sign
                await asyncio.sleep(0.02)
        assert "7" in server.node.apps
        await redis.delete(HASH)
        await redis.rename("elsewhere", HASH)
        await put(redis, "8", key="k8", secret="s8")
        await until(lambda: "8" in server.node.apps)


async def test_no_application_anywhere_stops_the_start(settings, valkey_url):
    empty = local_settings(redis=Redis(url=valkey_url), app_source=settings.app_source, apps=())
    with pytest.raises(SettingsError, match="apps: no application"):
        async with running(empty):
            pass


@pytest.mark.parametrize("table", [{"auth": Auth(app="9")}, {"chat": Chat(app="9")}])
async def test_an_application_that_is_asked_for_and_not_there_stops_the_start(settings, valkey_url, table):
    asking = local_settings(redis=Redis(url=valkey_url), app_source=settings.app_source, **table)
    with pytest.raises(SettingsError, match="'9': no such application id"):
        async with running(asking):
            pass


async def test_a_hash_that_cannot_be_read_stops_the_start(settings, redis):
    await redis.set(HASH, "not a hash")
    with pytest.raises(StartError, match="cannot be read"):
        async with running(settings):
            pass


async def test_the_webhooks_of_an_application_change_with_it(settings, redis):
    received: list[bytes] = []

    async def receive(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        received.append(await reader.readexactly(length))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    receiver = await asyncio.start_server(receive, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{receiver.sockets[0].getsockname()[1]}/hook"
    await put(redis, "7", key="k7", secret="s7")
    async with running(settings) as server:
        await put(redis, "7", key="k7", secret="s7", webhooks=[{"url": url}])
        await until(lambda: server.node.apps["7"].webhooks)
        async with dial(server.port, "/app/k7") as ann:
            await ann.receive()
            await ann.send("pusher:subscribe", {"channel": "x"})
            await until(lambda: received)
    receiver.close()
    await receiver.wait_closed()
    assert json.loads(received[0])["events"] == [{"name": "channel_occupied", "channel": "x"}]
