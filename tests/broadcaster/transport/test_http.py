"""HTTP/1.1 as peers may speak it to the API, byte for byte."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from typing import TYPE_CHECKING

import pytest

from legato.broadcaster.composition import running
from legato.broadcaster.config import Server
from legato.broadcaster.transport.http11 import HttpProtocol
from legato.protocol.settings import Redis
from tests.broadcaster.api.test_http_api import EVENTS, signed
from tests.broadcaster.conftest import client, local_settings
from tests.waiting import WAIT, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CONNECTIONS = "/apps/1/connections"


class Peer:
    """A connection, and its answers one by one."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def head(self) -> tuple[int, dict[str, str]]:
        async with asyncio.timeout(WAIT):
            lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        fields = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        return int(lines[0].split()[1]), fields

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        status, fields = await self.head()
        async with asyncio.timeout(WAIT):
            body = await self.reader.readexactly(int(fields["content-length"]))
        return status, fields, body

    async def end(self) -> bytes:
        async with asyncio.timeout(WAIT):
            return await self.reader.read()


@contextlib.asynccontextmanager
async def peer(port: int, buffer: int = 0) -> AsyncIterator[Peer]:
    """``buffer``: of the kernel, in bytes; 0 for what is usual."""
    sock = socket.socket()
    if buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=sock)
    try:
        yield Peer(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def event(name: str, *, size: int = 0) -> bytes:
    return json.dumps({"name": name, "channel": "a", "data": "x" * size}).encode()


def post(body: bytes, *fields: str, version: str = "1.1", target: str = "") -> bytes:
    head = [f"POST {target}{signed(EVENTS, body)} HTTP/{version}", "Host: x", f"Content-Length: {len(body)}"]
    return "\r\n".join([*head, *fields, "", ""]).encode() + body


def get(path: str, method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


async def test_requests_in_one_go_are_answered_in_their_order(server):
    """Those to the API and others in turn, some of which wait for Redis and some of which do not."""
    with_info = json.dumps({"name": "2", "channel": "a", "data": "", "info": "subscription_count"}).encode()
    async with client(server.port) as ann, peer(server.port) as one:
        await ann.subscribe("a")
        one.writer.write(
            post(event("1"))
            + get("/up")
            + post(with_info)
            + get("/nowhere")
            + get(signed(CONNECTIONS, b"", method="GET"))
            + post(event("3"))
        )
        answers = [await one.answer() for _ in range(6)]
        assert [status for status, _, _ in answers] == [200, 200, 200, 404, 200, 200]
        assert [json.loads(body) for _, _, body in answers] == [
            {},
            {"health": "OK"},
            {"channels": {"a": {"subscription_count": 1}}},
            {"message": "Not Found"},
            {"connections": 1},
            {},
        ]
        assert all("date" in fields for _, fields, _ in answers)
        assert [(await ann.receive())["event"] for _ in range(3)] == ["1", "2", "3"]


async def test_many_requests_behind_one_that_waits_are_all_answered(server):
    """Those that are answered at once do not begin inside of each other."""
    async with peer(server.port) as one:
        one.writer.write(get(signed("/apps/1/channels", b"", method="GET")) + post(event("one")) * 1200)
        assert [(await one.answer())[0] for _ in range(1201)] == [200] * 1201


async def test_a_body_may_come_in_pieces_and_in_chunks(server):
    async with client(server.port) as ann, peer(server.port) as one:
        await ann.subscribe("a")
        whole = post(event("pieces"))
        for at in range(0, len(whole), 40):
            one.writer.write(whole[at : at + 40])
            await one.writer.drain()
        assert (await one.answer())[0] == 200
        body = event("chunks")
        head = f"POST {signed(EVENTS, body)} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        one.writer.write(head.encode())
        for piece in (body[:7], body[7:], b""):
            one.writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await one.writer.drain()
        assert (await one.answer())[0] == 200
        assert [(await ann.receive())["event"] for _ in range(2)] == ["pieces", "chunks"]


async def test_too_large_a_body_is_refused_before_it_has_come():
    async with running(local_settings(server=Server(port=0, max_request_bytes=1000))) as server:
        async with peer(server.port) as one:
            body = event("large", size=5000)
            whole = post(body)
            one.writer.write(whole[:-2000])
            status, _, told = await one.answer()
            assert (status, json.loads(told)["code"]) == (413, 413)
            one.writer.write(whole[-2000:] + post(event("small")))
            assert (await one.answer())[0] == 200
        assert server.node.requests["events", 413] == 1


async def test_head_has_no_body_and_continue_is_said(server):
    async with peer(server.port) as one:
        one.writer.write(get(signed(CONNECTIONS, b"", method="HEAD"), "HEAD"))
        assert (await one.head())[0] == 405
        body = event("later")
        whole = post(body, "Expect: 100-continue")
        one.writer.write(whole[: -len(body)])
        assert (await one.head())[0] == 100
        one.writer.write(body)
        assert (await one.answer())[0] == 200


@pytest.mark.parametrize(
    "request_",  # signed when it is needed: a signature is soon too old
    [
        lambda: post(event("old"), version="1.0"),
        lambda: post(event("last"), "Connection: close"),
        lambda: get("/up").replace(b"1.1", b"1.0"),
        lambda: get("/up").replace(b"Host: x", b"Connection: close"),
        lambda: get(signed(CONNECTIONS, b"", method="GET")).replace(b"Host: x", b"Connection: close"),
    ],
)
async def test_the_connection_ends_where_the_peer_wants_it(server, request_):
    async with peer(server.port) as one:
        one.writer.write(request_())
        status, fields, _ = await one.answer()
        assert (status, fields["connection"]) == (200, "close")
        assert await one.end() == b""


async def test_an_absolute_address_is_the_same(server):
    async with peer(server.port) as one:
        one.writer.write(post(event("absolute"), target="http://x"))
        assert (await one.answer())[0] == 200
        large = event("large", size=server.node.settings.server.max_request_bytes)
        one.writer.write(post(large, target="http://x"))
        assert (await one.answer())[0] == 413
    async with peer(server.port) as one:
        one.writer.write(post(event("cut off"), target="http://x")[:-5])
        await until(lambda: any(open_.cycle for open_ in http_connections(server)))
        one.writer.transport.abort()
    await until(lambda: not server.uvicorn.server_state.tasks)
    assert server.node.requests["events", 413] == 1


async def test_a_peer_that_does_not_read_its_answers_gets_all_of_them_later():
    """What it has asked for meanwhile waits in the kernel, but for what has been read already."""
    count, names = 1500, [f"{number:03d}".ljust(190, "x") for number in range(40)]
    async with running(local_settings()) as server, client(server.port) as ann:
        for name in names:
            await ann.subscribe(name)
        async with peer(server.port, 4096) as one:
            one.writer.transport.pause_reading()
            request = get(signed("/apps/1/channels", b"", method="GET"))
            one.writer.write(request * count)
            await until(lambda: any(open_.flow.write_paused for open_ in http_connections(server)))
            (open_,) = http_connections(server)
            assert len(open_._buffer.unread) <= 262_144
            assert open_.transport.get_write_buffer_size() < 262_144
            before = server.node.requests["channels", 200]
            async with client(server.port) as bob:  # several turns of the loop
                await bob.send("pusher:ping")
                await bob.receive()
            assert server.node.requests["channels", 200] <= before + 1
            one.writer.transport.resume_reading()
            for _ in range(count):
                status, _, body = await one.answer()
                assert status == 200
                assert len(json.loads(body)["channels"]) == len(names)


def http_connections(server) -> list[HttpProtocol]:
    return [open_ for open_ in server.uvicorn.server_state.connections if isinstance(open_, HttpProtocol)]


async def test_a_peer_that_goes_away_harms_nobody(valkey_url):
    async with running(local_settings(redis=Redis(url=valkey_url))) as server:
        async with peer(server.port) as one:
            one.writer.write(post(event("gone")))
            one.writer.transport.abort()
        async with peer(server.port) as one:
            one.writer.write(post(event("here")))
            assert (await one.answer())[0] == 200
        await until(lambda: server.node.requests["events", 200] >= 1)


@pytest.mark.parametrize("cut", [1, 30, 200])
async def test_a_plain_request_behind_a_part_of_another_is_not_taken_for_the_next(server, cut):
    """What looks like a request is the rest of a body there."""
    inner = post(event("inner"))
    body = json.dumps({"name": "outer", "channel": "a", "data": "x" * 2 * len(inner)}).encode()
    whole = post(body)
    async with client(server.port) as ann, peer(server.port) as one:
        await ann.subscribe("a")
        one.writer.write(whole[: len(whole) - len(inner) - cut])
        await one.writer.drain()
        await until(lambda: any(open_._incomplete is not None for open_ in http_connections(server)))
        one.writer.write(inner)
        await one.writer.drain()
        one.writer.write(b"y" * cut)
        assert (await one.answer())[0] == 401  # not the body that was signed
        one.writer.write(inner)
        assert (await one.answer())[0] == 200
        assert (await ann.receive())["event"] == "inner"
