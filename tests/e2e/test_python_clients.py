"""Python clients from PyPI against `legato broadcaster`: the official server SDK, pysher, asyncpusher."""

from __future__ import annotations

import asyncio
import json
import queue
from typing import TYPE_CHECKING, Any

import asyncpusher
import pusher
import pysher
import pytest
from pusher.errors import PusherBadAuth, PusherBadRequest

from legato.protocol import signatures
from tests.broadcaster.conftest import client
from tests.e2e.server import legato_broadcaster
from tests.waiting import WAIT, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.server import Broadcaster

KEY, SECRET = "app-key", "app-secret"
ROOM, SECRET_ROOM = "presence-python", "private-python"


@pytest.fixture(scope="module")
def broadcaster(tmp_path_factory) -> Iterator[Broadcaster]:
    with legato_broadcaster(tmp_path_factory.mktemp("legato")) as running:
        yield running


def server_sdk(port: int, secret: str = SECRET) -> pusher.Pusher:
    return pusher.Pusher(app_id="1", key=KEY, secret=secret, host="127.0.0.1", port=port, ssl=False)


async def sign_in(ann: Any, user_id: str) -> None:
    auth = server_sdk(1).authenticate_user(ann.socket_id, {"id": user_id})
    assert json.loads(auth["user_data"]) == {"id": user_id}
    await ann.send("pusher:signin", auth)
    assert (await ann.receive())["event"] == "pusher:signin_success"


async def join(ann: Any, user_id: str) -> None:
    auth = server_sdk(1).authenticate(ROOM, ann.socket_id, {"user_id": user_id})
    await ann.send("pusher:subscribe", auth | {"channel": ROOM})
    assert (await ann.receive())["event"] == "pusher_internal:subscription_succeeded"


async def test_every_call_of_the_server_sdk(broadcaster):
    sdk = server_sdk(broadcaster.port)
    call = asyncio.to_thread
    async with client(broadcaster.port) as ann, client(broadcaster.port) as ben:
        await join(ann, "ann")
        await join(ben, "ben")
        assert (await ann.receive())["event"] == "pusher_internal:member_added"

        assert await call(sdk.trigger, [ROOM, "unheard"], "e", {"a": 1}, ben.socket_id) == {}
        assert await ann.receive() == {"event": "e", "channel": ROOM, "data": '{"a": 1}'}
        batch = [{"channel": ROOM, "name": f"e{n}", "data": "x"} for n in range(2)]
        assert await call(sdk.trigger_batch, batch) == {}
        for heard in (ann, ben):
            assert [(await heard.receive())["event"] for _ in batch] == ["e0", "e1"]

        info = await call(sdk.channels_info, "presence-", ["user_count"])
        assert info == {"channels": {ROOM: {"user_count": 2}}}
        assert await call(sdk.channels_info) == {"channels": {ROOM: {}}}
        info = await call(sdk.channel_info, ROOM, ["user_count", "subscription_count"])
        assert info == {"occupied": True, "user_count": 2, "subscription_count": 2}
        users = (await call(sdk.users_info, ROOM))["users"]
        assert sorted(user["id"] for user in users) == ["ann", "ben"]

        await sign_in(ann, "ann")
        assert await call(sdk.send_to_user, "ann", "hello", "you") == {}
        assert await ann.receive() == {"event": "hello", "channel": "#server-to-user-ann", "data": "you"}
        assert await call(sdk.terminate_user_connections, "ann") == {}
        assert (await ann.receive())["data"]["code"] == 4009
        assert await ann.closed() == 4009
        assert (await ben.receive())["event"] == "pusher_internal:member_removed"  # and nothing before


def test_the_server_sdk_understands_refusals(broadcaster):
    with pytest.raises(PusherBadAuth):
        server_sdk(broadcaster.port, "another-secret").trigger("a", "e", {})
    with pytest.raises(PusherBadRequest):
        server_sdk(broadcaster.port).users_info("not-presence")


def test_pysher_hears_a_private_channel(broadcaster):
    heard: queue.Queue[tuple[str, str]] = queue.Queue()
    listener = pysher.Pusher(KEY, secret=SECRET, secure=False, custom_host="127.0.0.1", port=broadcaster.port)

    def subscribe(_data: str) -> None:
        channel = listener.subscribe(SECRET_ROOM)
        for event in ("pusher_internal:subscription_succeeded", "e", "end"):
            channel.bind(event, lambda data, event=event: heard.put((event, data)))

    listener.connection.bind("pusher:connection_established", subscribe)
    listener.connect()
    try:
        assert heard.get(timeout=10) == ("pusher_internal:subscription_succeeded", "{}")
        sdk = server_sdk(broadcaster.port)
        sdk.trigger(SECRET_ROOM, "e", "text")
        sdk.trigger(SECRET_ROOM, "end", {})
        assert [heard.get(timeout=10) for _ in range(2)] == [("e", "text"), ("end", "{}")]
        assert heard.empty()
    finally:
        listener.disconnect(timeout=10)


async def test_asyncpusher_hears_a_private_channel(broadcaster):
    async def authorize(request: dict[str, str]) -> dict[str, str]:
        return {"auth": signatures.sign_channel(KEY, SECRET, request["socket_id"], request["channel_name"])}

    heard = []

    async def hear(data: Any, event: str) -> None:
        heard.append((event, data))

    listener = asyncpusher.Pusher(
        KEY,
        secure=False,
        custom_host="127.0.0.1",
        custom_port=broadcaster.port,
        channel_authenticator=authorize,
    )
    async with asyncio.timeout(WAIT):
        await listener.connect()
    try:
        channel = await listener.subscribe(SECRET_ROOM)
        for event in ("e", "end"):
            channel.bind(event, hear, event)
        await until(lambda: channel.state is asyncpusher.Channel.State.SUBSCRIBED)
        sdk = server_sdk(broadcaster.port)
        await asyncio.to_thread(sdk.trigger, SECRET_ROOM, "e", {"a": 1})
        await asyncio.to_thread(sdk.trigger, SECRET_ROOM, "end", {})
        await until(lambda: len(heard) >= 2)
        assert heard == [("e", {"a": 1}), ("end", {})]
    finally:
        await listener.disconnect()
