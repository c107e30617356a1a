"""A webhook's receiver: a small HTTP/1.1 server that remembers what it gets and answers as it is told."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Callable

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Received(NamedTuple):
    """One request; header names are in lower case."""

    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def events(self) -> list[dict[str, Any]]:
        return json.loads(self.body)["events"]

    @property
    def time_ms(self) -> int:
        return json.loads(self.body)["time_ms"]


def status(code: int, *headers: str) -> bytes:
    """An answer without a body."""
    return "\r\n".join([f"HTTP/1.1 {code} Whatever", *headers, "Content-Length: 0", "\r\n"]).encode()


class Receiver:
    """``answer`` maps a request to the bytes to answer with; None is silence, for as long as it is asked."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.connections = 0
        self.answer: Callable[[Received], bytes | None] = lambda _: OK
        self.port = 0
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def events(self) -> list[dict[str, Any]]:
        """Of all requests, in order."""
        return [event for received in self.received for event in received.events]

    @property
    def names(self) -> list[str]:
        return [event["name"] for event in self.events]

    @contextlib.asynccontextmanager
    async def listening(self, listener: socket.socket | None = None) -> AsyncIterator[None]:
        """Accept connections on a free port, or on a socket that is bound already."""
        where: dict[str, Any] = {"sock": listener} if listener else {"host": "127.0.0.1", "port": 0}
        server = await asyncio.start_server(self._serve, **where)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            server.close()
            for writer in list(self._writers):
                writer.transport.abort()
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            while received := await self._read(reader):
                self.received.append(received)
                answer = self.answer(received)
                if answer is not None:
                    writer.write(answer)
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> Received:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {}
        for line in head[1:-2]:
            name, _, value = line.partition(":")
            assert name.lower() not in headers, "a header twice"
            headers[name.lower()] = value.strip()
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        return Received(head[0].split(" ")[1], headers, body)
