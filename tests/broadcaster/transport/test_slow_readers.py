"""Clients that read a reply more slowly than it is written: with merged tokens, if they ask for them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from typing import TYPE_CHECKING, Any

import pytest
import uvloop
from websockets.exceptions import ConnectionClosed

from legato.broadcaster.composition import running
from legato.broadcaster.config import Server
from legato.broadcaster.limits import WRITE_HIGH_WATER_BYTES
from legato.broadcaster.transport.send_queue import MergingSendQueue
from legato.protocol import errors, messages, stream
from legato.protocol.merging import MERGED_BYTES, WATERMARK_BYTES
from legato.protocol.wire import Envelope
from tests.broadcaster.conftest import APP, Client, client, local_settings
from tests.broadcaster.test_fan_out_cost import instructions
from tests.broadcaster.transport.test_fallback import Session
from tests.waiting import WAIT, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from legato.broadcaster.composition import Running
    from legato.broadcaster.transport.websocket import Connection

CHANNEL = "private-ai-chat.7"
PER_QUEUED_WRITE = 52
"""Measured with Python 3.11: 48. Before there were merged tokens: 42."""


def word(index: int, message: str = "m") -> str:
    return f"{message}{index} "


class Writer:
    """Publishes replies as a worker does."""

    def __init__(self, server: Running) -> None:
        self.server = server
        self.next: dict[str, int] = {}

    async def says(self, count: int, message: str = "m", size: int = 0) -> None:
        for _ in range(count):
            index = self.next.setdefault(message, 0)
            self.next[message] += 1
            text = word(index, message).ljust(size)
            event = stream.TokenReceived(7, message, text, index)
            await self.publish(event.frame(CHANNEL), (message, index))

    async def ends(self, message: str = "m") -> None:
        count = self.next.get(message, 0)
        await self.publish(stream.Completed(7, message, count).frame(CHANNEL), (message, count))

    async def publish(self, payload: bytes, place: tuple[str, int] | None = None) -> None:
        await self.server.node.bus.publish([((APP.id, CHANNEL), Envelope(payload, None, place))])


@contextlib.asynccontextmanager
async def slow(server: Running, *, merging: str | None) -> AsyncIterator[tuple[Client, Connection]]:
    """A client that reads nothing unless the test receives, with small buffers on the way.

    :param merging: how it asks for merged tokens: by a ``field``, a ``message``, or not.
    """
    ours = socket.socket()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    ours.connect(("127.0.0.1", server.port))
    before = set(server.node.clients.open)
    async with client(server.port, sock=ours, max_queue=1) as reader:
        connection: Any
        (connection,) = set(server.node.clients.open) - before
        with socket.socket(fileno=os.dup(connection._transport.get_extra_info("socket").fileno())) as theirs:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        await reader.subscribe(CHANNEL, **({"merge_tokens": True} if merging == "field" else {}))
        if merging == "message":
            await reader.send("legato:merge_tokens", {}, channel=CHANNEL)
            await until(lambda: connection.session.merging)
        yield reader, connection


async def became_slow_by(writing: Callable[[], Awaitable[None]], connection: Connection) -> None:
    """Write until the client is past the watermark."""
    for _ in range(2_000):
        await writing()
        await asyncio.sleep(0)
        if connection._backlog is not None and (
            isinstance(connection._backlog, MergingSendQueue) or connection._backlog.size > WATERMARK_BYTES
        ):
            return
    raise AssertionError("the client is not slow")


async def became_slow(writer: Writer, connection: Connection) -> None:
    await became_slow_by(lambda: writer.says(10), connection)


async def frames_of(
    reader: Client | Session, until_: Callable[[dict[str, Any]], bool]
) -> list[dict[str, Any]]:
    """The data of the events, each with the event's name, up to the first for which ``until_`` is true."""
    found = []
    while not found or not until_(found[-1]):
        message = await reader.receive()
        found.append({"event": message["event"], **json.loads(message["data"])})
    return found


async def read_on(reader: Client) -> None:
    """Read to the end of the connection."""
    async with asyncio.timeout(WAIT):
        with contextlib.suppress(ConnectionClosed):
            while True:
                await reader.connection.recv()


def ended(message: str) -> Callable[[dict[str, Any]], bool]:
    return lambda frame: (frame["event"], frame["messageId"]) == ("stream.completed", message)


def checked(frames: list[dict[str, Any]], message: str = "m") -> tuple[int, int]:
    """Check that the frames are a reply, each token once and in order. Returns its tokens and its frames."""
    tokens = [one for one in frames if (one["event"], one["messageId"]) == ("token.received", message)]
    index = 0
    for one in tokens:
        count = one.get("tokenCount", 1)
        assert one["tokenIndex"] == index
        assert one["token"].split() == [word(index + more, message).strip() for more in range(count)]
        index += count
    return index, len(tokens)


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("asked", ["field", "message"])
def test_a_slow_tab_gets_merged_tokens_and_a_fast_one_single_tokens(run, asked):
    run(beside_a_fast_tab(asked))


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_tokens_do_not_wait_where_they_cannot_be_merged(run):
    run(behind_the_buffers_of_the_kernel())


async def behind_the_buffers_of_the_kernel() -> None:
    """Segments as on the internet, and whatever buffer the kernel finds right: it would take 300 tokens."""
    async with running(local_settings()) as server:
        ours = socket.socket()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        ours.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1400)
        ours.connect(("127.0.0.1", server.port))
        async with client(server.port, sock=ours, max_queue=1) as reader:
            await reader.subscribe(CHANNEL, merge_tokens=True)
            writer = Writer(server)
            for _ in range(100):
                await writer.says(5)
                await asyncio.sleep(0)
            await writer.ends()
            tokens, frames = checked(await frames_of(reader, ended("m")))
    assert tokens == 500
    assert frames < 300


async def beside_a_fast_tab(asked: str) -> None:
    async with (
        running(local_settings()) as server,
        client(server.port) as fast,
        slow(server, merging=asked) as (reader, connection),
    ):
        await fast.subscribe(CHANNEL)
        writer = Writer(server)
        reading = asyncio.create_task(frames_of(fast, ended("m")))
        await became_slow(writer, connection)
        most = 0
        for _ in range(200):
            await writer.says(20)
            await asyncio.sleep(0)
            # Merged tokens are so short that all of them may fit into the transport's buffer now and then.
            most = max(most, connection._backlog.size if connection._backlog else 0)
        await writer.ends()
        total = writer.next["m"]
        async with asyncio.timeout(WAIT):
            assert checked(await reading) == (total, total)
        tokens, frames = checked(await frames_of(reader, ended("m")))
        assert tokens == total
        assert frames < total - 2_000  # what was written after the watermark takes few frames
        assert most < 2 * 4_000 * len(word(total)) + WATERMARK_BYTES
        assert server.node.connections.merged_tokens == total - frames
        await until(lambda: not connection.slow)
        assert connection._backlog is None
        await writer.says(5, "later")  # it has caught up
        await writer.ends("later")
        assert checked(await frames_of(reader, ended("later")), "later") == (5, 5)
        assert server.node.connections.slow_closed == 0


async def test_a_slow_client_that_did_not_ask_gets_single_tokens():
    async with running(local_settings()) as server, slow(server, merging=None) as (reader, connection):
        writer = Writer(server)
        await became_slow(writer, connection)
        await writer.says(500)
        await writer.ends()
        assert not isinstance(connection._backlog, MergingSendQueue)
        total = writer.next["m"]
        assert checked(await frames_of(reader, ended("m"))) == (total, total)
        assert server.node.connections.merged_tokens == 0


async def test_other_channels_of_a_connection_get_single_tokens():
    other = "private-ai-chat.8"
    async with running(local_settings()) as server, slow(server, merging="field") as (reader, connection):
        await reader.subscribe(other)
        writer = Writer(server)
        await became_slow(writer, connection)
        for index in range(500):
            frame = stream.TokenReceived(8, "n", word(index, "n"), index).frame(other)
            await server.node.bus.publish([((APP.id, other), Envelope(frame, None, ("n", index)))])
        frames = await frames_of(
            reader, lambda frame: frame["messageId"] == "n" and frame["tokenIndex"] == 499
        )
        assert checked(frames, "n") == (500, 500)


async def test_the_end_of_a_message_does_not_wait_for_the_tokens_of_another():
    async with running(local_settings()) as server, slow(server, merging="field") as (reader, connection):
        writer = Writer(server)
        await became_slow(writer, connection)
        for _ in range(100):
            await writer.says(2, "m")
            await writer.says(2, "long", size=600)  # more than one merged frame
        await writer.publish(messages.channel_event("e", CHANNEL, '{"messageId":""}'))
        await writer.says(300, "last")
        await writer.ends("m")
        await writer.ends("last")
        await writer.ends("long")
        frames = await frames_of(
            reader, lambda frame: frame["event"] == "token.received" and frame["messageId"] == "last"
        )
        order = [(frame["event"], frame["messageId"]) for frame in frames]
        # The endings overtake what belongs to other messages, and nothing else of their channel.
        assert order[-4:] == [
            ("e", ""),
            ("stream.completed", "m"),
            ("stream.completed", "long"),
            ("token.received", "last"),
        ]
        assert checked(frames, "m")[0] == writer.next["m"]
        assert checked(frames, "long")[0] == 200
        assert frames[-1]["tokenCount"] == 300
        assert ended("last")((await frames_of(reader, ended("last")))[0])


@pytest.mark.parametrize("asked", ["field", None])
async def test_a_client_that_is_too_slow_is_closed_and_takes_bounded_memory(asked):
    bound = 100_000
    settings = local_settings(server=Server(port=0, drain_seconds=0, send_queue_bytes=bound))
    async with running(settings) as server, slow(server, merging=asked) as (reader, connection):
        writer = Writer(server)
        most = 0
        while not server.node.connections.slow_closed:
            assert writer.next.get("m", 0) < 100_000, "the client was never closed"
            await writer.says(10, size=50)
            await asyncio.sleep(0)
            if connection._backlog is not None:
                most = max(most, connection._backlog.size)
            waits = connection._transport.get_write_buffer_size()
            assert waits <= WRITE_HIGH_WATER_BYTES + 2 * MERGED_BYTES
        assert bound / 2 < most <= bound
        assert (server.node.connections.merged_tokens > 1_000) == (asked is not None)
        await read_on(reader)
        assert await reader.closed() == errors.TOO_SLOW.code


async def test_a_client_that_drains_gets_what_waits_and_merged():
    """A restart closes it, with everything that was published before."""
    async with running(local_settings()) as server, slow(server, merging="field") as (reader, connection):
        writer = Writer(server)
        await became_slow(writer, connection)
        await writer.says(500)
        await writer.ends()
        closing = asyncio.create_task(server.node.drain.run())
        tokens, frames = checked(await frames_of(reader, ended("m")))
        assert tokens == writer.next["m"]
        assert frames < tokens
        await read_on(reader)
        assert await reader.closed() == errors.DRAINING.code
        await closing


async def test_a_polling_client_gets_merged_tokens_between_two_polls():
    async with running(local_settings()) as server:
        session = Session(server)
        await session.open()
        (polling,) = server.node.clients.open
        await session.subscribe(CHANNEL)
        assert (await session.receive())["event"] == "pusher_internal:subscription_succeeded"
        ask = json.dumps({"event": "legato:merge_tokens", "channel": CHANNEL, "data": {}})
        assert await session.push(json.dumps([ask]).encode()) == 204
        for index in range(1_000):
            frame = stream.TokenReceived(7, "m", word(index), index).frame(CHANNEL)
            polling.send(frame)
        polling.send(stream.Completed(7, "m", 1_000).frame(CHANNEL))
        tokens, count = checked(await frames_of(session, ended("m")))
        assert (tokens, server.node.connections.merged_tokens) == (1_000, 1_000 - count)
        assert count < 10
        assert polling._backlog is None


async def test_a_write_for_a_slow_client_that_did_not_ask_costs_what_it_did():
    async with running(local_settings()) as server, client(server.port) as ann:
        await ann.subscribe(CHANNEL)
        connection: Any
        (connection,) = server.node.clients.open
        connection.pause_writing()
        frame = b"\x81\x02{}"

        def work() -> None:
            for _ in range(100):
                connection.enqueue(frame)

        work()
        assert instructions(work) / 100 <= PER_QUEUED_WRITE
        connection._backlog = None
        connection.resume_writing()
