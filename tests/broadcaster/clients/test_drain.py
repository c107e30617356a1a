"""The drain of a node: no message is lost, and a client that moves causes no departure."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import json
import os
import signal
import socket
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import msgspec
import pytest

from legato.broadcaster.channels.subscriber import Key
from legato.broadcaster.clients.drain import Drain
from legato.broadcaster.clients.peers import Peers
from legato.broadcaster.composition import running
from legato.broadcaster.config import Server
from legato.broadcaster.lifecycle import close_lapsed
from legato.broadcaster.limits import DRAIN_PEER_CHECK_SECONDS, PEER_RECHECK_SECONDS
from legato.broadcaster.registry import lease as leases
from legato.broadcaster.transport.listener import stop_listening
from legato.protocol import errors
from legato.protocol.apps import Webhook
from legato.protocol.settings import Redis
from legato.protocol.wire import TERMINATE, Envelope
from tests.broadcaster.api.test_http_api import EVENTS, post
from tests.broadcaster.conftest import APP, client, local_settings
from tests.broadcaster.webhooks.test_webhooks_node import join
from tests.broadcaster.webhooks.webhook_receiver import Receiver
from tests.conftest import BINARIES
from tests.redis_servers import RedisServer
from tests.waiting import WAIT, until

DOCS = Path(__file__).parents[3] / "docs/cluster.md"


def settings_for(url: str, app=APP, **server):
    values = {"port": 0, "drain_seconds": 0, "lease_seconds": 0.6} | server
    return local_settings(app, redis=Redis(url=url), server=Server(**values))


async def goodbye(one) -> int:
    """The code of the error event, which is also that of the close frame. Skips other messages."""
    while (message := await one.receive())["event"] != "pusher:error":
        pass
    assert await one.closed() == message["data"]["code"]
    return message["data"]["code"]


async def test_clients_reconnect_at_once_if_another_node_accepts_them(valkey_url):
    settings = settings_for(valkey_url)
    async with running(settings) as one, running(settings) as two:
        async with client(one.port) as ann:
            await one.node.drain.run()
            assert await goodbye(ann) == 4200
        async with client(two.port) as bob:  # now two is alone: one is leaving
            await two.node.drain.run()
            assert await goodbye(bob) == 1012


async def test_a_full_node_counts_as_no_other_node(valkey_url):
    async with (
        running(settings_for(valkey_url)) as one,
        running(settings_for(valkey_url, max_connections=1)) as two,
        client(one.port) as ann,
        client(two.port),
    ):
        await two.node.registry.peers()  # tells the others what it is, as each renewal does
        assert leases.FULL in (await one.node.registry._others.states()).values()
        await one.node.drain.run()
        assert await goodbye(ann) == 1012


async def received(one) -> list[int]:
    """The numbers of the events until the connection ends."""
    numbers = []
    while (message := await one.receive())["event"] != "pusher:error":
        numbers.append(int(message["data"]))
    return numbers


@pytest.mark.parametrize("end", ["drain", "terminate", "lapse", "remove"])
async def test_a_fan_out_in_progress_reaches_closing_clients(end):
    async with running(local_settings()) as server, contextlib.AsyncExitStack() as stack:
        node, key = server.node, Key(APP.id, "a")
        people = [await stack.enter_async_context(client(server.port)) for _ in range(4)]
        for person in people:
            await person.subscribe("a")
        # Each flush writes to one, and none comes by itself.
        with mock.patch.multiple(node.fanout, _chunk=1, _clock=itertools.count().__next__, _call_soon=id):
            for number in range(3):
                node.hub.deliver(key, json.dumps({"event": "e", "data": number}).encode())
                if number == 0:
                    node.fanout.flush()
            assert node.fanout.writes == 1
            if end == "drain":
                await node.drain.run()
            elif end == "terminate":
                node.delivery.deliver(key, Envelope(b"", command=TERMINATE))
            elif end == "lapse":
                close_lapsed(node.clients, node.admission)
            else:
                await node.app_changes.apply(())
        assert [await received(person) for person in people] == [[0, 1, 2]] * 4


async def test_every_message_accepted_during_a_subscription_arrives(valkey_url):
    """The bus is late by as much as a network may make it: what was accepted is on its way for long.

    Whether the client was subscribed when an event was accepted is what its publisher is told.
    """
    settings = settings_for(valkey_url, drain_seconds=1)
    async with running(settings) as one, running(settings) as two, contextlib.AsyncExitStack() as stack:
        bus, loop = one.node.bus._feeds, asyncio.get_running_loop()
        for name in ("heard", "confirmed"):
            setattr(bus, name, functools.partial(loop.call_later, 0.1, getattr(bus, name)))
        people = {f"private-{n}": await stack.enter_async_context(client(one.port)) for n in range(10)}
        for channel, person in people.items():
            await person.subscribe(channel)
        accepted = {channel: [] for channel in people}

        async def publish(channel: str) -> None:
            """Publish until no subscriber is left."""
            for number in range(100_000):
                event = {"name": "e", "data": str(number), "channel": channel, "info": "subscription_count"}
                status, said = await post(two.port, EVENTS, event)
                assert status == 200
                if not said["channels"][channel]["subscription_count"]:
                    return
                accepted[channel].append(number)

        listening = [asyncio.ensure_future(received(person)) for person in people.values()]
        publishing = [asyncio.ensure_future(publish(channel)) for channel in people]
        await until(lambda: all(accepted.values()))
        await one.node.drain.run()
        await asyncio.gather(*publishing)
        for channel, numbers in zip(people, await asyncio.gather(*listening), strict=True):
            assert numbers[: len(accepted[channel])] == accepted[channel]
            assert numbers == list(range(len(numbers)))


async def test_queued_frames_of_a_slow_client_precede_the_close_frame():
    async with running(local_settings()) as server, client(server.port) as ann:
        await ann.subscribe("a")
        (connection,) = server.node.clients.open
        connection.pause_writing()
        for number in range(3):
            await post(server.port, EVENTS, {"name": "e", "data": str(number), "channel": "a"})
        await until(lambda: len(connection._backlog) == 3)
        await server.node.drain.run()
        assert await received(ann) == [0, 1, 2]
        connection.resume_writing()  # or the end waits for it


async def test_the_drain_ends_without_redis(valkey_url, monkeypatch):
    monkeypatch.setattr("legato.broadcaster.clients.drain.DRAIN_PATIENCE_SECONDS", 0.2)
    async with running(settings_for(valkey_url)) as server, client(server.port) as ann:
        await ann.subscribe("private-a")

        async def away(*_batch, **_again):
            raise ConnectionError

        monkeypatch.setattr(server.node.registry._changes.batches, "send", away)
        await server.node.drain.run()
        assert await goodbye(ann) in (1012, 4200)
        assert server.node.peers._seconds == PEER_RECHECK_SECONDS  # it has had its time
        monkeypatch.undo()


def counted(node, monkeypatch, *, hangs: bool = False) -> list[str]:
    """The outcome of each query for other nodes: first ``asked``, then the result."""
    peers, became = node.registry.peers, []

    async def ask():
        became.append("asked")
        try:
            found = await (asyncio.Event().wait() if hangs else peers())
            became[-1] = "answered"
        except asyncio.CancelledError:
            became[-1] = "given up"
            raise
        return found

    monkeypatch.setattr(node.registry, "peers", ask)
    return became


async def test_a_redis_that_hangs_is_waited_for_once(monkeypatch):
    monkeypatch.setattr("legato.broadcaster.clients.peers.PEER_CHECK_SECONDS", 0.3)
    monkeypatch.setattr("legato.broadcaster.clients.drain.DRAIN_PEER_CHECK_SECONDS", 0)
    with RedisServer(BINARIES["valkey"]) as redis:
        settings = settings_for(redis.url, drain_seconds=0.5, lease_seconds=600)
        async with running(settings) as server, contextlib.AsyncExitStack() as stack:
            people = [await stack.enter_async_context(client(server.port)) for _ in range(10)]
            for number, person in enumerate(people):
                await person.subscribe(f"private-{number}")
            became = counted(server.node, monkeypatch)
            patience = mock.Mock(wraps=server.node.drain._handover.prepare)
            monkeypatch.setattr(server.node.drain._handover, "prepare", patience)
            os.kill(redis.pid, signal.SIGSTOP)
            server.uvicorn._stop()
            assert [await goodbye(person) for person in people] == [1012] * 10
            await server.ended
        os.kill(redis.pid, signal.SIGCONT)
    assert became == ["given up"]
    assert patience.mock_calls == []


async def test_a_second_signal_ends_all_waiting_for_redis(valkey_url, monkeypatch):
    monkeypatch.setattr("legato.broadcaster.clients.peers.PEER_CHECK_SECONDS", 2 * WAIT)
    async with running(settings_for(valkey_url)) as server:
        became = counted(server.node, monkeypatch, hangs=True)
        server.uvicorn._stop()
        await until(lambda: became)
        assert became == ["asked"]
        server.uvicorn._stop()
        await until(lambda: became == ["given up"])
    assert became == ["given up"]


async def test_an_answer_is_valid_from_its_arrival():
    """However long it took."""
    time, asked = 0.0, 0

    async def ask() -> bool:
        nonlocal time, asked
        time, asked = time + 3, asked + 1
        return asked > 1

    drain = Drain(mock.Mock(), mock.Mock(), mock.Mock(), SimpleNamespace(ask=ask), 0, lambda: time)
    assert [await drain._why() for _ in range(2)] == [errors.DRAINING] * 2
    time += DRAIN_PEER_CHECK_SECONDS
    assert await drain._why() == errors.GO_ELSEWHERE


@pytest.mark.parametrize(("answers", "before"), [(True, True), (False, False), (None, True)])
async def test_a_hurried_stop_uses_the_last_answer_or_leaves_departures_to_others(answers, before):
    peers = Peers(SimpleNamespace(peers=mock.AsyncMock(return_value=answers)))
    if answers is not None:
        assert await peers.ask() is answers
    peers.hurried = True
    calls = peers._registry.peers.call_count
    assert await peers.ask() is before
    assert peers._registry.peers.call_count == calls


async def answer(port: int, path: str, reader_writer=None) -> tuple[str, str]:
    """Head and body of the answer to one request, on a new or a kept connection."""
    reader, writer = reader_writer or await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    async with asyncio.timeout(WAIT):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length: ")[2].split("\r\n")[0])
        body = (await reader.readexactly(length)).decode()
    if reader_writer is None:
        writer.close()
    return head, body


async def test_readiness_fails_first_and_keep_alive_connections_are_closed():
    settings = local_settings(server=Server(port=0, drain_seconds=0, notice_seconds=600))
    async with running(settings) as server:
        kept = await asyncio.open_connection("127.0.0.1", server.port)
        assert "200 ok" in (await answer(server.port, "/up?ready", kept))[0]
        server.uvicorn._stop()
        await until(lambda: server.node.clients.leaving)
        head, body = await answer(server.port, "/up?ready", kept)
        assert head.startswith("http/1.1 503 ")
        assert "connection: close" in head
        assert json.dumps(msgspec.json.decode(body)) == '{"health": "not ready", "reason": "draining"}'
        assert f"503 with `{json.dumps(msgspec.json.decode(body))}`" in DOCS.read_text()
        assert await kept[0].read() == b""
        assert "200 ok" in (await answer(server.port, "/up"))[0]  # it lives, and still takes everybody
        async with client(server.port) as ann:
            server.uvicorn._stop()
            await ann.closed()
        await server.ended
        kept[1].close()


async def test_a_connection_made_before_the_listener_closes_is_served():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        people = [socket.create_connection(("127.0.0.1", port)) for _ in range(3)]
        accepted = stop_listening([listener])
        assert len(accepted) == 3
        with contextlib.suppress(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port)).close()
            raise AssertionError("it still listens")
        for one in (*accepted, *people):
            one.close()


async def test_an_accepted_connection_is_answered():
    async with running(local_settings()) as server:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            reader_writer = await asyncio.open_connection("127.0.0.1", listener.getsockname()[1])
            (accepted,) = stop_listening([listener])
            await server.uvicorn._take(accepted)
            assert "200 ok" in (await answer(0, "/up", reader_writer))[0]
            reader_writer[1].close()


async def test_held_back_departures_go_to_another_node(valkey_url):
    """A client that moves was never away. One that does not return is announced as gone once."""
    receiver = Receiver()
    async with receiver.listening():
        app = msgspec.structs.replace(APP, webhooks=(Webhook(url=receiver.url),))
        settings = settings_for(valkey_url, app)
        async with running(settings) as two:
            async with running(settings) as one, client(one.port) as ann, client(one.port) as bob:
                await join(ann, "ann")
                await join(bob, "bob")
                await until(lambda: receiver.names.count("member_added") == 2)
            async with client(two.port) as back:
                await join(back, "ann")
                await until(lambda: "member_removed" in receiver.names)
                await back.send("client-x", 1, channel="presence-room")
                await until(lambda: "client_event" in receiver.names)
    assert receiver.names[:5] == [
        "channel_occupied",
        "member_added",
        "member_added",
        "member_removed",
        "client_event",
    ]
    assert receiver.events[3]["user_id"] == "bob"
    assert receiver.names[5:] == ["member_removed", "channel_vacated"]  # when the last node stops


async def test_client_events_are_published_before_the_stop(valkey_url, monkeypatch):
    settings = settings_for(valkey_url)
    async with running(settings) as two, client(two.port) as bob:
        async with running(settings) as one, client(one.port) as ann:
            for person in (ann, bob):
                await person.subscribe("private-a")
            publish = one.node.bus.publish

            async def slowly(messages):
                await asyncio.sleep(0.3)
                await publish(messages)

            monkeypatch.setattr(one.node.bus, "publish", slowly)
            await ann.send("client-x", 1, channel="private-a")
            await until(lambda: one.node.client_events.relayed)
        assert (await bob.receive())["event"] == "client-x"
