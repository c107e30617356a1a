"""Requests for upgrades to what the server does not speak: the header is ignored, and the body is kept."""

from __future__ import annotations

import json

import pytest

from tests.broadcaster.api.test_http_api import EVENTS, signed
from tests.broadcaster.conftest import client
from tests.broadcaster.transport.fed import door
from tests.broadcaster.transport.test_http import event, peer
from tests.broadcaster.transport.test_plain import FIREFOX, masked
from tests.waiting import until

H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n"
UPGRADES = [
    H2C,
    b"Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n",
    b"Upgrade: h2c, websocket\r\nConnection: upgrade\r\n",
    b"Upgrade: websocket\r\nUpgrade: h2c\r\nConnection: upgrade\r\n",
]
ON_CHANNEL = "/apps/1/channels/a/events"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"


def whole(method: str, target: str, fields: bytes, body: bytes, *, chunked: bool = False) -> bytes:
    head = f"{method} {target} HTTP/1.1\r\nHost: x\r\n".encode() + fields
    if not chunked:
        return head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    middle = len(body) // 2
    parts = [b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:middle], body[middle:]) if part]
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join([*parts, b"0\r\n\r\n"])


def cuts(data: bytes) -> dict[str, list[bytes]]:
    """Ways in which it may come."""
    head = data.index(b"\r\n\r\n") + 4
    return {
        "at once": [data],
        "head first": [data[:head], data[head:]],
        "in the body": [data[: head + 5], data[head + 5 :]],
        "byte by byte": [data[at : at + 1] for at in range(len(data))],
    }


@pytest.mark.parametrize("fields", UPGRADES)
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("how", ["at once", "head first", "in the body", "byte by byte"])
@pytest.mark.parametrize("path", [EVENTS, ON_CHANNEL])
async def test_a_body_is_published_whatever_upgrade_is_asked_for(fields, chunked, how, path):
    body = event("x") if path == EVENTS else SMUGGLED
    target = signed(path, body, **({} if path == EVENTS else {"name": "x"}))
    async with door() as opened:
        told = []
        opened.node.bus.post = told.extend  # type: ignore[method-assign, assignment]
        one = opened.come()
        for piece in cuts(whole("POST", target, fields, body, chunked=chunked))[how]:
            one.read(piece)
        await opened.calm()
        assert one.written.count(b"HTTP/1.1 ") == one.written.count(b"HTTP/1.1 20") == 1
        assert not one.ended
        ((_, envelope),) = told
        data = json.loads(envelope.payload)["data"]
        assert data == ("" if path == EVENTS else SMUGGLED.decode())
        one.protocol.connection_lost(None)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH"])
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(
    "target", ["/up", "/nowhere", "/apps/1/events", "/pusher/app/app-key/1/abcdefgh/xhr_send"]
)
@pytest.mark.parametrize("how", ["at once", "head first", "in the body"])
async def test_no_body_is_read_as_another_request(method, chunked, target, how):
    async with door() as opened:
        one = opened.come()
        for piece in cuts(whole(method, target, H2C, SMUGGLED, chunked=chunked))[how]:
            one.read(piece)
            await opened.calm()
        assert one.written.count(b"HTTP/1.1 ") == 1
        closes = b"connection: close" in one.written  # answered before it knew where the body ends
        assert closes == (chunked and how != "at once")
        if not closes:
            one.read(b"GET /up HTTP/1.1\r\nHost: x\r\n\r\n")
            await opened.calm()
            assert one.written.count(b"HTTP/1.1 ") == 2
            assert one.written.endswith(b'{"health":"OK"}')
        one.protocol.connection_lost(None)


async def test_connect_is_refused_with_all_that_is_behind_it():
    async with door() as opened:
        for pieces in cuts(
            b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\nContent-Length: 37\r\n\r\n" + SMUGGLED
        ).values():
            one = opened.come()
            for piece in pieces:
                one.read(piece)
            await opened.calm()
            assert one.written.startswith(b"HTTP/1.1 405 ")
            assert one.written.count(b"HTTP/1.1 ") == 1
            one.protocol.connection_lost(None)


async def test_a_body_of_another_md5_is_refused_on_a_channel(server):
    """Also an empty one: whoever gives an MD5 wants it checked."""
    async with client(server.port) as ann, peer(server.port) as one:
        await ann.subscribe("a")
        for body in (b"", b"other"):
            target = signed(ON_CHANNEL, b"text", name="x")
            one.writer.write(whole("POST", target, b"", body))
            assert (await one.answer())[0] == 401
        one.writer.write(whole("POST", signed(ON_CHANNEL, b"text", name="x"), H2C, b"text"))
        assert (await one.answer())[0] == 202
        assert (await ann.receive())["data"] == "text"
        await until(lambda: server.node.requests["channels/*/events", 401] == 2)


async def test_what_comes_right_behind_the_request_for_a_websocket_is_read():
    """A client that does not wait for the answer."""
    async with door() as opened:
        one = opened.come()
        one.read(FIREFOX + masked(0x81, b'{"event":"pusher:ping","data":{}}', b"mask"))
        await opened.calm()
        assert one.written.startswith(b"HTTP/1.1 101 ")
        assert b"pusher:pong" in one.written
        one.protocol.connection_lost(None)
