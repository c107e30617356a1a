"""Two nodes on one Redis: a request to one of them takes effect on both."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from legato.broadcaster.composition import running
from legato.protocol.settings import Redis
from tests.broadcaster.api.test_http_api import EVENTS, call, post, signed
from tests.broadcaster.channels.test_features import sign_in
from tests.broadcaster.conftest import APP, client, local_settings
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


FORGER = msgspec.structs.replace(APP, secret="another")


@pytest.fixture
async def nodes(valkey_url) -> AsyncIterator[list[Any]]:
    settings = local_settings(redis=Redis(url=valkey_url))
    async with running(settings) as one, running(settings) as other:
        yield [one, other]


async def test_the_socket_of_the_request_is_excluded_on_any_node(nodes):
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(client(node.port)) for node in (*nodes, *nodes)]
        for one in clients:
            await one.subscribe("a")
        for publisher in nodes:
            for asker in clients:
                event = {"name": "e", "data": "", "channel": "a"}
                left_out = event | {"data": "to others", "socket_id": asker.socket_id}
                assert await post(publisher.port, EVENTS, left_out) == (200, {})
                assert await post(publisher.port, EVENTS, event | {"data": "to all"}) == (200, {})
                for one in clients:
                    heard = ["to all"] if one is asker else ["to others", "to all"]
                    assert [(await one.receive())["data"] for _ in heard] == heard


async def test_client_events_are_not_sent_back(nodes):
    async with client(nodes[0].port) as ann, client(nodes[1].port) as bob:
        for one in (ann, bob):
            await one.subscribe("private-a")
        await ann.send("client-x", {"from": "ann"}, channel="private-a")
        assert (await bob.receive())["data"] == {"from": "ann"}
        await bob.send("client-x", {"from": "bob"}, channel="private-a")
        assert (await ann.receive())["data"] == {"from": "bob"}


@pytest.mark.parametrize(
    ("command", "code"), [("terminate_connections", 4009), ("reconnect_connections", 4200)]
)
async def test_the_connections_of_one_user_end_on_all_nodes(nodes, command, code):
    async with contextlib.AsyncExitStack() as stack:
        ann, too, bob = [
            await stack.enter_async_context(client(node.port)) for node in (nodes[0], nodes[1], nodes[1])
        ]
        await sign_in(ann, "ann")
        await sign_in(too, "ann")
        await sign_in(bob, "bob")
        assert await post(nodes[0].port, f"/apps/1/users/ann/{command}", {}) == (200, {})
        for one in (ann, too):
            error = await one.receive()
            assert (error["event"], error["data"]["code"]) == ("pusher:error", code)
            assert await one.closed() == code
        await bob.send("pusher:ping")
        assert (await bob.receive())["event"] == "pusher:pong"
        await until(
            lambda: nodes[0].node.connections.by_app["1"] + nodes[1].node.connections.by_app["1"] == 1
        )


async def test_reconnecting_a_user_requires_the_applications_signature(nodes):
    async with client(nodes[0].port) as ann:
        await sign_in(ann, "ann")
        path = "/apps/1/users/ann/reconnect_connections"
        assert (await call(nodes[1].port, signed(path, b"{}", FORGER), b"{}"))[0] == 401
        assert await post(nodes[1].port, "/apps/1/users/nobody/reconnect_connections", {}) == (200, {})
        await ann.send("pusher:ping")
        assert (await ann.receive())["event"] == "pusher:pong"
