"""One socket that sends as much as it can: a few messages of it are read per turn, and none while it is slow.

A turn of the loop is made to have time for one slice, so that what is seen does not hang on the machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
import ssl
from typing import TYPE_CHECKING, Any

import pytest
import uvloop
from websockets.frames import Frame, Opcode

from legato.broadcaster.channels.subscriber import Key
from legato.broadcaster.clients import command_queue as order
from legato.broadcaster.composition import running
from legato.broadcaster.config import Server
from legato.broadcaster.limits import READ_SLICE_MESSAGES
from legato.broadcaster.transport import reading, websocket
from legato.broadcaster.transport.frames import payloads
from legato.protocol import errors
from legato.protocol.apps import App
from legato.protocol.session import Session
from tests.broadcaster.conftest import APP, client, local_settings
from tests.broadcaster.transport.test_websocket import UPGRADE
from tests.certificates import make as make_certificates
from tests.waiting import WAIT, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from legato.broadcaster.composition import Running
    from legato.broadcaster.config import Settings
    from legato.broadcaster.transport.library import Library
    from legato.broadcaster.transport.websocket import Connection


def frame(opcode: Opcode, payload: bytes = b"", *, fin: bool = True) -> bytes:
    return Frame(opcode, payload, fin).serialize(mask=True)


def said(event: str, data: Any = None) -> bytes:
    return frame(Opcode.TEXT, json.dumps({"event": event, "data": data}).encode())


X = {"channel": "x"}
PING = said("pusher:ping")
FRAGMENT = frame(Opcode.CONT, b"x", fin=False)
EMPTY = frame(Opcode.CONT, fin=False)
FLOODS = {
    "empty texts": frame(Opcode.TEXT),
    "fragments": frame(Opcode.TEXT, b"x", fin=False) + 20 * FRAGMENT + frame(Opcode.CONT),
    "empty fragments": frame(Opcode.TEXT, fin=False)
    + 20 * frame(Opcode.CONT, fin=False)
    + frame(Opcode.CONT),
    "pings": frame(Opcode.PING),
    "long pings": frame(Opcode.PING, b"x" * 125),
    "pongs": frame(Opcode.PONG),
    "subscriptions": said("pusher:subscribe", X) + said("pusher:unsubscribe", X),
    "the same subscription": said("pusher:subscribe", X),
    "pusher pings": PING,
    "junk": frame(Opcode.TEXT, b"{junk"),
    "client events": said("client-x", "y"),
}
FLOOD_BYTES = 200_000


class Peer:
    """A client socket that sends and reads only when the test says so."""

    def __init__(self, server: Running, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.server = server
        self.reader = reader
        self.writer = writer
        self.received = b""
        self.connection: Connection

    async def read(self, done: Callable[[bytes], bool]) -> bytes:
        """Read until the condition holds for everything received, or the connection ends."""
        async with asyncio.timeout(WAIT):
            while not done(self.received) and (data := await self.reader.read(1 << 20)):
                self.received += data
        return self.received

    def frames(self) -> list[bytes]:
        """The payloads of the received frames."""
        return payloads(self.received.split(b"\r\n\r\n", 1)[1])


@contextlib.asynccontextmanager
async def peer(
    server: Running, buffers: int = 0, context: ssl.SSLContext | None = None
) -> AsyncIterator[Peer]:
    """``buffers`` is the size of the kernel's socket buffers, in both directions."""
    plain = socket.create_connection(("127.0.0.1", server.port))
    if buffers:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffers)
    name = None if context is None else "127.0.0.1"
    before = set(server.node.clients.open)
    reader, writer = await asyncio.open_connection(sock=plain, ssl=context, server_hostname=name, limit=4096)
    found = Peer(server, reader, writer)
    try:
        writer.write(UPGRADE)
        await found.read(lambda received: b"connection_established" in received)
        ((found.connection),) = set(server.node.clients.open) - before
        if buffers:
            there = found.connection._transport.get_extra_info("socket")
            there.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffers)
        yield found
    finally:
        writer.transport.abort()


def of(certificates: Path | None) -> tuple[Settings, ssl.SSLContext | None]:
    """The settings of a server and its clients, with TLS if there are certificates."""
    if certificates is None:
        return local_settings(), None
    cert, key = str(certificates / "server.pem"), str(certificates / "server.key")
    server = Server(port=0, drain_seconds=0, tls_cert=cert, tls_key=key)
    return local_settings(server=server), ssl.create_default_context(cafile=str(certificates / "ca.pem"))


def on_both_loops(scenario: Callable[..., Any]) -> Callable[..., None]:
    @pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
    def test(run: Callable[[Any], None]) -> None:
        run(scenario())

    return test


# --- what others have of it


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request) -> Callable[[Any], None]:
    return {"asyncio": asyncio.run, "uvloop": uvloop.run}[request.param]


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_is_read_a_slice_at_a_time_and_others_are_served_meanwhile(name, run):
    run(flooded(FLOODS[name]))


def test_a_flood_over_tls_is_read_a_slice_at_a_time(tmp_path, run):
    make_certificates(tmp_path)
    run(flooded(FLOODS["empty texts"], tmp_path))
    run(flooded(FLOODS["pings"], tmp_path))


@pytest.mark.parametrize("before", [b"", frame(Opcode.PONG)], ids=["plain", "by the library"])
def test_large_messages_end_a_slice_sooner(before, run, monkeypatch):
    """A slice with as many large messages as small ones would take as long as many slices."""
    monkeypatch.setattr(reading, "READ_SLICE_BYTES", 1_000)

    async def scenario() -> None:
        async with running(local_settings()) as server, peer(server) as eve:
            server.node.context.budget._seconds = 0.0
            eve.writer.write(before)
            await until(lambda: bool(eve.connection._library) == bool(before))
            turns: list[int] = []
            slice_, receive = type(eve.connection)._slice, type(eve.connection).receive

            class Counted(type(eve.connection)):
                __slots__ = ()

                def _slice(self, data: bytes, at: int) -> int:
                    turns.append(0)
                    return slice_(self, data, at)

                def receive(self, text: bytes) -> None:
                    if turns:  # else it is of the slice that is read at once
                        turns[-1] += 1
                    receive(self, text)

            eve.connection.__class__ = Counted
            eve.writer.write(frame(Opcode.TEXT, b'{"event":"' + b"x" * 600 + b'"}') * 100)
            await eve.read(lambda received: received.count(b"Unsupported") == 100)
            assert max(turns) == 2
            assert len(turns) > 40

    run(scenario())


async def flooded(kind: bytes, certificates: Path | None = None) -> None:
    settings, context = of(certificates)
    async with running(settings) as server, peer(server, context=context) as bob:
        server.node.context.budget._seconds = 0.0
        async with peer(server, context=context) as eve:
            turns = per_turn(eve.connection)
            eve.writer.write(kind * (FLOOD_BYTES // len(kind)))
            await until(lambda: sum(turns) > READ_SLICE_MESSAGES)
            for number in range(1, 11):
                bob.writer.write(PING)
                await bob.read(lambda received, number=number: received.count(b"pusher:pong") == number)
            assert eve.connection._unread  # far from done
            assert READ_SLICE_MESSAGES // 2 <= max(turns) <= 4 * READ_SLICE_MESSAGES
        await until(lambda: len(server.node.clients.open) == 1 and not server.node.context.budget)


def per_turn(connection: Connection) -> list[int]:
    """The amount read in each turn of the loop. Each frame counts once or twice."""
    counts = [0]
    loop = asyncio.get_running_loop()

    class Counted(type(connection)):
        __slots__ = ()

        def receive(self, text: bytes) -> None:
            counts[-1] += 1
            super().receive(text)

        def write_answers(self, library: Library) -> None:
            counts[-1] += 1
            super().write_answers(library)

    def turn() -> None:
        if counts[-1]:
            counts.append(0)
        if not connection._transport.is_closing():
            loop.call_soon(turn)

    connection.__class__ = Counted
    turn()
    return counts


@on_both_loops
async def test_slices_together_read_everything_in_order() -> None:
    async with running(local_settings()) as server, peer(server) as eve:
        for number in range(3_000):
            eve.writer.write(
                frame(Opcode.PING, b"%d" % number) + frame(Opcode.TEXT, b'{"event":"%d"}' % number)
            )
        await eve.read(lambda received: b"socket: 2999" in received)
        answers = eve.frames()[1:]
        assert answers[::2] == [b"%d" % number for number in range(3_000)]
        assert [json.loads(answer)["data"]["message"].split()[-1] for answer in answers[1::2]] == [
            str(number) for number in range(3_000)
        ]
        await until(lambda: not eve.connection.paused)


@on_both_loops
async def test_frames_may_be_cut_anywhere() -> None:
    kinds = [PING, frame(Opcode.PING, b"p" * 125), frame(Opcode.TEXT, b'{"event":"' + b"x" * 70_000 + b'"}')]
    settings = local_settings(server=Server(port=0, drain_seconds=0, max_message_bytes=100_000))
    async with running(settings) as server, peer(server) as eve:
        sent = b"".join(kinds[number % 3] for number in range(30))
        for size in (1, 2, 3, 7, 13, 4_000, 30_000, len(sent)):
            eve.writer.write(sent[:size])
            sent = sent[size:]
            await until(lambda: not eve.writer.transport.get_write_buffer_size())
            await asyncio.sleep(0)
        await eve.read(lambda received: received.count(b"Unsupported") == 10)
        assert eve.received.count(b"pusher:pong") == 10
        assert eve.frames().count(b"p" * 125) == 10


def test_many_connections_are_accepted_per_turn_on_a_busy_loop():
    """libuv accepts one connection per listener and turn, and busy turns take some milliseconds."""

    async def scenario() -> None:
        async with running(local_settings()) as server:
            before = len(server.uvicorn.server_state.connections)
            counts = [before]

            def turn() -> None:
                counts.append(len(server.uvicorn.server_state.connections))
                asyncio.get_running_loop().call_soon(turn)

            crowd = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(100)]
            turn()
            await until(lambda: counts[-1] == before + 100)
            assert max(after - early for early, after in itertools.pairwise(counts)) >= 8
            for sock in crowd:
                sock.close()
            await until(lambda: counts[-1] == before)

    uvloop.run(scenario())


# --- a peer that takes nothing


ANSWERED = ["long pings", "pusher pings", "empty texts", "the same subscription"]


@pytest.mark.parametrize("name", ANSWERED)
def test_a_peer_that_does_not_read_answers_is_not_read(name, run):
    run(ignored(FLOODS[name]))


def test_a_peer_that_does_not_read_answers_over_tls_is_not_read(tmp_path, run):
    make_certificates(tmp_path)
    for name in ("long pings", "pusher pings"):
        run(ignored(FLOODS[name], tmp_path))


def backlog(connection: Any) -> int:
    """The bytes that wait outside of the transport's buffer."""
    return connection._backlog.size if connection._backlog else 0


async def ignored(kind: bytes, certificates: Path | None = None) -> None:
    settings, context = of(certificates)
    count = 20_000  # answers of 45 bytes and more: some times what the buffers hold
    async with running(settings) as server, peer(server, 65_536, context) as eve:
        connection = eve.connection
        eve.writer.write(kind * count + said("the last one"))
        await until(lambda: connection.slow)
        for _ in range(100):
            await asyncio.sleep(0)
            most = connection._transport.get_write_buffer_size() + backlog(connection)
            assert most < websocket.WRITE_HIGH_WATER_BYTES + 40_000
        assert connection.slow
        assert connection.paused
        assert not server.node.context.budget
        for later in (10_000, 20_000):  # it is not silent: nobody listens to it
            connection.check_at(server.node.context.now() + later)
        assert connection.session is not None
        await eve.read(lambda received: b": the last one" in received[-300:])
        assert len(eve.frames()) == count + 2
        await until(lambda: not connection.paused)


@on_both_loops
async def test_a_peer_that_does_not_read_events_is_not_read() -> None:
    """Even if it has sent nothing before."""
    async with running(local_settings()) as server, peer(server, 65_536) as eve:
        connection = eve.connection
        eve.writer.write(said("pusher:subscribe", X))
        await eve.read(lambda received: b"subscription_succeeded" in received)
        while backlog(connection) < 500_000:  # far more than the kernel still takes
            server.node.hub.deliver((APP.id, "x"), b"y" * 10_000)
            await asyncio.sleep(0)
        counts = per_turn(connection)
        eve.writer.write(PING)
        await until(lambda: not eve.writer.transport.get_write_buffer_size())
        assert not connection._transport.is_reading()
        for _ in range(20):
            await asyncio.sleep(0)
        assert (sum(counts), connection.slow) == (0, True)
        await eve.read(lambda received: b"pusher:pong" in received[-300:])


@on_both_loops
async def test_a_peer_with_a_write_stall_is_cut() -> None:
    before, websocket.WRITE_STALL_SECONDS = websocket.WRITE_STALL_SECONDS, 0.05
    try:
        async with running(local_settings()) as server, peer(server, 4096) as eve:
            eve.writer.write(FLOODS["long pings"] * 10_000)
            await until(lambda: server.node.connections.slow_closed == 1)
            await until(lambda: not server.node.clients.open and not server.node.connections.slow)
            assert eve.connection._unread == b""
    finally:
        websocket.WRITE_STALL_SECONDS = before


@on_both_loops
async def test_a_slow_peer_that_keeps_reading_is_not_cut() -> None:
    async with running(local_settings()) as server, peer(server, 65_536) as eve:
        connection = eve.connection
        eve.writer.write(FLOODS["long pings"] * 60_000)
        for _ in range(3):
            await until(lambda: connection.slow)
            connection._check_stall()
            before = connection._transport.get_write_buffer_size()
            async with asyncio.timeout(WAIT):
                while connection.slow and connection._transport.get_write_buffer_size() == before:
                    await eve.reader.read(65_536)
        connection._check_stall()
        assert server.node.connections.slow_closed == 0
        assert connection.session is not None


# --- ends in the middle


@on_both_loops
async def test_unread_messages_of_a_departed_client_are_dropped() -> None:
    async with running(local_settings()) as server, peer(server) as eve:
        server.node.context.budget._seconds = 0.0
        session = eve.connection.session
        assert session is not None
        eve.writer.write(PING * 4_000)
        await until(lambda: eve.connection._unread)
        eve.connection.abort()
        await until(lambda: not server.node.clients.open and not server.node.context.budget)
        assert eve.connection._unread == b""
        assert session.closed


@on_both_loops
async def test_the_close_frame_behind_a_flood_of_a_closed_client_is_read() -> None:
    async with running(local_settings()) as server, peer(server) as eve:
        server.node.context.budget._seconds = 0.0
        eve.writer.write(PING * 2_000 + frame(Opcode.CLOSE, b"\x03\xe8"))
        await until(lambda: eve.connection._unread)
        await server.node.drain.run()
        await eve.read(lambda _: False)  # until it has hung up
        frames = eve.frames()
        assert json.loads(frames[-2])["data"]["code"] == errors.DRAINING.code
        assert int.from_bytes(frames[-1][:2]) == errors.DRAINING.code
        assert len(frames) < 2_000


@on_both_loops
async def test_a_close_frame_behind_messages_is_answered_after_them() -> None:
    async with running(local_settings()) as server, peer(server) as eve:
        eve.writer.write(PING * 100 + frame(Opcode.CLOSE, b"\x03\xe8") + PING)
        await eve.read(lambda _: False)
        assert eve.received.count(b"pusher:pong") == 100
        assert eve.frames()[-1] == b"\x03\xe8"


@on_both_loops
async def test_a_half_closed_peer_is_read_to_the_end() -> None:
    async with running(local_settings()) as server, peer(server) as bob, peer(server) as eve:
        server.node.context.budget._seconds = 0.0
        eve.writer.write(said("pusher:subscribe", X) * 500 + said("pusher:subscribe", {"channel": "last"}))
        eve.writer.write_eof()
        key = (APP.id, "last")
        await until(lambda: key in eve.connection.keys or eve.connection.session is None)
        await until(lambda: len(server.node.clients.open) == 1)
        assert bob.connection.session is not None


# --- what is under way


async def test_a_client_with_many_commands_in_progress_is_read_once_they_are_answered(monkeypatch):
    async with running(local_settings()) as server, peer(server) as eve:
        hub, asked = server.node.hub, []
        monkeypatch.setattr(hub, "subscribe", lambda *arguments: asked.append(arguments))
        count = 5 * order.MAX_PENDING_COMMANDS
        channels = [f"c{number}" for number in range(count)]
        eve.writer.write(b"".join(said("pusher:subscribe", {"channel": name}) for name in channels))
        await until(lambda: eve.connection.paused and not server.node.context.budget)
        assert len(asked) <= order.MAX_PENDING_COMMANDS + READ_SLICE_MESSAGES
        for later in (10_000, 20_000):  # it is not silent: nobody listens to it
            eve.connection.check_at(server.node.context.now() + later)
        assert eve.connection.session is not None
        monkeypatch.undo()
        for arguments in asked:
            hub.subscribe(*arguments)
        await eve.read(lambda received: received.count(b"subscription_succeeded") == count)
        answered = [json.loads(payload)["channel"] for payload in eve.frames()[1:]]
        assert answered == channels


async def test_a_client_with_many_single_commands_is_paused_too(monkeypatch):
    async with running(local_settings()) as server, peer(server) as eve:
        asked = []
        monkeypatch.setattr(server.node.hub, "subscribe", lambda *arguments: asked.append(arguments))
        for number in range(order.MAX_PENDING_COMMANDS):
            assert not eve.connection.paused
            eve.writer.write(said("pusher:subscribe", {"channel": f"c{number}"}))
            await until(lambda expected=number + 1: len(asked) == expected)
        assert eve.connection.paused


async def test_a_client_that_waits_for_admission_is_read_a_little(monkeypatch):
    app = App(id="1", key="app-key", secret="app-secret", max_connections=5)
    async with running(local_settings(app)) as server:
        asked = []
        monkeypatch.setattr(server.node.registry, "enter", lambda *arguments: asked.append(arguments))
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(UPGRADE)
        await until(lambda: asked)
        writer.write(PING * 1_000)
        (waiting,) = server.node.admission._waiting
        await until(lambda: waiting.paused and not server.node.context.budget)
        assert len(waiting.early) == READ_SLICE_MESSAGES
        asked[0][-1](True)
        received = b""
        async with asyncio.timeout(WAIT):
            while received.count(b"pusher:pong") < 1_000:
                received += await reader.read(1 << 20)
        assert received.index(b"connection_established") < received.index(b"pusher:pong")
        writer.transport.abort()


async def test_early_messages_of_many_clients_are_read_over_several_turns(monkeypatch):
    """One answer of Redis may admit hundreds."""
    app = App(id="1", key="app-key", secret="app-secret", max_connections=50)
    turns, count = [0], 20
    async with running(local_settings(app)) as server:
        asked: list[Any] = []
        monkeypatch.setattr(server.node.registry, "enter", lambda *arguments: asked.append(arguments))
        received = Session.receive

        def counted(session: Session, text: bytes, now: float) -> Any:
            turns[-1] += 1
            return received(session, text, now)

        monkeypatch.setattr(Session, "receive", counted)
        peers = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(count)]
        for number, (_, writer) in enumerate(peers):
            writer.write(UPGRADE)
            await until(lambda number=number: len(asked) == number + 1)
            writer.write(PING + said("pusher:subscribe", X) + PING)
        waiting = list(server.node.admission._waiting)
        await until(lambda: all(len(one.early or ()) == 3 for one in waiting))
        server.node.context.budget._seconds = 0.0

        def turn() -> None:
            turns.append(0)
            if sum(turns) < 3 * count:
                asyncio.get_running_loop().call_soon(turn)

        for arguments in asked:
            arguments[-1](True)
        assert sum(turns) == 0
        peers[1][1].write(said("pusher:unsubscribe", X))  # behind what was said before
        waiting[0].abort()
        turn()
        for reader, writer in peers[1:]:
            before = b""
            async with asyncio.timeout(WAIT):
                while before.count(b"pusher:pong") < 2:
                    before += await reader.read(1 << 20)
            events = ["connection_established", "pusher:pong", "subscription_succeeded", "pusher:pong"]
            places = [before.index(event.encode()) for event in events[:3]]
            assert places == sorted(places)
            assert before.rindex(b"pusher:pong") > places[2]
            assert not writer.is_closing()
        assert max(turns) <= 2
        await until(lambda: server.node.hub.count(Key(app.id, "x")) == count - 2)
        await until(lambda: not any(one.paused or one.early is not None for one in waiting[1:]))
        for _, writer in peers:
            writer.transport.abort()


# --- text that is none


def client_event(data: bytes) -> bytes:
    return b'{"event":"client-x","channel":"private-x","data":"' + data + b'"}'


BAD = [b"\xff", b"\xc3", b"\xed\xa0\xbd", b"\xe2\x82"]


def fragments(text: bytes) -> bytes:
    """Each byte in a separate frame."""
    parts = [text[at : at + 1] for at in range(len(text))]
    first, *others, last = parts
    middle = b"".join(frame(Opcode.CONT, part, fin=False) for part in others)
    return frame(Opcode.TEXT, first, fin=False) + middle + frame(Opcode.CONT, last)


WAYS = {
    "alone": lambda text: frame(Opcode.TEXT, text),
    "among others": lambda text: PING + frame(Opcode.TEXT, text) + PING,
    "by the library": lambda text: frame(Opcode.PING) + frame(Opcode.TEXT, text),
    "in fragments": fragments,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("bad", BAD)
async def test_invalid_utf8_closes_its_sender_and_is_not_relayed(way, bad):
    async with running(local_settings()) as server, client(server.port) as bob, client(server.port) as eve:
        for one in (bob, eve):
            await one.subscribe("private-x")
        eve.connection.transport.write(WAYS[way](client_event(bad)))
        assert await eve.closed() == 1007
        await bob.send("pusher:ping")
        assert (await bob.receive())["event"] == "pusher:pong"
        await until(lambda: len(server.node.clients.open) == 1)


@pytest.mark.parametrize("way", WAYS)
async def test_any_valid_text_is_relayed(way):
    """Also if a fragment ends within a character."""
    async with running(local_settings()) as server, client(server.port) as bob, client(server.port) as eve:
        for one in (bob, eve):
            await one.subscribe("private-x")
        eve.connection.transport.write(WAYS[way](client_event("é €😀".encode())))
        assert (await bob.receive())["data"] == "é €😀"


async def test_text_that_ends_within_a_character_is_invalid():
    async with running(local_settings()) as server, client(server.port) as eve:
        eve.connection.transport.write(frame(Opcode.TEXT, "é".encode()[:1]))
        assert await eve.closed() == 1007
