"""A small Pusher server that does not always do what it should."""

from __future__ import annotations

import asyncio
import json
import re
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from legato.benchmarks.load.frames import take_apart
from legato.protocol import signatures
from tests.benchmarks.test_frames import server_frame

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

KEYS = {"key": "secret"}


class FakeServer:
    """Delivers to everybody. ``copies``: of each event by number, how often it is sent; one if not said.

    :ivar stall: seconds before the first request is answered.
    :ivar refuse: HTTP status of requests, by number.
    :ivar keep_alive: whether HTTP connections go on.
    """

    def __init__(self) -> None:
        self.copies: dict[int, int] = {}
        self.refuse: dict[int, int] = {}
        self.stall = 0.0
        self.keep_alive = True
        self.port = 0
        self.requests = self.connections = 0
        self._sockets: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                if "Upgrade: websocket" in head:
                    await self._websocket(reader, writer)
                    return
                await self._request(head, reader, writer)
                if not self.keep_alive:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _websocket(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
        data = json.dumps({"socket_id": "1.1", "activity_timeout": 120})
        established = {"event": "pusher:connection_established", "data": data}
        writer.write(server_frame(json.dumps(established).encode()))
        await reader.readexactly(2)
        subscribed = {"event": "pusher_internal:subscription_succeeded", "channel": "c", "data": "{}"}
        writer.write(server_frame(json.dumps(subscribed).encode()))
        self._sockets.append(writer)
        while await reader.read(1000):
            pass
        self._sockets.remove(writer)

    async def _request(self, head: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = re.search(r"Content-Length: (\d+)", head)
        assert length
        body = await reader.readexactly(int(length[1]))
        target = urlsplit(head.split()[1])
        params = signatures.parse_query(target.query.encode())
        signatures.verify_request(KEYS, "POST", (target.path,), params, body, time.time())
        number, self.requests = self.requests, self.requests + 1
        if number == 0:
            await asyncio.sleep(self.stall)
        status = self.refuse.get(number, 200)
        if status == 200:
            self._deliver(number, body)
        connection = "" if self.keep_alive else "Connection: close\r\n"
        writer.write(f"HTTP/1.1 {status} Whatever\r\n{connection}Content-Length: 2\r\n\r\n{{}}".encode())

    def _deliver(self, number: int, body: bytes) -> None:
        told = json.loads(body)
        text = json.dumps({"event": told["name"], "channel": told["channel"], "data": told["data"]})
        frame = server_frame(text.encode())
        assert take_apart(frame).times
        for socket in self._sockets:
            socket.write(frame * self.copies.get(number, 1))


@asynccontextmanager
async def fake_server() -> AsyncIterator[FakeServer]:
    """One, listening."""
    fake = FakeServer()
    server = await asyncio.start_server(fake.serve, "127.0.0.1", 0)
    fake.port = server.sockets[0].getsockname()[1]
    try:
        yield fake
    finally:
        server.close()
        for socket in list(fake._sockets):
            socket.close()
