"""Two installations with the same applications on one Redis: nothing of one comes to the other.

They are apart by the number of their database, or by their prefix.
"""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import jwt
import msgspec
import pytest
from redis.asyncio import Redis as AnyRedis

from legato.broadcaster.composition import running
from legato.broadcaster.config import Auth, Server
from legato.broadcaster.redis_client import redis_client
from legato.protocol import stream
from legato.protocol.apps import Webhook
from legato.protocol.jobs import decode_job
from legato.protocol.settings import Redis
from legato.worker.jobs.cancel import CancelFlags
from legato.worker.replies.log import Token, TokenLog
from tests.broadcaster.api.test_http_api import EVENTS, call, post
from tests.broadcaster.channels.test_features import get, nothing_more, sign_in
from tests.broadcaster.conftest import APP, client, local_settings
from tests.broadcaster.registry.test_connection_counts import told
from tests.broadcaster.webhooks.test_webhooks_node import join
from tests.broadcaster.webhooks.webhook_receiver import Receiver
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SECRET = "a secret of more than thirty-two bytes"
CHAT = "private-ai-chat.7"

PAIRS = {
    "databases": (("", 0), ("", 3)),
    "prefixes": (("shop:", 0), ("", 0)),
    "prefixes of a database": (("a", 2), ("ab", 2)),
    "both": (("a", 2), ("a", 3)),
}


class Installation:
    """A running server, its Redis, and the receiver of its webhooks."""

    def __init__(self, server: Any, redis: Redis, receiver: Receiver) -> None:
        self.server, self.redis, self.receiver = server, redis, receiver
        self.port = server.port

    @contextlib.asynccontextmanager
    async def worker(self) -> AsyncIterator[Any]:
        """A Redis client as a worker has it."""
        async with redis_client(self.redis.url, self.redis.prefix) as connected:
            yield connected


@pytest.fixture(params=PAIRS)
async def pair(request, valkey_url) -> AsyncIterator[list[Installation]]:
    async with contextlib.AsyncExitStack() as stack:
        started = []
        for prefix, database in PAIRS[request.param]:
            receiver = Receiver()
            await stack.enter_async_context(receiver.listening())
            redis = Redis(url=f"{valkey_url}?db={database}", prefix=prefix)
            app = msgspec.structs.replace(APP, webhooks=(Webhook(url=receiver.url),), max_connections=3)
            settings = local_settings(
                app,
                redis=redis,
                auth=Auth(jwt_secret=SECRET),
                server=Server(port=0, drain_seconds=0, lease_seconds=5),
            )
            server = await stack.enter_async_context(running(settings))
            started.append(Installation(server, redis, receiver))
        yield started


async def test_events_presence_and_counts(pair):
    one, other = pair
    async with client(one.port) as ann, client(other.port) as bob:
        for connected in (ann, bob):
            await connected.subscribe("private-a")
        await join(ann, "ann")
        await join(bob, "bob")
        await post(one.port, EVENTS, {"name": "e", "data": "of one", "channel": "private-a"})
        await ann.send("client-x", {"of": "one"}, channel="private-a")
        assert (await ann.receive())["data"] == "of one"
        await nothing_more(ann, bob)
        for place, user in ((one, "ann"), (other, "bob")):
            path = "/apps/1/channels/presence-room"
            assert (await get(place.server, f"{path}/users"))[1] == {"users": [{"id": user}]}
            assert (await get(place.server, path, info="user_count"))[1]["user_count"] == 1
            await told(place.server.node.registry, 1)
            assert not await place.server.node.registry.peers()
        await post(one.port, EVENTS, {"name": "e", "data": "x", "channel": "cache-a"})
        assert (await get(one.server, "/apps/1/channels/cache-a", info="cache"))[1]["cache"]["data"] == "x"
        assert (await get(other.server, "/apps/1/channels/cache-a", info="cache"))[1]["cache"] is None
    names = ["channel_occupied", "channel_occupied", "member_added", "client_event"]
    await until(lambda: len(one.receiver.events) >= 4 and len(other.receiver.events) >= 3)
    assert sorted(one.receiver.names[:4]) == sorted(names)
    assert "client_event" not in other.receiver.names
    users = [event["user_id"] for event in other.receiver.events if event["name"] == "member_added"]
    assert users == ["bob"]


async def test_terminations_and_quotas(pair):
    one, other = pair
    async with client(one.port) as ann, client(other.port) as namesake, contextlib.AsyncExitStack() as stack:
        for connected in (ann, namesake):
            await sign_in(connected, "ann")
        assert await post(one.port, "/apps/1/users/ann/terminate_connections", {}) == (200, {})
        assert (await ann.receive())["event"] == "pusher:error"
        assert await ann.closed() == 4009
        await nothing_more(namesake)
        for _ in range(2):
            await stack.enter_async_context(client(other.port))
        await until(lambda: other.server.node.connections.by_app["1"] == 3)
        for _ in range(3):  # the quota of one is free
            await stack.enter_async_context(client(one.port))


async def test_tokens_and_cancels(pair):
    one, other = pair
    headers = {"Authorization": "Bearer " + jwt.encode({"sub": 7, "exp": 2**32}, SECRET)}
    body = json.dumps({"message": "Hello", "history": []}).encode()
    async with client(one.port) as ann, client(other.port) as bob, one.worker() as redis:
        for connected in (ann, bob):
            await connected.subscribe(CHAT)
        status, answer = await call(one.port, "/api/chat/send", body, headers=headers)
        assert status == 200
        message_id = answer["message_id"]
        ((_, fields),) = await redis.xrange(redis.names.jobs_key("ai-streaming"))
        job = decode_job(fields[b"job"])
        assert job.message_id == message_id
        log = TokenLog(redis, tries=1, retention=60).open(job, "claim")
        await log.claim()
        frame = stream.TokenReceived(7, message_id, "Hi", 0).frame(CHAT)
        assert not await log.append([Token(0, "Hi", frame)])
        assert json.loads((await ann.receive())["data"])["token"] == "Hi"
        await nothing_more(ann, bob)
        path = f"/api/chat/{message_id}"
        assert (await call(one.port, path, method="GET", headers=headers))[1]["text"] == "Hi"
        assert (await call(other.port, path, method="GET", headers=headers))[0] == 404
        async with other.worker() as stranger:
            assert not await stranger.exists(stranger.names.jobs_key("ai-streaming"))
            await stranger.set(stranger.names.cancel_flags(message_id)[1], "1", ex=300)
            assert await CancelFlags(stranger).is_set(message_id)
        assert not await CancelFlags(redis).is_set(message_id)
        assert (await call(other.port, f"{path}/cancel", headers=headers))[0] == 404
        assert (await call(one.port, f"{path}/cancel", headers=headers))[0] < 300
        assert await CancelFlags(redis).is_set(message_id)


async def test_everything_has_its_prefix(valkey_url):
    """Checks the keys that exist at the end, and the channels that Redis delivers."""
    settings = local_settings(
        redis=Redis(url=f"{valkey_url}?db=1", prefix="shop:"), auth=Auth(jwt_secret=SECRET)
    )
    async with (
        running(settings) as server,
        client(server.port) as ann,
        AnyRedis.from_url(f"{valkey_url}?db=1") as admin,
    ):
        await ann.subscribe("private-a")
        await join(ann, "ann")
        headers = {
            "Authorization": "Bearer " + jwt.encode({"sub": 7, "exp": 2**32}, SECRET),
            "Idempotency-Key": "k",
        }
        body = json.dumps({"message": "Hello", "history": []}).encode()
        assert (await call(server.port, "/api/chat/send", body, headers=headers))[0] == 200
        await post(server.port, EVENTS, {"name": "e", "data": "x", "channel": "cache-a"})
        await told(server.node.registry, 1)
        keys = await admin.keys("*")
        assert len(keys) >= 10
        assert all(key.startswith(b"shop:legato:") for key in keys), keys
        channels = await admin.execute_command("PUBSUB", "SHARDCHANNELS")
        assert len(channels) == 2
        assert all(channel.startswith(b"shop:legato:bus:1:{1:") for channel in channels), channels
