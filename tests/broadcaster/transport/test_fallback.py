"""The HTTP fallback transports over plain sockets, as pusher-js speaks them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from typing import TYPE_CHECKING, Any

import h11
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from legato.broadcaster.composition import running
from legato.broadcaster.config import Server
from legato.broadcaster.transport import deadlines
from legato.broadcaster.transport import (
    http11 as http,
)
from legato.broadcaster.transport import (
    polling as fallback,
)
from legato.broadcaster.transport import (
    polling_client as fallback_client,
)
from legato.broadcaster.transport.frames import text_frame
from legato.protocol import errors, messages, signatures
from legato.protocol import fallback as words
from legato.protocol.apps import App
from legato.protocol.wire import Envelope
from tests.broadcaster.conftest import APP, client, local_settings
from tests.tiers import amount
from tests.waiting import WAIT, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from legato.broadcaster.composition import Running

SUCCEEDED = "pusher_internal:subscription_succeeded"
ALPHABET = "0123456789abcdefghijklmnopqrstuv"
QUERY = "?protocol=7&client=js&version=8.6.0&t=1&n=1"


class Answer:
    """An answer whose head is there and whose body may still come."""

    def __init__(self, connection: h11.Connection, reader: asyncio.StreamReader) -> None:
        self._connection = connection
        self._reader = reader
        self._body = b""
        self.status = 0
        self.headers: dict[str, str] = {}
        self.ended = False

    async def event(self) -> Any:
        async with asyncio.timeout(WAIT):
            while (event := self._connection.next_event()) is h11.NEED_DATA:
                self._connection.receive_data(await self._reader.read(65_536))
        return event

    async def frame(self) -> str:
        """The next frame, its type in front; empty at the end of the answer."""
        while b"\n" not in self._body and not self.ended:
            event = await self.event()
            if isinstance(event, h11.Data):
                self._body += bytes(event.data)
            else:
                self.ended = True
        frame, _, self._body = self._body.partition(b"\n")
        return frame.decode()

    async def frames(self) -> list[str]:
        """Everything up to the end of the answer."""
        found = []
        while frame := await self.frame():
            found.append(frame)
        return found


@contextlib.asynccontextmanager
async def exchange(
    port: int, target: str, body: bytes = b"", method: str = "POST", headers: dict[str, str] | None = None
) -> AsyncIterator[Answer]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        connection = h11.Connection(h11.CLIENT)
        fields = {"host": "x", "content-type": "application/json", "content-length": str(len(body))}
        request = h11.Request(method=method, target=target, headers=list((fields | (headers or {})).items()))
        writer.write(connection.send(request) + connection.send(h11.Data(data=body)))
        writer.write(connection.send(h11.EndOfMessage()))
        answer = Answer(connection, reader)
        head = await answer.event()
        answer.status = head.status_code
        answer.headers = {name.decode(): value.decode() for name, value in head.headers}
        yield answer
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


class Session:
    """A session as the client names it."""

    def __init__(self, server: Running, key: str = APP.key, base: str = "/pusher") -> None:
        name = "".join(random.choices(ALPHABET, k=8))
        self.port = server.port
        self.node = server.node
        self.path = f"{base}/app/{key}/{random.randrange(1000)}/{name}"
        self.socket_id = ""
        self._waiting: list[dict[str, Any]] = []

    async def poll(self, query: str = QUERY, **options: Any) -> list[str]:
        async with exchange(self.port, f"{self.path}/xhr{query}", **options) as answer:
            assert answer.status == 200
            return await answer.frames()

    def stream(self, query: str = QUERY) -> contextlib.AbstractAsyncContextManager[Answer]:
        return exchange(self.port, f"{self.path}/xhr_streaming{query}")

    async def push(self, body: bytes) -> int:
        async with exchange(self.port, f"{self.path}/xhr_send?t=1&n=1", body) as answer:
            return answer.status

    async def send(self, event: str, data: Any = None) -> None:
        assert await self.push(json.dumps([json.dumps({"event": event, "data": data})]).encode()) == 204

    async def open(self) -> None:
        first, second = await self.poll()
        assert first == "o{}"
        self.greeted(second)

    def greeted(self, frame: str) -> None:
        (greeting,) = read(frame)
        assert greeting["event"] == "pusher:connection_established"
        self.socket_id = json.loads(greeting["data"])["socket_id"]

    async def receive(self) -> dict[str, Any]:
        """The next message, by polls."""
        while not self._waiting:
            self._waiting = [message for frame in await self.poll() for message in read(frame)]
        return self._waiting.pop(0)

    async def subscribe(self, channel: str) -> None:
        auth = signatures.sign_channel(APP.key, APP.secret, self.socket_id, channel)
        await self.send("pusher:subscribe", {"channel": channel, "auth": auth})


def read(frame: str) -> list[dict[str, Any]]:
    """The messages in a frame."""
    assert frame[0] == "a"
    return [json.loads(text) for text in json.loads(frame[1:])]


async def next_messages(answer: Answer) -> list[dict[str, Any]]:
    """The messages of the next frame of a stream that has any."""
    while (frame := await answer.frame())[:1] in ("h", "o"):
        pass
    return read(frame)


async def listen(session: Session, stream: Answer) -> None:
    """Greeted by a stream, subscribe the channel ``x`` and read the answer."""
    while (frame := await stream.frame())[0] != "a":
        pass
    session.greeted(frame)
    await session.subscribe("x")
    await next_messages(stream)


async def publish(server: Running, channel: str, data: str) -> None:
    payload = messages.channel_event("e", channel, data)
    await server.node.bus.publish([((APP.id, channel), Envelope(payload))])


def quick(monkeypatch, **seconds: float) -> None:
    """Shorter times than a client would stand."""
    for name, value in seconds.items():
        monkeypatch.setattr(fallback_client, name, value)


def alone(server: Running) -> bool:
    return server.node.connections.by_app[APP.id] == 0 and len(server.node.hub) == 0


# --- receiving


async def test_polls_carry_what_a_socket_would(server):
    session = Session(server)
    await session.open()
    await session.subscribe("private-x")
    assert (await session.receive())["event"] == SUCCEEDED
    for number in range(3):  # between two polls
        await publish(server, "private-x", str(number))
    assert [(await session.receive())["data"] for _ in range(3)] == ["0", "1", "2"]
    await session.send("pusher:ping", {})
    assert (await session.receive())["event"] == "pusher:pong"


async def test_a_poll_waits_for_what_comes(server):
    session = Session(server)
    await session.open()
    polling = asyncio.create_task(session.poll())
    await session.send("pusher:ping", {})
    assert [message["event"] for message in read((await polling)[0])] == ["pusher:pong"]


async def test_a_stream_goes_on(server):
    session = Session(server)
    async with session.stream() as stream:
        assert set(await stream.frame()) == {"h"}
        assert await stream.frame() == "o{}"
        session.greeted(await stream.frame())
        await session.subscribe("x")
        assert [message["event"] for message in await next_messages(stream)] == [SUCCEEDED]
        for number in range(3):
            await publish(server, "x", str(number))
            assert [message["data"] for message in await next_messages(stream)] == [str(number)]
        assert not stream.ended


async def test_a_session_is_a_client_like_any_other(server):
    session = Session(server)
    async with client(server.port) as ann:
        await ann.subscribe("private-x")
        await session.open()
        assert server.node.connections.by_app[APP.id] == 2
        await session.subscribe("private-x")
        assert (await session.receive())["event"] == SUCCEEDED
        body = {"event": "client-a", "channel": "private-x", "data": {"b": "\u00e4\U0001f600\n"}}
        assert await session.push(json.dumps([json.dumps(body)]).encode()) == 204
        assert await ann.receive() == body
        await ann.send("client-c", "\u2028", channel="private-x")
        assert (await session.receive())["data"] == "\u2028"


async def test_headers_let_pages_of_other_origins_read_and_nothing_store_or_hold_back(server):
    async with Session(server).stream() as stream:
        assert stream.headers["access-control-allow-origin"] == "*"
        assert "no-store" in stream.headers["cache-control"]
        assert stream.headers["x-accel-buffering"] == "no"
        assert stream.headers["content-type"] == "text/plain; charset=utf-8"


# --- streams that are abandoned


async def test_a_stream_that_the_client_will_abandon_gets_nothing_that_would_be_lost(server):
    """Past 256 KB pusher-js drops the stream for another; nothing is lost or doubled by it."""
    session, got, streams = Session(server), [], 1
    padding = "\u00e4\U0001f600" * 2_000
    async with contextlib.AsyncExitStack() as stack:
        stream = await stack.enter_async_context(session.stream())
        length = code_units(await stream.frame()) + code_units(await stream.frame())
        session.greeted(frame := await stream.frame())
        length += code_units(frame)
        await session.subscribe("x")
        for number in range(60):
            await publish(server, "x", f"{number} {padding}")
            if number % 10 == 0:  # let some of it get into frames of its own
                await asyncio.sleep(0)
        while len(got) < 60:
            frame = await stream.frame()
            length += code_units(frame)
            if frame[0] == "a":
                got += [message["data"].split()[0] for message in read(frame) if message["event"] == "e"]
            if length > words.STREAM_LIMIT:  # pusher-js turns away here, whatever is still on its way
                old, stream = stream, await stack.enter_async_context(session.stream())
                assert await old.frames() == []
                length, streams = 0, streams + 1
    assert got == [str(number) for number in range(60)]
    assert streams > 1


def code_units(frame: str) -> int:
    """What a frame and its line break add to the length of JavaScript's ``responseText``."""
    return len(frame.encode("utf-16-le")) // 2 + 1


async def test_a_new_stream_takes_over_and_the_old_one_ends(server):
    session = Session(server)
    async with session.stream() as old:
        while (await old.frame())[0] != "a":
            pass
        async with session.stream() as new:
            assert await old.frames() == []
            await session.send("pusher:ping", {})
            assert [message["event"] for message in await next_messages(new)] == ["pusher:pong"]
            assert server.node.connections.by_app[APP.id] == 1


async def test_a_session_ends_when_no_request_comes_back(monkeypatch):
    quick(monkeypatch, POLLING_GRACE_SECONDS=0.0, POLLING_CHECK_SECONDS=0.05)
    async with running(local_settings()) as server:
        session = Session(server)
        async with session.stream() as stream:
            await listen(session, stream)
            assert server.node.connections.by_app[APP.id] == 1
        await until(lambda: alone(server))
        assert await session.push(b"[]") == 404


async def test_a_session_outlives_the_moment_between_two_polls(server):
    session = Session(server)
    await session.open()
    (entry,) = server.node.clients.open
    now = server.node.context.now()
    assert entry.check_at(now + fallback_client.POLLING_GRACE_SECONDS - 1) is not None
    assert await session.push(b"[]") == 204
    assert entry.check_at(now + fallback_client.POLLING_GRACE_SECONDS + 1) is None
    assert await session.push(b"[]") == 404


@pytest.mark.parametrize("streaming", [True, False])
async def test_a_quiet_session_gets_heartbeats(monkeypatch, streaming):
    quick(monkeypatch, POLLING_HEARTBEAT_SECONDS=0.0, POLLING_CHECK_SECONDS=0.05)
    async with running(local_settings()) as server:
        session = Session(server)
        await session.open()
        if not streaming:
            assert await session.poll() == ["h"]
            assert await session.poll() == ["h"]
            return
        async with session.stream() as stream:
            await stream.frame()
            assert [await stream.frame(), await stream.frame()] == ["h", "h"]


def test_the_times_are_those_that_clients_stand():
    slack = fallback_client.POLLING_CHECK_SECONDS + 1  # the wheel is as coarse as a second
    assert fallback_client.POLLING_HEARTBEAT_SECONDS + slack <= 25
    assert fallback_client.POLLING_GRACE_SECONDS >= 5
    assert fallback_client.POLLING_GRACE_SECONDS + slack <= 10


async def test_a_session_is_soon_on_the_wheel_once(server):
    """Its liveness puts it there too; both entries ask for the same time, where they are one."""
    await Session(server).open()
    (entry,) = server.node.clients.open
    start = (
        server.node.context.now()
        // fallback_client.POLLING_CHECK_SECONDS
        * fallback_client.POLLING_CHECK_SECONDS
    )
    times = {entry.check_at(start + part * fallback_client.POLLING_CHECK_SECONDS) for part in (0.1, 0.5, 0.9)}
    assert times == {start + fallback_client.POLLING_CHECK_SECONDS}


async def test_a_client_that_answers_nothing_is_closed(monkeypatch):
    quick(monkeypatch, POLLING_CHECK_SECONDS=0.05)
    app = App(id="1", key=APP.key, secret="s", activity_timeout=1, pong_timeout=1)
    async with running(local_settings(app)) as server, Session(server).stream() as stream:
        frames = [frame for frame in await stream.frames() if frame[0] in "ac"]
        events = [message["event"] for frame in frames[:-1] for message in read(frame)]
        assert events == ["pusher:connection_established", "pusher:ping", "pusher:error"]
        assert json.loads(frames[-1][1:])[0] == 4201
        await until(lambda: alone(server))


# --- refusals and ends


@pytest.mark.parametrize(
    ("key", "query", "code"),
    [
        ("nobody", QUERY, 4001),
        (APP.key, "?protocol=99", 4007),
        (APP.key, "?protocol=x", 4006),
    ],
)
@pytest.mark.parametrize("streaming", [True, False])
async def test_a_refused_handshake_says_why_and_leaves_nothing(server, key, query, code, streaming):
    session = Session(server, key)
    if streaming:
        async with session.stream(query) as stream:
            found = (await stream.frames())[1:]
    else:
        found = await session.poll(query)
    assert found[0] == "o{}"
    assert read(found[1])[0]["data"]["code"] == code
    assert json.loads(found[2][1:])[0] == code
    assert found[2][0] == "c"
    assert len(found) == 3
    assert server.node.connections.refused[code] == 1
    assert await session.push(b"[]") == 404


async def test_an_origin_that_is_not_allowed_is_refused():
    app = App(id="1", key=APP.key, secret="s", allowed_origins=("good.example",))
    async with running(local_settings(app)) as server:
        for origin, kind in (("https://good.example", "a"), ("https://bad.example", "c")):
            assert (await Session(server).poll(headers={"origin": origin}))[-1][0] == kind


async def test_a_quota_counts_sessions(server_of_two):
    server = server_of_two
    sessions = [Session(server) for _ in range(2)]
    for session in sessions:
        await session.open()
    assert json.loads((await Session(server).poll())[-1][1:])[0] == 4004


@pytest.fixture
async def server_of_two():
    async with running(local_settings(App(id="1", key=APP.key, secret="s", max_connections=2))) as server:
        yield server


async def test_sessions_are_bounded(server, monkeypatch):
    monkeypatch.setattr(fallback, "MAX_POLLING_SESSIONS", 1)
    await Session(server).open()
    found = await Session(server).poll()
    assert json.loads(found[-1][1:])[0] == errors.OVER_CAPACITY.code
    assert server.node.connections.refused[errors.OVER_CAPACITY.code] == 1


async def test_the_drain_closes_sessions():
    async with running(local_settings()) as server:
        streaming = Session(server)
        async with streaming.stream() as stream:
            while (await stream.frame())[0] != "a":
                pass
            await server.node.drain.run()
            assert [message["event"] for message in await next_messages(stream)] == ["pusher:error"]
            assert json.loads((await stream.frame())[1:])[0] == errors.DRAINING.code
            assert await stream.frames() == []
        assert alone(server)


async def test_a_session_that_is_closed_between_two_polls_is_told_by_the_next(server):
    session = Session(server)
    await session.open()
    await server.node.drain.run()
    assert await session.push(b"[]") == 204
    said, closed = await session.poll()
    assert read(said)[0]["event"] == "pusher:error"
    assert json.loads(closed[1:])[0] == errors.DRAINING.code
    assert await session.push(b"[]") == 404


async def test_one_that_fetches_nothing_is_closed_at_the_bound_with_nothing_lost_silently():
    bound = Server(port=0, drain_seconds=0, send_queue_bytes=10_000)
    async with running(local_settings(server=bound)) as server:
        session = Session(server)
        await session.open()
        await session.subscribe("x")
        assert (await session.receive())["event"] == SUCCEEDED
        for _ in range(3):
            await publish(server, "x", "x" * 5_000)
        await until(lambda: alone(server))
        assert server.node.connections.slow_closed == 1
        said, closed = await session.poll()
        assert read(said)[0]["event"] == "pusher:error"
        assert json.loads(closed[1:]) == [errors.TOO_SLOW.code, errors.TOO_SLOW.message]


async def test_one_that_reads_nothing_of_its_stream_is_cut_off(monkeypatch):
    """Closing the session is not enough: the answer would wait in memory for as long as the peer likes."""
    monkeypatch.setattr(deadlines, "WRITE_STALL_SECONDS", 0.1)
    bound = Server(port=0, drain_seconds=0, send_queue_bytes=20_000_000)
    async with running(local_settings(server=bound)) as server:
        session = Session(server)
        async with session.stream() as stream:
            await listen(session, stream)
            (entry,) = server.node.clients.open
            assert entry._receiver is not None
            stream._reader._transport.pause_reading()  # type: ignore[attr-defined]
            await publish(server, "x", "x" * 15_000_000)
            await until(lambda: entry._receiver is None)


async def test_one_that_reads_late_but_reads_is_not_cut_off(monkeypatch):
    """Its time runs while it reads nothing, and no more once it does."""
    made, begin = [], http.HttpProtocol.connection_made

    def remember(self, transport):
        made.append(self)
        begin(self, transport)

    def stalled() -> bool:
        return any(protocol._deadlines.stalled for protocol in made)

    monkeypatch.setattr(http.HttpProtocol, "connection_made", remember)
    monkeypatch.setattr(deadlines, "WRITE_STALL_SECONDS", 3600)
    bound = Server(port=0, drain_seconds=0, send_queue_bytes=20_000_000)
    async with running(local_settings(server=bound)) as server:
        session = Session(server)
        async with session.stream() as stream:
            await listen(session, stream)
            (entry,) = server.node.clients.open
            transport = stream._reader._transport  # type: ignore[attr-defined]
            transport.pause_reading()
            await publish(server, "x", "x" * 15_000_000)
            await until(lambda: stalled() and not entry._backlog)
            transport.resume_reading()
            (message,) = await next_messages(stream)
            assert len(message["data"]) == 15_000_000
            await until(lambda: not stalled())
            assert entry._receiver is not None


async def test_a_session_that_ends_twice_says_one_goodbye(server):
    session = Session(server)
    await session.open()
    (entry,) = server.node.clients.open
    entry.close(errors.TERMINATED)
    entry.close(errors.DRAINING)
    entry.enqueue(text_frame(messages.PING))
    said, closed = await session.poll()
    assert [message["data"]["code"] for message in read(said)] == [errors.TERMINATED.code]
    assert json.loads(closed[1:])[0] == errors.TERMINATED.code


async def test_a_session_may_end_while_a_send_arrives(server):
    session = Session(server)
    await session.open()
    (entry,) = server.node.clients.open
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    head = f"POST {session.path}/xhr_send HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\n"
    writer.write(head.encode() + b"[")
    assert await session.push(b"[]") == 204  # by now the other one is being read
    entry._finish()
    writer.write(b"  ]")
    assert b" 404 " in await asyncio.wait_for(reader.readline(), WAIT)
    writer.close()
    await writer.wait_closed()


# --- sending


@pytest.mark.parametrize("body", [b"", b"x", b"{}", b"[1]", b'"x"', b'["\xff"]', b"[" * 10_000])
async def test_a_send_that_is_nonsense_is_refused_and_the_session_stays(server, body):
    session = Session(server)
    await session.open()
    assert await session.push(body) == 400
    assert await session.push(b"[]") == 204


async def test_a_message_that_is_nonsense_is_answered(server):
    session = Session(server)
    await session.open()
    assert await session.push(b'["x", "{}"]') == 204
    assert [(await session.receive())["event"] for _ in range(2)] == ["pusher:error"] * 2


async def test_sends_are_bounded():
    bounds = Server(port=0, drain_seconds=0, max_message_bytes=1_000, max_request_bytes=2_000)
    async with running(local_settings(server=bounds)) as server:
        session = Session(server)
        await session.open()
        assert await session.push(json.dumps(["x" * 1_001]).encode()) == 413
        assert await session.push(json.dumps(["x" * 900] * 3).encode()) == 413
        assert await session.push(b"[]") == 204


async def test_nobody_sends_or_receives_with_another_key_or_another_name():
    other = App(id="2", key="other-key", secret="other")
    async with running(local_settings(apps=(APP, other))) as server:
        session = Session(server)
        await session.open()
        thief = Session(server, other.key)
        thief.path = session.path.replace(APP.key, other.key)
        assert await thief.push(b"[]") == 404
        await thief.open()
        assert thief.socket_id != session.socket_id
        await session.send("pusher:ping", {})
        assert (await session.receive())["event"] == "pusher:pong"


# --- paths and methods


async def test_a_preflight_is_answered(server):
    for action in ("xhr", "xhr_streaming", "xhr_send"):
        target = f"{Session(server).path}/{action}"
        async with exchange(server.port, target, method="OPTIONS", headers={"origin": "http://a"}) as answer:
            assert answer.status == 204
            assert answer.headers["access-control-allow-origin"] == "*"
            assert answer.headers["access-control-allow-methods"] == "POST, OPTIONS"
            assert answer.headers["access-control-allow-headers"] == "Content-Type"
    assert server.node.connections.by_app[APP.id] == 0


async def test_other_methods_and_paths_are_refused(server):
    path = Session(server).path
    for target, method, status in (
        (f"{path}/xhr", "GET", 405),
        (f"{path}/websocket", "POST", 404),
        ("/pusher/app/app-key/1000/0123abuv/xhr", "POST", 404),
        ("/pusher/app/app-key/1/0123abuw/xhr", "POST", 404),
        ("/pusher/app/app-key/1/..%2fabuv/xhr", "POST", 404),
        ("/pusher/xhr", "POST", 404),
    ):
        async with exchange(server.port, target, method=method) as answer:
            assert (target, answer.status) == (target, status)
    assert server.node.connections.by_app[APP.id] == 0


@pytest.mark.parametrize(
    ("changes", "base", "status"),
    [
        ({"path": "/ws"}, "/ws/pusher", 200),
        ({"path": "/ws"}, "/pusher", 404),
        ({"fallback_path": "/other"}, "/other", 200),
        ({"fallback_path": ""}, "", 200),
        ({"fallback": False}, "/pusher", 404),
        ({"reuse_port": True}, "/pusher", 404),
    ],
)
async def test_the_settings_say_where_and_whether(changes, base, status):
    bounds = Server(port=0, drain_seconds=0, **changes)
    async with running(local_settings(server=bounds)) as server:
        session = Session(server, base=base)
        async with exchange(server.port, f"{session.path}/xhr{QUERY}") as answer:
            assert answer.status == status


@hypothesis_settings(max_examples=amount(30, 500))
@given(path=st.binary(max_size=60), body=st.binary(max_size=60), method=st.sampled_from(["POST", "GET"]))
async def test_whatever_is_asked_there_is_one_answer(path, body, method):
    """ASGI by hand, with paths that no HTTP parser would let through."""
    answer = await asked(b"/pusher/app/" + path, method, body)
    assert answer in (404, 405)


async def asked(raw_path: bytes, method: str, body: bytes) -> int:
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None:
        sent.append(message)

    async with running(local_settings()) as server:
        scope = {"raw_path": raw_path, "method": method, "query_string": b"", "headers": []}
        await fallback.Fallback(server.node.context)(scope, receive, send)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    return int(sent[0]["status"])
