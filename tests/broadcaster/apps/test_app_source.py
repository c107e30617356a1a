"""Applications that change at run time: one contract for all stores."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from legato.broadcaster.apps import source as app_source
from legato.broadcaster.apps.source import AppWatcher, UnreadableError
from legato.broadcaster.composition import StartError, running
from legato.broadcaster.config import AppSource as Config
from legato.broadcaster.config import Auth, Chat
from legato.broadcaster.redis_client import redis_client
from legato.protocol import signatures
from legato.protocol.apps import App
from legato.protocol.settings import Redis, SettingsError
from tests.broadcaster.api.test_http_api import call, signed
from tests.broadcaster.apps.app_tables import TABLE, create, put_row
from tests.broadcaster.conftest import APP, client, dial, local_settings
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

HASH = "legato:apps"


class Hash:
    """The Redis hash."""

    def __init__(self, redis: Any, url: str) -> None:
        self.redis = redis
        self.config = Config(redis_hash=HASH, seconds=0.1)
        self.engine = {"redis": Redis(url=url)}

    async def put(self, app_id: str, **values: Any) -> None:
        await self.redis.hset(HASH, app_id, json.dumps(values))

    async def put_junk(self, app_id: str) -> None:
        await self.redis.hset(HASH, app_id, "{")

    async def remove(self, app_id: str) -> None:
        await self.redis.hdel(HASH, app_id)

    async def spoil(self) -> None:
        if await self.redis.exists(HASH):
            await self.redis.rename(HASH, "elsewhere")
        await self.redis.set(HASH, "not a hash")

    async def repair(self) -> None:
        await self.redis.rename("elsewhere", HASH)


class Table:
    """The documented table in an SQLite file, without Redis."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = Config(database_url=f"sqlite:///{path}", seconds=0.1)
        self.engine: dict[str, Any] = {}
        create(path)

    async def put(self, app_id: str, **values: Any) -> None:
        put_row(self.path, id=app_id, **values)

    async def put_junk(self, app_id: str) -> None:
        put_row(self.path, id=app_id, key="junk", secret="s", webhooks="{")

    def _run(self, statement: str, *values: Any) -> None:
        with sqlite3.connect(self.path) as connection:
            connection.execute(statement, values)
        connection.close()

    async def remove(self, app_id: str) -> None:
        self._run(f"DELETE FROM {TABLE} WHERE id = ?", app_id)

    async def spoil(self) -> None:
        self._run(f"ALTER TABLE {TABLE} RENAME TO elsewhere")

    async def repair(self) -> None:
        self._run(f"ALTER TABLE elsewhere RENAME TO {TABLE}")


@pytest.fixture(params=["hash", "table"])
async def place(request, tmp_path) -> AsyncIterator[Any]:
    if request.param == "table":
        yield Table(tmp_path / "apps.db")
        return
    url = request.getfixturevalue("valkey_url")
    async with redis_client(url) as redis:
        yield Hash(redis, url)


@pytest.fixture
def settings(place):
    return local_settings(**place.engine, app_source=place.config)


async def test_an_application_exists_from_the_start_or_is_added_later(settings, place):
    await place.put("7", key="k7", secret="s7")
    async with running(settings) as server:
        async with dial(server.port, "/app/k7") as ann:
            assert (await ann.receive())["event"] == "pusher:connection_established"
        async with dial(server.port, "/app/k8") as bob:
            assert (await bob.receive())["data"]["code"] == 4001
        await place.put("8", key="k8", secret="s8")
        await until(lambda: "8" in server.node.apps.by_id)
        async with dial(server.port, "/app/k8") as bob:
            assert (await bob.receive())["event"] == "pusher:connection_established"
        assert set(server.node.apps.by_id) == {APP.id, "7", "8"}


@pytest.mark.parametrize(("change", "code"), [({"enabled": False}, 4003), (None, 4001)])
async def test_connections_of_a_disabled_or_removed_application_are_closed(settings, place, change, code):
    values = {"key": "k7", "secret": "s7"}
    await place.put("7", **values)
    async with running(settings) as server, dial(server.port, "/app/k7") as ann, client(server.port) as bob:
        await ann.receive()
        await ann.send("pusher:subscribe", {"channel": "x"})
        await ann.receive()
        if change is None:
            await place.remove("7")
        else:
            await place.put("7", **values, **change)
        assert (await ann.receive())["data"]["code"] == code
        assert await ann.closed() == code
        await bob.send("pusher:ping")
        assert (await bob.receive())["event"] == "pusher:pong"


async def test_a_secret_is_rotated_without_interruption(settings, place):
    await place.put("7", key="k7", secret="old")
    async with running(settings) as server, dial(server.port, "/app/k7") as ann:
        ann.socket_id = json.loads((await ann.receive())["data"])["socket_id"]
        await place.put("7", key="new", secret="fresh", old_keys={"k7": "old"})
        await until(lambda: server.node.apps.by_id["7"].key == "new")
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


async def test_an_invalid_application_is_left_out_and_logged_once(settings, place, caplog):
    await place.put("7", key="k7", secret="")
    await place.put_junk("junk")
    await place.put("bad id", key="k9", secret="hush-hush")
    await place.put("thief", key=APP.key, secret="x")
    await place.put("8", key="k8", secret="s8")
    async with running(settings) as server:
        assert set(server.node.apps.by_id) == {APP.id, "8"}
        await place.put("9", key="k9.", secret="hush-hush")
        await place.put("8", key="k8", secret="s8", max_connections=1)
        await until(lambda: server.node.apps.by_id["8"].max_connections)
        assert "9" not in server.node.apps.by_id
        await place.put("9", key="k9", secret="s9")
        await until(lambda: "9" in server.node.apps.by_id)
    assert caplog.text.count("'7' is left out") == 1
    assert caplog.text.count("'junk' is left out") == 1
    assert caplog.text.count("'thief' is left out: another application has its id or one of its keys") == 1
    assert "hush-hush" not in caplog.text


async def test_the_settings_take_precedence_over_the_hash(settings, place):
    await place.put(APP.id, key="other", secret="other")
    async with running(settings) as server:
        assert server.node.apps.by_id == {APP.id: APP}


async def test_while_the_store_does_not_answer_the_known_applications_stay(
    settings, place, caplog, monkeypatch
):
    looks: list[AppWatcher] = []
    load = AppWatcher.load
    monkeypatch.setattr(AppWatcher, "load", lambda self: looks.append(self) or load(self))
    caplog.set_level(logging.INFO, "legato.apps")
    await place.put("7", key="k7", secret="s7")
    async with running(settings) as server, dial(server.port, "/app/k7") as ann:
        await ann.receive()
        await place.spoil()
        await until(lambda: "cannot be read" in caplog.text)
        looked = len(looks)
        await until(lambda: len(looks) > looked + 2)
        assert caplog.text.count("cannot be read") == 1
        assert "7" in server.node.apps.by_id
        await ann.send("pusher:ping")
        assert (await ann.receive())["event"] == "pusher:pong"
        await place.repair()
        await place.put("8", key="k8", secret="s8")
        await until(lambda: "8" in server.node.apps.by_id)
        assert caplog.text.count("can be read again") == 1


async def test_no_application_anywhere_stops_the_start(place):
    empty = local_settings(**place.engine, app_source=place.config, apps=())
    with pytest.raises(SettingsError, match="apps: no application"):
        async with running(empty):
            pass


@pytest.mark.parametrize("table", [{"auth": Auth(app="9")}, {"chat": Chat(app="9")}])
async def test_a_setting_that_names_a_missing_application_stops_the_start(place, valkey_url, table):
    asking = local_settings(redis=Redis(url=valkey_url), app_source=place.config, **table)
    with pytest.raises(SettingsError, match="'9': no such application id"):
        async with running(asking):
            pass


async def test_an_unreadable_store_stops_the_start(settings, place):
    await place.spoil()
    with pytest.raises(StartError, match="cannot be read"):
        async with running(settings):
            pass


async def test_the_webhooks_of_an_application_change_with_it(settings, place):
    received: list[bytes] = []

    async def receive(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        received.append(await reader.readexactly(length))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    receiver = await asyncio.start_server(receive, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{receiver.sockets[0].getsockname()[1]}/hook"
    await place.put("7", key="k7", secret="s7")
    async with running(settings) as server:
        await place.put("7", key="k7", secret="s7", webhooks=[{"url": url}])
        await until(lambda: server.node.apps.by_id["7"].webhooks)
        async with dial(server.port, "/app/k7") as ann:
            await ann.receive()
            await ann.send("pusher:subscribe", {"channel": "x"})
            await until(lambda: received)
    receiver.close()
    await receiver.wait_closed()
    assert json.loads(received[0])["events"] == [{"name": "channel_occupied", "channel": "x"}]


# --- the source alone, over a place made up


class Made:
    """A store that returns given entries, and counts conversions."""

    name = "made"

    def __init__(self, *entries: tuple[str, str]) -> None:
        self.entries = list(entries)
        self.asked = 0
        self.trouble = ""

    async def read(self) -> list[tuple[str, str]]:
        if self.trouble:
            raise UnreadableError(self.trouble)
        return self.entries

    def app(self, content: str) -> App:
        self.asked += 1
        if not content:
            raise ValueError("empty")
        return App(id=content, key=f"k{content}", secret="s")

    async def close(self) -> None:
        """Nothing to do."""


async def test_an_unchanged_entry_is_not_converted_again():
    place = Made(("7", "7"), ("8", "8"))
    source = AppWatcher(place, (), 10)
    seven, _ = await source.load()
    place.entries = [("7", "7"), ("8", "9")]
    assert [app.id for app in await source.load()] == ["7", "9"]
    assert (await source.load())[0] is seven
    assert place.asked == 3


async def test_many_entries_let_the_loop_run():
    place = Made(*((str(number), str(number)) for number in range(5 * app_source.APP_CHECKS_PER_TURN)))
    loading = asyncio.create_task(AppWatcher(place, (), 10).load())
    seen = set()
    while not loading.done():
        await asyncio.sleep(0)
        seen.add(place.asked)
    assert len(await loading) == 5 * app_source.APP_CHECKS_PER_TURN
    assert len(seen) >= 5


async def test_an_invalid_entry_is_logged_again_only_after_it_was_valid(caplog):
    place = Made(("7", ""), ("7", "7"))
    source = AppWatcher(place, (), 10)
    for entries, times in (([("7", "")], 1), ([("7", "")], 1), ([("7", "7")], 1), ([("7", "")], 2)):
        place.entries = entries
        await source.load()
        assert caplog.text.count("made: '7' is left out: empty") == times


async def test_an_internal_error_does_not_end_the_polling(caplog):
    used: list[Any] = []

    async def use(apps: tuple[App, ...]) -> None:
        used.append(apps)
        if len(used) == 1:
            raise KeyError("x")

    watch = asyncio.create_task(AppWatcher(Made(("7", "7")), (), 0.01).watch(use))
    await until(lambda: len(used) > 2)
    watch.cancel()
    assert caplog.text.count("the applications could not be changed") == 1
