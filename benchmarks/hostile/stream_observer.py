"""A well-behaved client over the HTTP fallback (``xhr_streaming``)."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Final

from legato.protocol.fallback import STREAM_LIMIT

from .by_fallback import OPEN, session_path
from .by_http import request
from .observers import CHANNELS, Follower

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from .observers import ServerAddress

LIMIT: Final = 1 << 20
END_OF_HEAD: Final = b"\r\n\r\n"


class StreamObserver(Follower):
    """Receives messages as lines of a streamed response, and sends each in its own request."""

    def __init__(self, place: ServerAddress) -> None:
        super().__init__(place, "observer over HTTP")
        self._path = session_path(place.target.key)
        self._messages = self._heard()
        self._sending: asyncio.StreamWriter | None = None
        self._writers: list[asyncio.StreamWriter] = []

    async def _join(self) -> None:
        greeting = json.loads(json.loads(await anext(self._messages))["data"])
        answers, self._sending = await self._open()
        self._tasks.append(asyncio.create_task(self._judge(answers)))
        for channel in CHANNELS:
            await self._say(json.dumps(self.subscription(channel, greeting["socket_id"])))
            await anext(self._messages)

    def _leave(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _say(self, text: str) -> None:
        assert self._sending is not None  # noqa: S101 - it has joined
        self._sending.write(request(f"POST {self._path}/xhr_send", "", json.dumps([text]).encode()))

    async def _read(self) -> None:
        try:
            async for message in self._messages:
                self._hear(message)
        except (OSError, EOFError, ValueError) as error:
            self.faults.append(f"disconnected: {error}")

    async def _judge(self, answers: asyncio.StreamReader) -> None:
        """Read the responses to sent messages, which have no body."""
        try:
            while b" 204" in (head := await answers.readuntil(END_OF_HEAD))[:13]:
                pass
            self.faults.append(f"a message was answered {head[9:40]!r}")
        except (OSError, EOFError) as error:
            self.faults.append(f"disconnected: {error}")

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        target = self.place.target
        reader, writer = await asyncio.open_connection(
            target.host, target.port, ssl=self.place.tls, limit=LIMIT
        )
        self._writers.append(writer)
        return reader, writer

    async def _heard(self) -> AsyncIterator[str]:
        """Receive all messages. Like pusher-js, it replaces a stream that has become long."""
        while True:
            reader, writer = await self._open()
            writer.write(request(f"POST {self._path}/xhr_streaming?{OPEN}"))
            head = await reader.readuntil(END_OF_HEAD)
            if b" 200" not in head[:13]:
                raise ConnectionError(f"a stream was answered {head[9:40]!r}")
            rest, length = b"", 0
            while (length <= STREAM_LIMIT or rest) and (
                size := int((await reader.readline()).partition(b";")[0], 16)
            ):
                length += size
                rest += (await reader.readexactly(size + 2))[:-2]
                *lines, rest = rest.split(b"\n")
                for line in lines:
                    if line.startswith(b"a"):
                        for message in json.loads(line[1:]):
                            yield message
                    elif line.startswith(b"c"):
                        raise ConnectionError(line.decode())
            writer.close()
