"""What one peer may take of time, memory and the loop's turns before its request is complete."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import socket
import time

import pytest

from legato.broadcaster.composition import running
from legato.broadcaster.config import Server
from legato.broadcaster.limits import MAX_HELD_BODY_BYTES, READ_SLICE_MESSAGES
from legato.broadcaster.transport import deadlines, framing, lingering_close, websocket
from legato.broadcaster.transport import http11 as http
from tests.broadcaster.api.test_http_api import EVENTS, signed
from tests.broadcaster.conftest import client, local_settings
from tests.broadcaster.transport.fed import door
from tests.broadcaster.transport.test_http import event, get, http_connections, peer, post
from tests.waiting import until

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
    monkeypatch.setattr(deadlines, "BODY_PROGRESS_BYTES", 100)
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
    monkeypatch.setattr(lingering_close, "LINGERING_CLOSE_BYTES", 100_000)
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


async def test_a_peer_that_resets_the_connection_at_its_end_is_no_fault(monkeypatch):
    """The last answer makes the system notice it, right before the end is written."""

    def reset() -> None:
        raise OSError(errno.ENOTCONN, "not connected")

    async with door() as opened:
        one = opened.come()
        monkeypatch.setattr(one, "can_write_eof", lambda: True)
        monkeypatch.setattr(one, "write_eof", reset)
        one.read(b"no request\r\n\r\n")
        assert one.written.startswith(b"HTTP/1.1 400 ")
        assert isinstance(one.protocol, lingering_close.LingeringClose)
        one.protocol.connection_lost(None)
        assert not opened.state.connections


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
            assert one.written.count(b"HTTP/1.1 ") - before <= READ_SLICE_MESSAGES
        slices = count_slices(opened, one)
        await opened.calm()
        assert max(slices, default=0) <= READ_SLICE_MESSAGES
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
            most = max([most, *(len(open_._buffer.unread) for open_ in http_connections(server))])
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


async def test_reading_pauses_at_once_when_a_request_waits_for_an_answer(monkeypatch):
    """Also on a quiet server: else a peer could have us keep as much as it sends until the answer."""
    async with door() as opened:
        one, paused = opened.come(), []
        monkeypatch.setattr(one, "pause_reading", lambda: paused.append(True))
        monkeypatch.setattr(one, "resume_reading", lambda: paused.append(False))
        one.read(get("/up"))  # answered by an ASGI application, in a later turn of the loop
        assert paused == []
        one.read(get("/up"))
        assert paused == [True]
        await opened.calm()
        assert paused == [True, False]
        assert one.written.count(b"HTTP/1.1 200 ") == 2
        one.protocol.connection_lost(None)


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


SPLIT = {
    "unsigned": (b"POST /apps/1/events HTTP/1.1\r\nContent-Length: 4\r\n\r\n", [b"ab", b"cd"]),
    "too large": (b"POST /apps/1/events HTTP/1.1\r\nContent-Length: 9999999\r\n\r\n", [b"ab"] * 9),
    "in chunks": (
        b"POST /apps/1/events HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        [b"1\r\na\r\n"] * 9 + [b"0\r\n\r\n"],
    ),
}


@pytest.mark.parametrize("kind", SPLIT)
async def test_a_request_has_one_answer_also_when_that_waits_for_the_peer(kind):
    """Another one would be taken for the answer to the next request."""
    head, body = SPLIT[kind]
    async with door() as opened:
        one = opened.come()
        one.read(get("/apps/1/nowhere"))
        one.written = b""
        one.protocol.pause_writing()
        one.read(head)
        for piece in body:
            one.read(piece)
        await asyncio.sleep(0)
        assert len(opened.state.tasks) <= 1
        one.protocol.resume_writing()
        await opened.calm()
        assert one.written.count(b"HTTP/1.1 ") == 1
        if kind != "too large":
            one.read(get("/apps/1/nowhere"))
            await opened.calm()
            assert one.written.count(b"HTTP/1.1 404 ") == 1
        one.protocol.connection_lost(None)


async def test_too_large_a_body_is_not_read_on_while_its_answer_waits(monkeypatch):
    """What comes of it would never end, and neither would what is kept of it."""
    async with door() as opened:
        one, paused = opened.come(), []
        monkeypatch.setattr(one, "pause_reading", lambda: paused.append(True))
        monkeypatch.setattr(one, "resume_reading", lambda: paused.append(False))
        one.read(get("/apps/1/nowhere"))
        body = b"x" * 3000
        target = signed(EVENTS, body).encode()
        one.read(b"POST %b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" % target)
        one.protocol.api.max_body = 1000
        one.protocol.pause_writing()
        one.written = b""
        for _ in range(20):
            one.read(b"1f4\r\n%b\r\n" % (b"x" * 500))
            if paused[-1:] == [True]:
                break
            await asyncio.sleep(0)
        assert paused[-1:] == [True]
        assert len(opened.state.tasks) == 1
        one.protocol.resume_writing()
        await opened.calm()
        assert one.written.count(b"HTTP/1.1 413 ") == 1
        one.protocol.connection_lost(None)


async def test_an_application_that_takes_nothing_of_a_body_stops_the_peer(monkeypatch):
    """Else what it sends would be kept without end."""
    async with door() as opened:
        one, paused, taken = opened.come(), [], asyncio.Event()
        monkeypatch.setattr(one, "pause_reading", lambda: paused.append(True))
        monkeypatch.setattr(one, "resume_reading", lambda: paused.append(False))
        size = 0

        async def application(_scope, receive, send) -> None:
            nonlocal size
            await taken.wait()
            more = True
            while more:
                message = await receive()
                size, more = size + len(message["body"]), message["more_body"]
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        one.read(b"POST /nowhere HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n"[:-2])
        monkeypatch.setattr(one.protocol._config, "loaded_app", application)
        one.read(b"\r\n")
        sent = 0
        while paused[-1:] != [True]:
            one.read(b"x" * 10_000)
            sent += 10_000
            assert sent <= 2 * MAX_HELD_BODY_BYTES
            await asyncio.sleep(0)
        for _ in range(10):  # turns of the loop in which it could go on
            await asyncio.sleep(0)
        assert paused[-1:] == [True]
        taken.set()
        await until(lambda: paused[-1:] == [False])
        one.read(b"x" * (1_000_000 - sent))
        await opened.calm()
        assert size == 1_000_000
        assert one.written.startswith(b"HTTP/1.1 200 ")
        one.protocol.connection_lost(None)


async def test_a_websocket_does_not_begin_while_the_peer_takes_nothing():
    """It would not know that, and write without end."""
    async with door() as opened:
        one = opened.come()
        one.read(get("/apps/1/nowhere"))
        protocol = one.protocol
        protocol.pause_writing()
        one.read(
            b"GET /app/app-key HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        await opened.calm()
        assert one.protocol is protocol
        protocol.resume_writing()
        await opened.calm()
        assert one.protocol is not protocol
        assert b"HTTP/1.1 101 " in one.written
        assert not protocol._deadlines.stalled
        one.protocol.connection_lost(None)


@pytest.mark.parametrize(
    "last",
    [
        b"",
        b"no request\r\n\r\n",
        b"GET /up HTTP/1.1\r\nConnection: close\r\n\r\n",
        b"GET /apps/1/nowhere HTTP/1.1\r\nConnection: close\r\n\r\n",
        b"GET /app/app-key HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    ],
)
async def test_the_end_does_not_wait_for_a_peer_that_takes_nothing(last, monkeypatch):
    """Not even when so little is to be written that it does not count as slow."""
    monkeypatch.setattr(deadlines, "WRITE_STALL_SECONDS", 0.2)
    monkeypatch.setattr(lingering_close, "LINGERING_CLOSE_SECONDS", 0.1)
    monkeypatch.setattr(websocket, "CLOSE_HANDSHAKE_SECONDS", 0.2)
    settings = local_settings(server=Server(port=0, drain_seconds=0, keep_alive=1))
    async with running(settings) as server, peer(server.port, buffer=2048) as one:
        one.writer.transport.pause_reading()
        one.writer.write(get("/nowhere"))
        await until(lambda: http_connections(server))
        (open_,) = http_connections(server)
        # So that the kernel takes little of it, whatever its buffers are.
        open_.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        open_.transport.write(b"x" * 40_000)  # as if it had asked for so much
        assert open_.transport.get_write_buffer_size()
        assert not open_.flow.write_paused
        one.writer.write(last)
        await until(lambda: not server.uvicorn.server_state.connections)


PARTED = {
    "path": b"/apps/1/" + b"%41/" * 253,
    "query": b"/apps/1/channels?" + b"a[]=&" * 253,
    "query of others": b"/up?" + b"%41&" * 255,
    "websocket": b"/app/app-key?" + b"a[]=&" * 254,
}
UPGRADE = (
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)


@pytest.mark.parametrize("what", PARTED)
@pytest.mark.parametrize("more", [b"", b"/", b"&"])
async def test_an_address_has_so_many_parts_and_no_more(server, what, more):
    """To decode 64 KB of small parts takes a tenth of a second."""
    upgrade = UPGRADE if what == "websocket" else b""
    async with peer(server.port) as one:
        one.writer.write(b"GET %b%b HTTP/1.1\r\n%b\r\n" % (PARTED[what], more, upgrade))
        status, _ = await one.head()
        assert (status == 414) == bool(more)


@pytest.mark.parametrize(
    "target", [b"/apps/1/%", b"/apps/1/%4", b"/up?%zz", b"/app/app-key?x=%-1", b"/app/%%%"]
)
@pytest.mark.parametrize("kind", ["get", "post", "websocket"])
async def test_a_percent_sign_begins_an_escape(server, target, kind):
    """Others take ten times as long to decode, and mean nothing in an address (RFC 3986, 2.1)."""
    method, more = {
        "get": (b"GET", b""),
        "post": (b"POST", b"Content-Length: 0\r\n"),
        "websocket": (b"GET", UPGRADE),
    }[kind]
    async with peer(server.port) as one:
        one.writer.write(b"%b %b HTTP/1.1\r\n%b\r\n" % (method, target, more))
        assert (await one.head())[0] == 400


@pytest.mark.parametrize("target", ["/apps/1/", "/up?x="])
async def test_an_address_has_so_many_escapes_and_no_more(server, target):
    async with peer(server.port) as one:
        one.writer.write(get(target + "%41" * framing.MAX_URL_ESCAPES))
        assert (await one.answer())[0] != 414
        one.writer.write(get(target + "%41" * (framing.MAX_URL_ESCAPES + 1)))
        assert (await one.answer())[0] == 414


async def test_what_is_read_at_once_counts_by_its_size():
    """Otherwise many connections with large heads have a turn of the loop that is as long as all of them."""
    head = get("/apps/1/nowhere?" + "x" * 10_000)
    async with door() as opened:
        budget, readers = opened.node.context.budget, [opened.come() for _ in range(3)]
        first, second, third = readers
        budget.left, budget._began = (
            READ_SLICE_MESSAGES,
            0.0,
        )  # this turn's time is over, but nobody has looked
        first.read(head)
        assert b"HTTP/1.1 404 " in first.written
        second.read(head)
        third.read(head[:1])
        third.read(head[1:])
        assert not second.written
        assert not third.written
        await opened.calm()
        for one in readers:
            assert one.written.count(b"HTTP/1.1 404 ") == 1
            one.protocol.connection_lost(None)


async def test_the_rest_of_a_large_head_counts_by_its_size():
    head = get("/apps/1/nowhere?" + "x" * 10_000)
    async with door() as opened:
        budget, one = opened.node.context.budget, opened.come()
        one.read(head[:1])
        budget.left, budget._began = READ_SLICE_MESSAGES, 0.0
        one.read(head[1:])
        assert not one.written
        await opened.calm()
        assert one.written.count(b"HTTP/1.1 404 ") == 1
        one.protocol.connection_lost(None)
