"""Floods over the HTTP fallback: a session is read in slices, and not while it does not receive."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from legato.broadcaster.composition import running
from legato.broadcaster.config import Server
from legato.broadcaster.limits import READ_SLICE_BYTES, READ_SLICE_MESSAGES
from legato.broadcaster.transport import polling_client as fallback_client
from legato.protocol import fallback
from tests.broadcaster.conftest import local_settings
from tests.broadcaster.transport.test_fallback import Session, read
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def session(monkeypatch) -> AsyncIterator[Session]:
    """A session that does not time out between two polls, however slow the machine is."""
    monkeypatch.setattr(fallback_client, "POLLING_GRACE_SECONDS", 600.0)
    async with running(local_settings()) as server:
        session = Session(server)
        await session.open()
        yield session


def pings(count: int) -> bytes:
    return json.dumps(count * ['{"event":"pusher:ping"}']).encode()


def waiting(client) -> int:
    """Bytes that wait for the next receive request; there is no queue before the first of them."""
    return client._backlog.size if client._backlog is not None else 0


async def test_many_messages_of_one_request_are_read_in_slices(session):
    """Other clients are served in between, and the request is answered when all are read."""
    node = session.node
    node.context.budget._seconds = 0.0
    (client,) = node.clients.open
    slices = []
    go_on = client.go_on
    counted = type(
        "Counted", (type(client),), {"__slots__": (), "go_on": lambda _: slices.append(0) or go_on()}
    )
    client.__class__ = counted
    assert await session.push(pings(100)) == 204
    assert len(slices) >= 100 // READ_SLICE_MESSAGES
    assert [message["event"] for message in await received(session, 100)] == 100 * ["pusher:pong"]


async def test_large_messages_end_a_slice_sooner(session, monkeypatch):
    monkeypatch.setattr(fallback_client, "READ_SLICE_BYTES", 1_000)
    (client,) = session.node.clients.open
    slices: list[int] = []
    go_on, receive = client.go_on, client.receive
    methods = {
        "go_on": lambda _: slices.append(0) or go_on(),
        "receive": lambda _, text: slices.append(slices.pop() + 1) or receive(text),
    }
    client.__class__ = type("Counted", (type(client),), {"__slots__": (), **methods})
    assert await session.push(json.dumps(20 * ['{"event":"' + "x" * 600 + '"}']).encode()) == 204
    assert (max(slices), sum(slices)) == (2, 20)


async def test_concurrent_large_bodies_are_parsed_one_per_turn(session, monkeypatch):
    """Parsing a body of a megabyte may take 50 ms."""
    turns: list[int] = []
    node = session.node
    node.context.budget._seconds = 0.0
    turn, parse = node.context.budget._turn, fallback.parse_send

    def counted() -> None:
        turns.append(0)
        turn()
        turns.append(-5)  # nothing is parsed outside

    def parsed(body: bytes, most: int) -> list[bytes]:
        if len(body) > READ_SLICE_BYTES:
            turns[-1] += 1
        return parse(body, most)

    monkeypatch.setattr(node.context.budget, "_turn", counted)
    monkeypatch.setattr(fallback, "parse_send", parsed)
    body = json.dumps(500 * ['{"event":"pusher:pong","data":"' + "x" * 200 + '"}']).encode()
    assert await asyncio.gather(*(session.push(body) for _ in range(5))) == 5 * [204]
    outside, inside = turns[1::2], turns[::2]
    assert (max(inside), sum(inside), max(outside)) == (1, 5, -5)


async def received(session: Session, count: int) -> list[dict[str, Any]]:
    return [await session.receive() for _ in range(count)]


async def test_a_session_that_does_not_receive_is_not_read(session, monkeypatch):
    """Its send requests wait, and their messages stay in order."""
    monkeypatch.setattr(fallback_client, "POLLING_HIGH_WATER_BYTES", 500)
    (client,) = session.node.clients.open
    pushes = [asyncio.create_task(session.push(body)) for body in (pings(20), pings(20))]
    await until(lambda: client.paused and len(client._unread) > 20)
    assert waiting(client) <= 500 + 60
    assert not any(push.done() for push in pushes)
    assert len(await received(session, 40)) == 40
    assert await asyncio.gather(*pushes) == [204, 204]
    await until(lambda: not client.paused)


async def test_requests_that_wait_are_answered_when_the_session_ends(session, monkeypatch):
    monkeypatch.setattr(fallback_client, "POLLING_HIGH_WATER_BYTES", 500)
    (client,) = session.node.clients.open
    push = asyncio.create_task(session.push(pings(200)))
    await until(lambda: client.paused and client._unread)
    before = waiting(client)
    client.abort()
    assert await push == 204
    assert (waiting(client), len(client._unread)) == (before, 0)
    assert not session.node.clients.open


async def test_messages_of_waiting_requests_are_bounded(monkeypatch):
    monkeypatch.setattr(fallback_client, "POLLING_HIGH_WATER_BYTES", 0)
    settings = local_settings(server=Server(port=0, drain_seconds=0, send_queue_bytes=20_000))
    async with running(settings) as server:
        session = Session(server)
        await session.open()
        (client,) = server.node.clients.open
        bodies = [pings(50) for _ in range(3)]
        assert await asyncio.gather(*map(session.push, bodies)) == 3 * [204]
        assert client.session is None
        frames = await session.poll()
        assert [message["data"]["code"] for message in read(frames[0])] == [4100]
        assert frames[1].startswith("c[4100,")


@pytest.mark.parametrize("bad", [b"\xff", b"\xc3", b"\xed\xa0\xbd"])
async def test_a_body_that_is_not_utf8_is_refused_whole(session, bad):
    assert await session.push(b'["{\\"event\\":\\"pusher:ping\\"}","' + bad + b'"]') == 400
    assert await session.push(pings(1)) == 204
    assert len(await received(session, 1)) == 1
