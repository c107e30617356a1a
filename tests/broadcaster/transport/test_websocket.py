"""Connections to a running server, without and with Redis."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from typing import TYPE_CHECKING

import pytest
from websockets.asyncio.client import connect
from websockets.frames import Opcode

from legato.broadcaster.clients import command_queue as order
from legato.broadcaster.composition import running
from legato.broadcaster.config import Server
from legato.broadcaster.limits import READ_SLICE_MESSAGES
from legato.broadcaster.transport.frames import text_frame
from legato.protocol import messages, signatures
from legato.protocol.apps import App
from legato.protocol.wire import Envelope
from tests.broadcaster.conftest import APP, Client, client, dial, local_settings
from tests.tiers import amount
from tests.waiting import WAIT, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def publish(server, channel: str, data: str, except_socket_id: str | None = None) -> None:
    payload = messages.channel_event("e", channel, data)
    await server.node.bus.publish([((APP.id, channel), Envelope(payload, except_socket_id))])


async def test_a_client_gets_what_is_published_after_it_has_subscribed(server):
    async with client(server.port) as ann:
        assert (await ann.subscribe("private-x"))["event"] == "pusher_internal:subscription_succeeded"
        await publish(server, "private-x", '{"a":1}')
        assert await ann.receive() == {"event": "e", "channel": "private-x", "data": '{"a":1}'}


async def test_equal_channel_names_of_two_applications_are_separate():
    other = App(id="2", key="other-key", secret="other")
    async with running(local_settings(apps=(APP, other))) as server, client(server.port) as ann:
        await ann.subscribe("x")
        async with dial(server.port, "/app/other-key") as bob:
            await bob.receive()
            await bob.send("pusher:subscribe", {"channel": "x"})
            await bob.receive()
            await publish(server, "x", "1")
            await bob.send("pusher:ping")
            assert (await bob.receive())["event"] == "pusher:pong"
        assert (await ann.receive())["data"] == "1"


async def test_the_sender_can_be_excluded(server):
    async with client(server.port) as ann, client(server.port) as bob:
        await ann.subscribe("x")
        await bob.subscribe("x")
        await publish(server, "x", "1", except_socket_id=ann.socket_id)
        await publish(server, "x", "2")
        assert (await bob.receive())["data"] == "1"
        assert (await ann.receive())["data"] == "2"


async def test_subscribing_unsubscribing_and_subscribing_again_delivers_once(server):
    async with client(server.port) as ann:
        await ann.subscribe("x")
        for _ in range(3):
            await ann.send("pusher:unsubscribe", {"channel": "x"})
            assert (await ann.subscribe("x"))["event"] == "pusher_internal:subscription_succeeded"
        await publish(server, "x", "1")
        await publish(server, "x", "2")
        assert [(await ann.receive())["data"] for _ in range(2)] == ["1", "2"]


async def test_a_client_that_disconnects_leaves_nothing_behind(server):
    async with client(server.port) as ann:
        await ann.subscribe("x")
        assert server.node.connections.by_app[APP.id] == 1
    await until(lambda: server.node.connections.by_app[APP.id] == 0 and len(server.node.hub) == 0)


async def test_a_client_that_is_cut_off_leaves_nothing_behind(server):
    async with client(server.port) as ann:
        await ann.subscribe("x")
        ann.connection.transport.abort()
        await until(lambda: server.node.connections.by_app[APP.id] == 0 and len(server.node.hub) == 0)


REFUSED = [
    ("/app/nope?protocol=7", 4001),
    ("/app/?protocol=7", 4001),
    ("/app/app-key/x?protocol=7", 4001),
    ("/app/app-key?protocol=x", 4006),
    ("/app/app-key?protocol=8", 4007),
    ("/elsewhere", 4005),
    ("/app/off?protocol=7", 4003),
    ("/app/full?protocol=7", 4004),
    ("/app/%ff", 4001),
]


@pytest.mark.parametrize(("path", "code"), REFUSED)
async def test_a_refused_handshake_gets_the_error_and_the_same_close_code(path, code):
    apps = (
        APP,
        App(id="2", key="off", secret="s", enabled=False),
        App(id="3", key="full", secret="s", max_connections=1),
    )
    async with running(local_settings(apps=apps)) as server, dial(server.port, "/app/full"):
        async with dial(server.port, path) as refused:
            error = await refused.receive()
            assert (error["event"], error["data"]["code"]) == ("pusher:error", code)
            assert await refused.closed() == code
        assert server.node.connections.refused[code] == 1


async def test_a_foreign_origin_is_refused():
    app = App(id="1", key="app-key", secret="app-secret", allowed_origins=("example.com",))
    async with running(local_settings(app)) as server:
        async with dial(server.port, origin="https://example.com") as ann:
            assert (await ann.receive())["event"] == "pusher:connection_established"
        async with dial(server.port, origin="https://evil.test") as bob:
            assert (await bob.receive())["data"]["code"] == 4009


async def test_a_full_server_makes_clients_back_off():
    settings = local_settings(server=Server(port=0, max_connections=1, drain_seconds=0))
    async with running(settings) as server, client(server.port), dial(server.port) as bob:
        assert (await bob.receive())["data"]["code"] == 4100


async def test_a_path_prefix_is_part_of_every_address():
    settings = local_settings(server=Server(port=0, path="/ws", drain_seconds=0))
    async with running(settings) as server:
        async with dial(server.port, "/ws/app/app-key") as ann:
            assert (await ann.receive())["event"] == "pusher:connection_established"
        async with dial(server.port, "/app/app-key") as bob:
            assert (await bob.receive())["data"]["code"] == 4005


SUBPROTOCOLS = [
    (None, None),
    (["pusher-channels-protocol-7"], "pusher-channels-protocol-7"),
    (["chat", "pusher-channels-protocol-5", "pusher-channels-protocol-7"], "pusher-channels-protocol-5"),
    (["chat", "pusher-channels-protocol-8"], None),
]


@pytest.mark.parametrize(("offered", "selected"), SUBPROTOCOLS)
async def test_the_first_known_subprotocol_is_selected_and_none_is_required(offered, selected):
    async with running(local_settings()) as server, dial(server.port, subprotocols=offered) as ann:
        assert ann.connection.subprotocol == selected


async def test_socket_ids_are_two_numbers_and_all_different():
    async with running(local_settings()) as server, client(server.port) as ann, client(server.port) as bob:
        assert all(part.isdigit() for part in ann.socket_id.split("."))
        assert len(ann.socket_id.split(".")) == 2
        assert ann.socket_id != bob.socket_id


async def test_a_fragmented_message_is_one_message():
    async with running(local_settings()) as server, client(server.port) as ann:
        await ann.connection.send(['{"event":', '"pusher:', 'ping"}'])
        assert (await ann.receive())["event"] == "pusher:pong"


async def test_a_websocket_ping_is_answered():
    async with running(local_settings()) as server, client(server.port) as ann:
        await asyncio.wait_for(await ann.connection.ping(b"x"), WAIT)


async def test_binary_frames_are_closed_as_unsupported():
    async with running(local_settings()) as server, client(server.port) as ann:
        await ann.connection.send(b"x")
        assert await ann.closed() == 1003


async def test_a_message_over_the_limit_is_closed():
    async with running(local_settings()) as server, client(server.port) as ann:
        await ann.connection.send("x" * 70_000)
        assert await ann.closed() == 1009


async def test_a_broken_frame_closes_only_its_own_connection():
    async with running(local_settings()) as server, client(server.port) as ann, client(server.port) as bob:
        ann.connection.transport.write(b"\xff\xff\xff\xff")
        assert await ann.closed() == 1002
        await bob.send("pusher:ping")
        assert (await bob.receive())["event"] == "pusher:pong"
        await until(lambda: server.node.connections.by_app[APP.id] == 1)


async def test_bytes_that_are_no_handshake_are_harmless():
    async with running(local_settings()) as server:
        request = b"GET /app/app-key HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(request)
        status = await asyncio.wait_for(reader.readline(), WAIT)
        assert b" 400 " in status
        writer.close()
        await writer.wait_closed()


async def test_a_silent_client_is_pinged_and_one_that_answers_stays():
    app = App(id="1", key="app-key", secret="app-secret", activity_timeout=1, pong_timeout=1)
    async with running(local_settings(app)) as server, client(server.port) as ann:
        assert (await ann.receive())["event"] == "pusher:ping"
        await ann.send("pusher:pong", {})
        assert (await ann.receive())["event"] == "pusher:ping"
        assert (await ann.receive())["data"]["code"] == 4201
        assert await ann.closed() == 4201


async def test_draining_closes_with_a_code_that_makes_clients_reconnect():
    async with running(local_settings(server=Server(port=0, drain_seconds=0.2))) as server:
        async with client(server.port) as ann, client(server.port) as bob:
            await server.node.drain.run()
            for one in (ann, bob):
                assert (await one.receive())["data"]["code"] == 1012
                assert await one.closed() == 1012
        async with dial(server.port) as late:
            assert (await late.receive())["data"]["code"] == 4100


class Reader(asyncio.Protocol):
    """A client that does not parse frames, so that a thousand fit into one test."""

    def __init__(self, upgrade: bytes) -> None:
        self.upgrade = upgrade
        self.received = bytearray()

    def connection_made(self, transport) -> None:
        self.transport = transport
        transport.write(self.upgrade)

    def data_received(self, data: bytes) -> None:
        self.received += data


UPGRADE = (
    b"GET /app/app-key?protocol=7 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


def masked(text: bytes) -> bytes:
    """A client's frame; a mask of zeros leaves the text as it is."""
    assert len(text) < 126
    return bytes([0x80 | Opcode.TEXT, 0x80 | len(text)]) + bytes(4) + text


@pytest.mark.proof
async def test_many_subscribers_each_get_all_messages_in_order(server):
    """None is lost, repeated or out of order, though all are published back to back."""
    subscribers, count = amount(100, 1000), amount(200, 500)
    loop = asyncio.get_running_loop()
    readers = []
    for _ in range(subscribers):
        _, reader = await loop.create_connection(lambda: Reader(UPGRADE), "127.0.0.1", server.port)
        readers.append(reader)
    await until(lambda: server.node.connections.by_app[APP.id] == subscribers)
    subscribe = json.dumps({"event": "pusher:subscribe", "data": {"channel": "news"}}).encode()
    for reader in readers:
        reader.transport.write(masked(subscribe))
    reply = text_frame(messages.subscription_succeeded("news"))
    await until(lambda: all(reader.received.endswith(reply) for reader in readers), 60)
    for reader in readers:
        reader.received.clear()
    payloads = [messages.channel_event("e", "news", f'{{"n":{n}}}') for n in range(count)]
    for payload in payloads:
        await server.node.bus.publish([((APP.id, "news"), Envelope(payload))])
    expected = b"".join(text_frame(payload) for payload in payloads)
    await until(lambda: all(len(reader.received) >= len(expected) for reader in readers), 120)
    assert all(reader.received == expected for reader in readers)
    for reader in readers:
        reader.transport.abort()


async def test_a_client_that_does_not_read_is_closed_without_delaying_others():
    settings = local_settings(server=Server(port=0, drain_seconds=0, send_queue_bytes=200_000))
    async with running(settings) as server, client(server.port) as healthy:
        stalled = socket.create_connection(("127.0.0.1", server.port))
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stalled.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(stalled, UPGRADE)
        await until(lambda: server.node.connections.by_app[APP.id] == 2)
        subscribe = json.dumps({"event": "pusher:subscribe", "data": {"channel": "x"}}).encode()
        await loop.sock_sendall(stalled, masked(subscribe))
        await healthy.subscribe("x")
        key = (APP.id, "x")
        await until(lambda: server.node.hub.count(key) == 2)
        data = "y" * 9_000
        sent = 0
        while server.node.connections.slow_closed == 0:
            assert sent < 5_000, "the stalled reader was never closed"
            await publish(server, "x", data)
            assert (await healthy.receive())["data"] == data
            sent += 1
        assert server.node.hub.count(key) == 1
        stalled.close()
        await until(lambda: server.node.connections.slow == 0)
        assert server.node.connections.by_app[APP.id] == 1


async def test_a_slow_client_that_catches_up_gets_everything():
    settings = local_settings(server=Server(port=0, drain_seconds=0, send_queue_bytes=50_000_000))
    async with running(settings) as server:
        slow = socket.create_connection(("127.0.0.1", server.port))
        slow.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(slow, UPGRADE)
        await until(lambda: server.node.connections.by_app[APP.id] == 1)
        subscribe = json.dumps({"event": "pusher:subscribe", "data": {"channel": "x"}}).encode()
        await loop.sock_sendall(slow, masked(subscribe))
        await until(lambda: server.node.hub.count((APP.id, "x")) == 1)
        payloads = []
        while server.node.connections.slow == 0:
            data = f"{len(payloads)}:" + "y" * 9_000
            payloads.append(messages.channel_event("e", "x", data))
            await publish(server, "x", data)
            await asyncio.sleep(0)
        for _ in range(20):
            data = f"{len(payloads)}:" + "y" * 9_000
            payloads.append(messages.channel_event("e", "x", data))
            await publish(server, "x", data)
        expected = b"".join(text_frame(payload) for payload in payloads)
        received = b""
        async with asyncio.timeout(30):
            while not received.endswith(expected[-9_050:]):
                received += await loop.sock_recv(slow, 1_000_000)
        assert received.endswith(expected)
        await until(lambda: server.node.connections.slow == 0)
        slow.close()


async def test_a_pending_subscription_ends_with_its_connection(server):
    async with connect(f"ws://127.0.0.1:{server.port}/app/app-key") as connection:
        ann = Client(connection)
        await ann.receive()
        await ann.send("pusher:subscribe", {"channel": "x"})
    await until(lambda: len(server.node.hub) == 0)


async def test_a_signature_for_another_socket_does_not_open_a_channel(server):
    async with client(server.port) as ann, client(server.port) as bob:
        auth = signatures.sign_channel(APP.key, APP.secret, bob.socket_id, "private-x")
        await ann.send("pusher:subscribe", {"channel": "private-x", "auth": auth})
        assert (await ann.receive())["event"] == "pusher:subscription_error"


async def test_empty_fragments_cost_nothing(server):
    """They count towards no size limit, so they must not be buffered either."""
    async with client(server.port) as ann:
        start = bytes([Opcode.TEXT, 0x80]) + bytes(4)
        nothing = bytes([Opcode.CONT, 0x80]) + bytes(4)
        ann.connection.transport.write(start + nothing * 10_000)
        (connection,) = server.node.clients.open
        await until(lambda: connection._library and connection._library.within_message)
        await ann.connection.ping()  # behind all of them, but a message goes on: nobody answers yet
        await until(lambda: not connection._unread)
        assert len(connection._library.fragments) == 0


@contextlib.asynccontextmanager
async def asked_in_vain(server, monkeypatch) -> AsyncIterator[tuple[Client, list[tuple]]]:
    """A client whose subscription stays pending until the test releases it."""
    hub, asked = server.node.hub, []
    async with client(server.port) as ann:
        with monkeypatch.context() as patched:
            patched.setattr(hub, "subscribe", lambda *arguments: asked.append(arguments))
            await ann.send("pusher:subscribe", {"channel": "x"})
            await until(lambda: asked)
        yield ann, asked


async def test_messages_behind_a_pending_subscription_wait_in_order(monkeypatch):
    """However many there are: reading pauses while much waits, and the client stays."""
    async with running(local_settings()) as server, asked_in_vain(server, monkeypatch) as (ann, asked):
        (connection,) = server.node.clients.open
        for _ in range(2 * order.MAX_PENDING_COMMANDS):
            await ann.send("pusher:ping")
        await ann.send("pusher:nonsense")
        await until(lambda: connection.paused)
        assert len(connection.order._later) <= order.MAX_PENDING_COMMANDS + READ_SLICE_MESSAGES
        server.node.hub.subscribe(*asked[0])
        got = [(await ann.receive())["event"] for _ in range(2 * order.MAX_PENDING_COMMANDS + 2)]
        pongs = ["pusher:pong"] * (2 * order.MAX_PENDING_COMMANDS)
        assert got == ["pusher_internal:subscription_succeeded", *pongs, "pusher:error"]
        await until(lambda: not connection.paused)


async def test_messages_behind_a_pending_subscription_are_bounded(monkeypatch):
    settings = local_settings(server=Server(port=0, send_queue_bytes=20_000, drain_seconds=0))
    async with running(settings) as server, asked_in_vain(server, monkeypatch) as (ann, _):
        await ann.send("pusher:ping", "x" * 9_000)
        await ann.send("pusher:ping", "x" * 12_000)
        assert (await ann.receive())["data"]["code"] == 4100
        assert await ann.closed() == 4100
        await until(lambda: server.node.connections.by_app[APP.id] == 0)
