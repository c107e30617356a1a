"""A node with all doors, a bare HTTP client, and a worker's hand that writes replies."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

import jwt
import pytest

from legato.broadcaster.composition import running
from legato.broadcaster.config import Auth, Chat
from legato.broadcaster.doors.settings import DOORS, DoorSettings
from legato.broadcaster.redis_client import redis_client
from legato.protocol.settings import Redis
from tests.broadcaster.conftest import local_settings
from tests.waiting import WAIT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SECRET = "a secret of more than thirty-two bytes"


def bearer(sub: Any = 7) -> dict[str, str]:
    return {"authorization": "Bearer " + jwt.encode({"sub": sub, "exp": 2**32}, SECRET)}


def open_settings(url: str, **doors: Any) -> Any:
    return local_settings(
        redis=Redis(url=url),
        auth=Auth(jwt_secret=SECRET),
        chat=Chat(doors=DOORS),
        doors=DoorSettings(**doors),
    )


@pytest.fixture
async def redis(valkey_url) -> AsyncIterator[Any]:
    async with redis_client(valkey_url) as connected:
        yield connected


@pytest.fixture
async def server(valkey_url) -> AsyncIterator[Any]:
    async with running(open_settings(valkey_url, disconnect_grace=0.05)) as started:
        yield started


class Answer:
    """An answer that is read as it comes. ``broken``: it was cut off before its last chunk."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.broken = False

    async def head(self) -> None:
        lines = (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        self.status = int(lines[0].split()[1])
        self.headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)

    async def chunk(self) -> bytes:
        """The next chunk; empty at the end."""
        try:
            size = int(await self._reader.readuntil(b"\r\n"), 16)
            data = (await self._reader.readexactly(size + 2))[:-2]
        except asyncio.IncompleteReadError:
            self.broken = True
            return b""
        self.body += data
        return data

    async def until(self, text: bytes) -> bytes:
        """Read until the body has this text."""
        async with asyncio.timeout(WAIT):
            while text not in self.body:
                assert await self.chunk(), self.body
        return self.body

    async def rest(self) -> bytes:
        """Read to the end."""
        async with asyncio.timeout(WAIT):
            if "content-length" in self.headers:
                self.body = await self._reader.readexactly(int(self.headers["content-length"]))
            elif self.status not in (204, 304):
                while await self.chunk():
                    pass
        return self.body

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        return json.loads(self.body)


@contextlib.asynccontextmanager
async def asking(
    server: Any, method: str, path: str, body: Any = None, headers: Any = None
) -> AsyncIterator[Answer]:
    """A request whose answer is read as it comes. The connection closes with the block."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    payload = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = {"host": "x"} | (bearer() if headers is None else headers)
    async with asking_over(reader, writer, f"{method} {path}", payload, fields) as answer:
        yield answer


@contextlib.asynccontextmanager
async def asking_over(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    line: str,
    payload: bytes,
    fields: dict[str, str],
) -> AsyncIterator[Answer]:
    """A request over a connection, which closes with the block. ``line``: method and path."""
    fields = {"content-length": str(len(payload))} | fields
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    writer.write(f"{line} HTTP/1.1\r\n{head}\r\n".encode() + payload)
    answer = Answer(reader, writer)
    try:
        async with asyncio.timeout(WAIT):
            await answer.head()
        yield answer
    finally:
        writer.close()


async def ask(server: Any, method: str, path: str, body: Any = None, headers: Any = None) -> Answer:
    """A request with its whole answer."""
    async with asking(server, method, path, body, headers) as answer:
        await answer.rest()
    return answer
