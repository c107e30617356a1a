"""What one peer may take of time, memory and the loop's turns before its request is complete."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time

import pytest

from legato.broadcaster.composition import running
from legato.broadcaster.config import Server
from legato.broadcaster.transport import deadlines, farewell
from legato.broadcaster.transport import http11 as http
from legato.broadcaster.transport.budget import SLICE
from tests.broadcaster.conftest import client, local_settings, until
from tests.broadcaster.fed import door
from tests.broadcaster.test_http import event, get, http_connections, peer, post
from tests.broadcaster.test_http_api import EVENTS, signed

SOON = Server(port=0, drain_seconds=0, request_seconds=0.3)
UNSIGNED = b"POST /apps/1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 1048576\r\n\r\n"


@pytest.mark.parametrize(
    "start",
    [
        b"G",
        b"GET /up HTTP/1.1\r\nHost: x\r\n",
        b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\nX: ",
        lambda: post(event("late", size=3000))[:-1],
        lambda: post(event("late"), target="http://x")[:-1],
        b"POST /api/chat/send HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
    ],
)
async def test_a_request_that_does_not_become_complete_ends(start):
    data = start() if callable(start) else start
    async with running(local_settings(server=SOON)) as server, peer(server.port) as one:
        one.writer.write(data)
        status, fields, _ = await one.answer()
        if data.startswith(b"POST /api"):  # it has no token, and need not say more
            assert (status, fields["connection"]) == (401, "close")
        else:
            assert (status, fields["connection"]) == (408, "close")
        assert await one.end() == b""
        one.writer.transport.abort()
        await until(lambda: not http_connections(server) and not server.uvicorn.server_state.tasks)


async def test_a_deadline_moves_with_what_comes(monkeypatch):
    """An upload may be slow, as long as it goes on; all together it takes far longer than one deadline."""
    monkeypatch.setattr(deadlines, "PROGRESS_BYTES", 100)
    settings = local_settings(server=Server(port=0, drain_seconds=0, request_seconds=1))
    async with running(settings) as server, peer(server.port) as one:
        data, begun = post(event("slow", size=4000)), time.monotonic()
        one.writer.write(data[:-4000])
        for at in range(len(data) - 4000, len(data), 100):
            await asyncio.sleep(0.06)  # the line is slow
            one.writer.write(data[at : at + 100])
        assert (await one.answer())[0] == 200
        assert time.monotonic() - begun > 1


async def test_a_trickle_is_no_progress():
    async with running(local_settings(server=SOON)) as server, peer(server.port) as one:
        one.writer.write(post(event("slow", size=9000))[:-9000])
        answer = asyncio.ensure_future(one.answer())
        while not answer.done():
            one.writer.write(b"x")
            await asyncio.sleep(0.01)
        assert answer.result()[0] == 408


async def test_an_idle_connection_has_a_deadline_of_its_own():
    async with running(local_settings(server=SOON)) as server, peer(server.port) as one:
        one.writer.write(get("/up"))
        assert (await one.answer())[0] == 200
        (open_,) = http_connections(server)
        assert open_._deadlines.due is None
        one.writer.write(get("/up")[:5])
        await until(lambda: open_._deadlines.due is not None)
        one.writer.write(get("/up")[5:])
        assert (await one.answer())[0] == 200
        assert open_._deadlines.due is None


async def test_a_request_that_waits_for_us_has_no_deadline(monkeypatch):
    async with running(local_settings(server=SOON)) as server, peer(server.port) as one:
        answers = []
        monkeypatch.setattr(type(server.node.bus), "post", lambda *_: _later(answers))
        one.writer.write(post(event("a")) + post(event("b"))[:-1])
        await until(lambda: answers)
        await asyncio.sleep(2 * SOON.request_seconds)  # longer than the peer would have
        assert http_connections(server)
        answers[0].set_result(None)
        assert (await one.answer())[0] == 200
        assert (await one.answer())[0] == 408


def _later(answers: list[asyncio.Future[None]]) -> asyncio.Future[None]:
    answers.append(asyncio.get_running_loop().create_future())
    return answers[-1]


@pytest.mark.parametrize("secret", ["wrong", ""])
@pytest.mark.parametrize("absolute", [False, True])
async def test_who_has_not_signed_does_not_send_a_body(server, secret, absolute):
    """Nothing is kept for one who could be anybody; Expect is not answered with Continue."""
    async with peer(server.port) as one:
        data = UNSIGNED.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n")
        if secret:
            target = signed(EVENTS, b"x").encode().replace(b"auth_signature=", b"auth_signature=0")
            data = data.replace(b"/apps/1/events", target)
        if absolute:
            data = data.replace(b"POST /", b"POST http://x/")
        one.writer.write(data)
        status, fields, _ = await one.answer()
        assert (status, fields["connection"]) == (401, "close")


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ({"auth_timestamp": "1"}, "Timestamp expired"),
        ({"auth_version": "2"}, "auth_version must be 1.0"),
        ({"body_md5": ""}, "body_md5 is missing or not the MD5 of the body"),
    ],
)
async def test_parameters_are_checked_before_the_body(server, query, reason):
    async with peer(server.port) as one:
        target = signed(EVENTS, b"x" * 100, **query)
        one.writer.write(f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n".encode())
        status, fields, told = await one.answer()
        assert (status, json.loads(told)["error"]) == (401, reason)
        assert "connection" not in fields  # so little is read past
        one.writer.write(b"x" * 100 + get("/up"))
        assert (await one.answer())[0] == 200


async def test_an_announced_length_is_refused_at_once(server):
    async with peer(server.port) as one:
        target = signed(EVENTS, b"x")
        one.writer.write(f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n".encode())
        status, fields, _ = await one.answer()
        assert (status, fields["connection"]) == (413, "close")


async def test_chunks_are_refused_when_they_are_too_many():
    settings = local_settings(server=Server(port=0, drain_seconds=0, max_request_bytes=1000))
    async with running(settings) as server, peer(server.port) as one:
        target = signed(EVENTS, b"x")
        one.writer.write(f"POST {target} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        one.writer.write(b"1f4\r\n%b\r\n" % (b"x" * 500) * 3)
        status, fields, _ = await one.answer()
        assert (status, fields["connection"]) == (413, "close")


ENDLESS = {
    "url": (b"GET /", b"x" * 1000, 431),
    "one field": (b"GET / HTTP/1.1\r\nX: ", b"x" * 1000, 431),
    "fields": (b"GET / HTTP/1.1\r\n", b"X: y\r\n" * 100, 431),
    "empty lines": (b"", b"\r\n" * 500, 400),
    "trailers": (
        b"POST /nowhere HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
        b"X: yyyyyy\r\n" * 100,
        404,
    ),
    "trailer": (b"POST /nowhere HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ", b"y" * 1000, 404),
    "extension": (b"POST /nowhere HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"y" * 1000, 404),
    "body": (b"POST /nowhere HTTP/1.1\r\nContent-Length: 999999999\r\n\r\n", b"y" * 1000, 404),
    "chunks": (b"POST /nowhere HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\ny\r\n" * 150, 404),
}


@pytest.mark.parametrize("what", ENDLESS)
async def test_what_never_ends_is_ended(server, what, monkeypatch):
    """After one answer, and long before it has been taken."""
    monkeypatch.setattr(farewell, "BYTES", 100_000)
    start, more, expected = ENDLESS[what]
    async with peer(server.port) as one:
        one.writer.write(start)
        sent = 0
        ended = asyncio.ensure_future(_all(one))
        while not one.writer.transport.is_closing():
            one.writer.write(more)
            sent += len(more)
            assert sent < 50_000_000
            await asyncio.sleep(0)
        await until(lambda: not http_connections(server))
        answer = await ended
        assert answer.startswith(b"HTTP/1.1 %d " % expected)
        assert answer.count(b"HTTP/1.1 ") == 1


async def _all(one) -> bytes:
    """Whatever is read until the connection ends, in whatever way."""
    read = b""
    with contextlib.suppress(OSError):
        while more := await one.reader.read(1000):
            read += more
    return read


async def test_the_last_answer_is_seen_by_one_who_goes_on_sending(server):
    async with peer(server.port) as one:
        one.writer.write(UNSIGNED)
        one.writer.write(b"x" * 1_000_000)
        status, _, told = await one.answer()
        assert (status, json.loads(told)["code"]) == (401, 401)
        assert await one.end() == b""


async def test_one_waits_for_its_turn_and_is_then_told_to_continue(server):
    async with peer(server.port) as one:
        body = event("later")
        whole = post(body, "Expect: 100-continue")
        one.writer.write(get(signed("/apps/1/channels", b"", method="GET")) + whole[: -len(body)])
        assert (await one.answer())[0] == 200
        assert (await one.head())[0] == 100
        one.writer.write(body)
        assert (await one.answer())[0] == 200


PIPELINED = {
    "unsigned": b"POST /apps/1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
    "unsigned without a body": b"POST /apps/1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    "not there": b"GET /apps/1/nowhere HTTP/1.1\r\nHost: x\r\n\r\n",
    "asgi": get("/up"),
    "asgi, not there": get("/nowhere"),
    "fallback": b"POST /pusher/app/app-key/123/abcdefgh/xhr_send HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
}


def count_slices(opened, one) -> list[int]:
    """How many answers each slice from now on has written."""
    slices, give = [], opened.node.context.budget._give_slice

    def counted(reader) -> None:
        before = one.written.count(b"HTTP/1.1 ")
        give(reader)
        slices.append(one.written.count(b"HTTP/1.1 ") - before)

    opened.node.context.budget._give_slice = counted
    return slices


@pytest.mark.parametrize("kind", PIPELINED)
@pytest.mark.parametrize("piece", [7, 262_144])
async def test_pipelined_requests_are_read_in_slices(kind, piece):
    """A read answers no more than a slice of them, as does a turn: the rest waits, and is answered, too."""
    count = 200
    data = PIPELINED[kind] * count
    async with door() as opened:
        one = opened.come()
        for at in range(0, len(data), piece):
            before = one.written.count(b"HTTP/1.1 ")
            one.read(data[at : at + piece])
            assert one.written.count(b"HTTP/1.1 ") - before <= SLICE
        slices = count_slices(opened, one)
        await opened.calm()
        assert max(slices, default=0) <= SLICE
        assert one.written.count(b"HTTP/1.1 ") == count
        one.protocol.connection_lost(None)


@pytest.mark.parametrize("kind", PIPELINED)
async def test_reading_pauses_while_requests_wait(kind):
    """So that no more than one read of them is kept; others have their turns meanwhile."""
    data = PIPELINED[kind] * (4_000_000 // len(PIPELINED[kind]))
    async with running(local_settings()) as server, client(server.port) as ann, peer(server.port) as one:
        one.writer.write(data)
        answered = asyncio.ensure_future(_count(one, data.count(b"HTTP/1.1")))
        most, turns = 0, 0
        while not answered.done():
            await ann.send("pusher:ping")
            await ann.receive()
            turns += 1
            most = max([most, *(len(open_._unread) for open_ in http_connections(server))])
            if turns == 20:
                one.writer.transport.abort()
                answered.cancel()
                break
        assert turns == 20
        assert 0 < most <= 2 * 262_144


async def _count(one, count: int) -> None:
    seen = b""
    for _ in range(count):
        seen = await one.reader.read(65_536)
        if not seen:
            return


async def test_reading_pauses_for_as_long_as_something_is_unread(monkeypatch):
    """And what pauses because of us has no deadline."""
    async with door() as opened:
        one, paused = opened.come(), []
        monkeypatch.setattr(one, "pause_reading", lambda: paused.append(True))
        monkeypatch.setattr(one, "resume_reading", lambda: paused.append(False))
        one.read(PIPELINED["unsigned"] * 100)
        assert paused == [True]
        protocol = one.protocol
        assert isinstance(protocol, http.HttpProtocol)
        protocol._deadlines.due = opened.node.context.loop.time() - 1  # as if it had begun long ago
        protocol._deadlines.look()
        assert protocol._deadlines.due > opened.node.context.loop.time()
        await opened.calm()
        assert paused == [True, False]
        assert one.written.count(b"HTTP/1.1 401 ") == 100
        one.read(get("/up")[:-1])
        protocol._deadlines.due = opened.node.context.loop.time() - 1
        protocol._deadlines.look()
        assert one.written.count(b"HTTP/1.1 408 ") == 1
        protocol.connection_lost(None)
