"""Presence, client events, users, cache channels, counts and HTTP queries, without and with Redis."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

import pusher
import pytest

from legato.broadcaster.channels import counts as counts_module
from legato.broadcaster.channels.subscriber import Key
from legato.broadcaster.composition import running
from legato.broadcaster.lifecycle import close_lapsed
from legato.protocol import messages, signatures
from legato.protocol.apps import App
from legato.protocol.settings import Redis
from tests.broadcaster.api.test_http_api import EVENTS, call, post, signed
from tests.broadcaster.conftest import APP, Client, client, local_settings
from tests.waiting import WAIT, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ROOM = "presence-room"


async def join(ann: Client, user_id: Any, channel: str = ROOM, **user_info: Any) -> dict[str, Any]:
    """Subscribe to a presence channel as a user. Returns the answer."""
    data = {"user_id": user_id} | ({"user_info": user_info} if user_info else {})
    channel_data = json.dumps(data)
    auth = signatures.sign_channel(APP.key, APP.secret, ann.socket_id, channel, channel_data)
    await ann.send("pusher:subscribe", {"channel": channel, "auth": auth, "channel_data": channel_data})
    return await ann.receive()


async def sign_in(ann: Client, user_id: str, **more: Any) -> dict[str, Any]:
    user_data = json.dumps({"id": user_id} | more)
    auth = f"{APP.key}:{signatures.sign(APP.secret, signatures.user_text(ann.socket_id, user_data))}"
    await ann.send("pusher:signin", {"auth": auth, "user_data": user_data})
    return await ann.receive()


async def nothing_more(*clients: Client) -> None:
    """Assert that no message is pending: the next one is the answer to a ping."""
    for one in clients:
        await one.send("pusher:ping")
        assert (await one.receive())["event"] == "pusher:pong"


async def test_a_lone_surrogate_closes_no_connection(server):
    """``JSON.stringify`` escapes a lone surrogate. That is valid JSON and is relayed unchanged."""
    async with clients(server, 2) as (ann, bob):
        await join(ann, "ann", name="\ud83d")
        roster = json.loads((await join(bob, "bob", name="\ude00"))["data"])["presence"]["hash"]
        assert roster == {"ann": {"name": "\ufffd"}, "bob": {"name": "\ufffd"}}
        added = json.loads((await ann.receive())["data"])
        assert added == {"user_id": "bob", "user_info": {"name": "\ufffd"}}
        data = r'{"text":  "\ud83d", "\uDE00":"\\ud83d \ud83d\ude00"}'
        await ann.connection.send(f'{{"event":"client-x","channel":"{ROOM}","data":{data}}}')
        async with asyncio.timeout(WAIT):
            relayed = await bob.connection.recv()
        assert relayed == f'{{"event":"client-x","channel":"{ROOM}","data":{data},"user_id":"ann"}}'
        await nothing_more(ann, bob)


async def get(server, path: str, **params: str) -> tuple[int, Any]:
    return await call(server.port, signed(path, b"", method="GET", **params), method="GET")


@contextlib.asynccontextmanager
async def clients(server, count: int) -> AsyncIterator[list[Client]]:
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(client(server.port)) for _ in range(count)]


class TestPresence:
    async def test_members_see_each_other_join_and_leave(self, server):
        async with clients(server, 2) as (ann, bob):
            reply = await join(ann, "ann", name="Ann")
            assert reply["event"] == "pusher_internal:subscription_succeeded"
            assert json.loads(reply["data"])["presence"] == {
                "ids": ["ann"],
                "hash": {"ann": {"name": "Ann"}},
                "count": 1,
            }
            reply = await join(bob, 7)
            roster = json.loads(reply["data"])["presence"]
            assert (roster["count"], roster["hash"]) == (2, {"ann": {"name": "Ann"}, "7": None})
            assert set(roster["ids"]) == {"ann", 7}
            added = await ann.receive()
            assert added["event"] == "pusher_internal:member_added"
            assert json.loads(added["data"]) == {"user_id": 7}
            await bob.send("pusher:unsubscribe", {"channel": ROOM})
            removed = await ann.receive()
            assert removed["event"] == "pusher_internal:member_removed"
            assert json.loads(removed["data"]) == {"user_id": 7}
            await nothing_more(ann, bob)

    async def test_a_second_tab_of_a_user_is_the_same_member(self, server):
        async with clients(server, 3) as (ann, tab, bob):
            await join(bob, "bob")
            await join(ann, "ann")
            assert (await bob.receive())["event"] == "pusher_internal:member_added"
            reply = await join(tab, "ann", name="Other")
            assert json.loads(reply["data"])["presence"]["count"] == 2
            await ann.connection.close()
            await until(lambda: server.node.connections.by_app[APP.id] == 2)
            await nothing_more(bob)
            await tab.connection.close()
            assert (await bob.receive())["event"] == "pusher_internal:member_removed"

    async def test_subscribing_again_announces_no_member(self, server):
        async with clients(server, 2) as (ann, bob):
            await join(bob, "bob")
            await join(ann, "ann")
            await bob.receive()
            assert json.loads((await join(ann, "ann"))["data"])["presence"]["count"] == 2
            await nothing_more(bob)

    async def test_a_full_channel(self, valkey_url):
        app = App(id="1", key="app-key", secret="app-secret", max_presence_members=1)
        for redis in (Redis(), Redis(url=valkey_url)):
            async with (
                running(local_settings(app, redis=redis)) as server,
                clients(server, 3) as (ann, tab, bob),
            ):
                await join(ann, "ann")
                refused = await join(bob, "bob")
                assert refused["event"] == "pusher:subscription_error"
                assert (refused["data"]["type"], refused["data"]["status"]) == ("LimitReached", 4100)
                assert (await join(tab, "ann"))["event"] == "pusher_internal:subscription_succeeded"
                await ann.connection.close()
                await tab.connection.close()
                await until(lambda server=server: server.node.connections.by_app[APP.id] == 1)
                assert (await join(bob, "bob"))["event"] == "pusher_internal:subscription_succeeded"

    async def test_concurrent_joins_and_leaves_end_in_a_correct_member_list(self, server):
        async with clients(server, 2) as (ann, bob):
            await join(bob, "bob")
            channel_data = '{"user_id":"ann"}'
            auth = signatures.sign_channel(APP.key, APP.secret, ann.socket_id, ROOM, channel_data)
            for _ in range(10):
                await ann.send(
                    "pusher:subscribe", {"channel": ROOM, "auth": auth, "channel_data": channel_data}
                )
                await ann.send("pusher:unsubscribe", {"channel": ROOM})
            await ann.send("pusher:subscribe", {"channel": ROOM, "auth": auth, "channel_data": channel_data})
            await ann.send("pusher:ping")
            while (reply := await ann.receive())["event"] != "pusher:pong":
                assert json.loads(reply["data"])["presence"]["count"] == 2
            await server.node.registry.flush()
            _, answer = await get(server, f"/apps/1/channels/{ROOM}/users")
            assert {user["id"] for user in answer["users"]} == {"ann", "bob"}
            await post(server.port, EVENTS, {"name": "last", "data": "", "channel": ROOM})
            seen = []
            while (event := await bob.receive())["event"] != "last":
                seen.append(event["event"].removeprefix("pusher_internal:member_"))
            assert seen == ["added", "removed"] * (len(seen) // 2) + ["added"]


async def test_a_dismissed_client_first_gets_what_was_published_before(server):
    async with clients(server, 1) as (ann,):
        await ann.subscribe("news")
        (here,) = server.node.clients.open
        server.node.hub.deliver(Key("1", "news"), messages.channel_event("e", "news", "1"))
        here.check_at(server.node.context.now() + 1000)  # asks for a sign of life
        here.check_at(server.node.context.now() + 2000)
        assert [(await ann.receive())["event"] for _ in range(3)] == ["pusher:ping", "e", "pusher:error"]


class TestClientEvents:
    async def test_a_whisper_reaches_the_others_and_not_the_sender(self, server):
        async with clients(server, 2) as (ann, bob):
            await ann.subscribe("private-x")
            await bob.subscribe("private-x")
            await ann.send("client-typing", {"x": 1}, channel="private-x", user_id="forged", more=1)
            assert await bob.receive() == {"event": "client-typing", "channel": "private-x", "data": {"x": 1}}
            await nothing_more(ann)

    async def test_on_a_presence_channel_the_sender_is_named(self, server):
        async with clients(server, 2) as (ann, bob):
            await join(ann, 7)
            await join(bob, "bob")
            await ann.receive()
            await ann.send("client-typing", "text", channel=ROOM)
            event = await bob.receive()
            assert (event["data"], event["user_id"]) == ("text", "7")

    async def test_client_events_keep_their_order(self, server):
        async with clients(server, 2) as (ann, bob):
            await ann.subscribe("private-x")
            await bob.subscribe("private-x")
            for n in range(10):
                await ann.send("client-n", n, channel="private-x")
            assert [(await bob.receive())["data"] for _ in range(10)] == list(range(10))


class TestUsers:
    async def test_events_to_a_user_come_once_whether_subscribed_or_not(self, server):
        async with clients(server, 3) as (ann, tab, bob):
            assert (await sign_in(ann, "7"))["event"] == "pusher:signin_success"
            await sign_in(tab, "7")
            await sign_in(bob, "8")
            await ann.send("pusher:subscribe", {"channel": "#server-to-user-7", "auth": ""})
            assert (await ann.receive())["event"] == "pusher_internal:subscription_succeeded"
            event = {"name": "hello", "data": "{}", "channels": ["#server-to-user-7"]}
            assert await post(server.port, EVENTS, event) == (200, {})
            for one in (ann, tab):
                assert await one.receive() == {"event": "hello", "channel": "#server-to-user-7", "data": "{}"}
            await nothing_more(ann, tab, bob)
            assert (await get(server, "/apps/1/channels"))[1] == {"channels": {}}

    @pytest.mark.parametrize("alias", [False, True])
    async def test_connections_of_a_user_can_be_terminated(self, server, alias):
        async with clients(server, 3) as (ann, tab, bob):
            await sign_in(ann, "7")
            await sign_in(tab, "7")
            await sign_in(bob, "8")
            path = "/users/7/terminate_connections" if alias else "/apps/1/users/7/terminate_connections"
            assert await post(server.port, path, {}) == (200, {})
            for one in (ann, tab):
                assert (await one.receive())["data"]["code"] == 4009
                assert await one.closed() == 4009
            await nothing_more(bob)

    async def test_the_official_sdk_terminates(self, server):
        async with clients(server, 1) as (ann,):
            await sign_in(ann, "7")
            sdk = pusher.Pusher(APP.id, APP.key, APP.secret, host="127.0.0.1", port=server.port, ssl=False)
            assert await asyncio.to_thread(sdk.terminate_user_connections, "7") == {}
            assert await ann.closed() == 4009

    async def test_a_watchlist_reports_online_and_offline_users(self, server):
        async with clients(server, 3) as (ann, bob, tab):
            await sign_in(bob, "bob")
            await sign_in(ann, "ann", watchlist=["bob", "cyd"])
            told = await ann.receive()
            assert told["event"] == "pusher_internal:watchlist_events"
            assert json.loads(told["data"]) == {
                "events": [{"name": "online", "user_ids": ["bob"]}, {"name": "offline", "user_ids": ["cyd"]}]
            }
            await sign_in(tab, "bob")
            await tab.connection.close()
            await until(lambda: server.node.connections.by_app[APP.id] == 2)
            await ann.send("pusher:ping")
            online = {"events": [{"name": "online", "user_ids": ["bob"]}]}
            while (told := await ann.receive())["event"] != "pusher:pong":
                assert json.loads(told["data"]) == online  # may be told twice, never of a going that was none
            await bob.connection.close()
            assert json.loads((await ann.receive())["data"]) == {
                "events": [{"name": "offline", "user_ids": ["bob"]}]
            }
            async with client(server.port) as again:
                await sign_in(again, "bob")
                assert json.loads((await ann.receive())["data"]) == {
                    "events": [{"name": "online", "user_ids": ["bob"]}]
                }


class TestCacheChannels:
    async def test_the_last_event_is_replayed_to_each_new_subscriber(self, server):
        async with clients(server, 2) as (ann, bob):
            assert (await ann.subscribe("cache-x"))["event"] == "pusher_internal:subscription_succeeded"
            assert await ann.receive() == {"event": "pusher:cache_miss", "channel": "cache-x"}
            for n in range(2):
                body = {"name": f"e{n}", "data": str(n), "channel": "cache-x", "socket_id": ann.socket_id}
                assert (await post(server.port, EVENTS, body))[0] == 200
            await bob.subscribe("cache-x")
            assert await bob.receive() == {"event": "e1", "channel": "cache-x", "data": "1"}
            await nothing_more(ann, bob)
            status, answer = await get(server, "/apps/1/channels/cache-x", info="cache,subscription_count")
            assert (status, answer["occupied"], answer["subscription_count"]) == (200, True, 2)
            assert answer["cache"]["data"] == "1"
            assert 1700 < answer["cache"]["ttl"] <= 1800

    async def test_client_events_are_not_cached(self, server):
        async with clients(server, 3) as (ann, bob, cyd):
            for one in (ann, cyd):
                await one.subscribe("private-cache-x")
                await one.receive()
            await ann.send("client-x", {}, channel="private-cache-x")
            assert (await cyd.receive())["event"] == "client-x"
            await bob.subscribe("private-cache-x")
            assert (await bob.receive())["event"] == "pusher:cache_miss"


class TestCounts:
    APP = App(id="1", key="app-key", secret="app-secret", subscription_count=True)

    @pytest.fixture
    def settings(self, settings):
        return local_settings(self.APP, redis=settings.redis)

    async def counts(self, one: Client, *expected: int) -> None:
        for count in expected:
            event = await one.receive()
            assert event["event"] == "pusher_internal:subscription_count"
            assert json.loads(event["data"]) == {"subscription_count": count}

    async def test_every_subscriber_gets_the_count(self, server):
        async with clients(server, 2) as (ann, bob):
            await ann.subscribe("x")
            await self.counts(ann, 1)
            await bob.subscribe("x")
            await self.counts(ann, 2)
            await self.counts(bob, 2)
            await bob.send("pusher:unsubscribe", {"channel": "x"})
            await self.counts(ann, 1)

    async def test_presence_channels_have_no_subscription_count(self, server):
        async with clients(server, 1) as (ann,):
            await join(ann, "ann")
            await nothing_more(ann)

    async def test_large_channels_get_the_count_rarely_and_only_if_it_has_changed(self, server, monkeypatch):
        due = []
        monkeypatch.setattr(counts_module, "UNTHROTTLED_COUNT_SUBSCRIBERS", 1)
        monkeypatch.setattr(server.node.announcements._counts, "_later", lambda _, work: due.append(work))
        async with clients(server, 6) as people:
            ann, *others = people
            await ann.subscribe("x")
            await self.counts(ann, 1)
            for one in others:
                await one.subscribe("x")
            (tell,) = due  # one for all of them
            await tell()
            await self.counts(ann, 6)
            await ann.send("pusher:unsubscribe", {"channel": "x"})
            await ann.subscribe("x")
            await due.pop()()
            await nothing_more(ann)

    async def test_a_channel_that_shrinks_and_grows_again_gets_its_counts(self, server, monkeypatch):
        due = []
        monkeypatch.setattr(counts_module, "UNTHROTTLED_COUNT_SUBSCRIBERS", 1)
        monkeypatch.setattr(server.node.announcements._counts, "_later", lambda _, work: due.append(work))
        async with clients(server, 2) as (ann, bob):
            await ann.subscribe("x")
            await self.counts(ann, 1)
            for _ in range(2):
                await bob.subscribe("x")
                await due.pop()()
                await self.counts(ann, 2)
                await self.counts(bob, 2)
                await bob.send("pusher:unsubscribe", {"channel": "x"})
                await self.counts(ann, 1)


class TestQuestions:
    async def test_channels(self, server):
        async with clients(server, 2) as (ann, bob):
            for one in (ann, bob):
                await one.subscribe("news")
            await join(ann, "ann")
            await join(bob, "ann")
            assert await get(server, "/apps/1/channels") == (200, {"channels": {"news": {}, ROOM: {}}})
            assert await get(server, "/apps/1/channels", filter_by_prefix="presence-", info="user_count") == (
                200,
                {"channels": {ROOM: {"user_count": 1}}},
            )
            assert (await get(server, "/apps/1/channels", info="user_count"))[0] == 400
            assert await get(server, f"/apps/1/channels/{ROOM}", info="user_count,subscription_count") == (
                200,
                {"occupied": True, "user_count": 1, "subscription_count": 2},
            )
            assert await get(server, "/apps/1/channels/news/stats") == (200, {"occupied": True})
            assert await get(server, f"/apps/1/channels/{ROOM}/users") == (200, {"users": [{"id": "ann"}]})
            assert await get(server, "/apps/1/connections") == (200, {"connections": 2})
            event = {
                "name": "e",
                "data": "x",
                "channels": [ROOM, "news"],
                "info": "user_count,subscription_count",
            }
            assert await post(server.port, EVENTS, event) == (
                200,
                {
                    "channels": {
                        ROOM: {"user_count": 1, "subscription_count": 2},
                        "news": {"subscription_count": 2},
                    }
                },
            )

    async def test_queries_without_subscribers(self, server):
        assert await get(server, "/apps/1/channels") == (200, {"channels": {}})
        assert await get(server, "/apps/1/channels/x") == (200, {"occupied": False})
        assert await get(server, f"/apps/1/channels/{ROOM}/users") == (200, {"users": []})
        path = "/apps/1/channels/presence-a=b@c,d.e;f"
        assert await get(server, path, info="user_count") == (200, {"occupied": False, "user_count": 0})

    @pytest.mark.parametrize(
        ("path", "info"),
        [
            ("/apps/1/channels/x", "user_count"),
            ("/apps/1/channels/x", "cache"),
            ("/apps/1/channels/x/users", ""),
            ("/apps/1/channels/a b", ""),
        ],
    )
    async def test_invalid_queries_are_refused(self, path, info):
        async with running(local_settings()) as server:
            status, answer = await get(server, path.replace(" ", "%20"), info=info)
            assert (status, answer["code"]) == (400, 400)

    async def test_the_deprecated_publish_endpoint(self, server):
        async with clients(server, 1) as (ann,):
            await ann.subscribe("x")
            body = b'{"any":"text"}'
            status, answer = await call(
                server.port, signed("/apps/1/channels/x/events", body, name="e"), body
            )
            assert (status, answer) == (202, {})
            assert (await ann.receive())["data"] == '{"any":"text"}'
            for bad, name in ((b"\xff", "e"), (body, "")):
                path = signed("/apps/1/channels/x/events", bad, name=name)
                assert (await call(server.port, path, bad))[0] == 400


async def test_a_connection_that_authorises_in_time_stays_and_another_is_closed():
    app = App(id="1", key="app-key", secret="app-secret", authorized_seconds=1)
    async with running(local_settings(app)) as server, clients(server, 3) as (ann, bob, cyd):
        await ann.subscribe("private-x")
        await sign_in(bob, "bob")
        await cyd.subscribe("open")
        assert (await cyd.receive())["data"]["code"] == 4009
        assert await cyd.closed() == 4009
        await nothing_more(ann, bob)


async def test_two_nodes_are_one_server(valkey_url):
    redis = Redis(url=valkey_url)
    async with (
        running(local_settings(redis=redis)) as one,
        running(local_settings(redis=redis)) as two,
        client(one.port) as ann,
        client(two.port) as bob,
    ):
        await join(ann, "ann")
        assert json.loads((await join(bob, "bob"))["data"])["presence"]["count"] == 2
        assert (await ann.receive())["event"] == "pusher_internal:member_added"
        await ann.send("client-x", 1, channel=ROOM)
        assert (await bob.receive())["user_id"] == "ann"
        await sign_in(ann, "ann")
        assert await post(two.port, "/apps/1/users/ann/terminate_connections", {}) == (200, {})
        assert await ann.closed() == 4009
        assert (await bob.receive())["event"] == "pusher_internal:member_removed"


async def test_a_node_with_an_expired_lease_closes_its_connections(valkey_url):
    async with running(local_settings(redis=Redis(url=valkey_url))) as server, client(server.port) as ann:
        close_lapsed(server.node.clients, server.node.admission)
        assert (await ann.receive())["data"]["code"] == 4100
        assert await ann.closed() == 4100


async def test_the_answer_has_the_channel_name_of_the_request(server):
    async with client(server.port) as ann:
        assert await ann.subscribe("private-encrypted-x") == json.loads(
            messages.subscription_succeeded("private-encrypted-x")
        )
