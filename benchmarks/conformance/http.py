"""An HTTP/1.1 client on a socket that sends request targets unchanged."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import h11

from .checks import Failure, show

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

CHUNK: Final = 65_536
MAX_BODY: Final = 4 * 1024 * 1024

REACH_SECONDS: Final = 10.0


@dataclass(frozen=True)
class Response:
    """An answer. Header names are in lower case; ``text`` is the body."""

    status: int
    headers: Mapping[str, str]
    text: str

    def json(self) -> Any:
        """The parsed body.

        :raises Failure: it is not JSON.
        """
        try:
            return json.loads(self.text)
        except ValueError:
            raise Failure(f"the body of the {self.status} is not JSON: {show(self.text)}") from None

    def __str__(self) -> str:
        return f"{self.status} {show(self.text)}"


class HttpExchange:
    """One request whose answer is read piece by piece."""

    def __init__(self, reader: asyncio.StreamReader, connection: h11.Connection) -> None:
        self._reader = reader
        self._connection = connection
        self.status = 0
        self.headers: dict[str, str] = {}

    async def start(self) -> None:
        """Read status and headers."""
        event = await self._event()
        while isinstance(event, h11.InformationalResponse):
            event = await self._event()
        if not isinstance(event, h11.Response):
            raise Failure(f"expected an HTTP response, got {event!r}")
        self.status = event.status_code
        self.headers = {name.decode().lower(): value.decode("latin-1") for name, value in event.headers}

    async def piece(self) -> bytes:
        """The next bytes of the body; empty at its end."""
        event = await self._event()
        return bytes(event.data) if isinstance(event, h11.Data) else b""

    async def _event(self) -> Any:
        while (event := self._connection.next_event()) is h11.NEED_DATA:
            self._connection.receive_data(await self._reader.read(CHUNK))
        return event


@contextlib.asynccontextmanager
async def exchange(
    method: str, base: str, target: str, headers: Mapping[str, str], body: bytes
) -> AsyncIterator[HttpExchange]:
    """Send a request on a new connection, and read the head of the answer.

    :param base: ``http[s]://HOST[:PORT]``; a path in it is ignored.
    :param target: path and query, exactly as they are sent.
    :raises Failure: the server cannot be reached or does not speak HTTP.
    """
    parts = urlsplit(base)
    secure = parts.scheme == "https"
    try:
        reader, writer = await asyncio.open_connection(
            parts.hostname,
            parts.port or (443 if secure else 80),
            ssl=ssl.create_default_context() if secure else None,
        )
        connection = h11.Connection(h11.CLIENT)
        own = {"host": parts.netloc, "connection": "close", "content-length": str(len(body))}
        all_headers = {**own, **headers}
        try:
            for event in (
                h11.Request(method=method, target=target, headers=list(all_headers.items())),
                h11.Data(data=body),
                h11.EndOfMessage(),
            ):
                writer.write(connection.send(event) or b"")
            started = HttpExchange(reader, connection)
            await started.start()
            yield started
        finally:
            writer.close()
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(1):
                    await writer.wait_closed()
    except (OSError, h11.ProtocolError) as error:
        raise Failure(f"{method} {show(target.partition('?')[0])}: {error}") from error


async def request(
    method: str, base: str, target: str, headers: Mapping[str, str], body: bytes, seconds: float
) -> Response:
    """Send a request and read the whole answer.

    :raises Failure: as :func:`exchange`, or there is no whole answer in time.
    """
    try:
        async with asyncio.timeout(seconds), exchange(method, base, target, headers, body) as started:
            content = bytearray()
            while piece := await started.piece():
                content += piece
                if len(content) > MAX_BODY:
                    raise Failure(f"the body of the answer is larger than {MAX_BODY} bytes")
            return Response(started.status, started.headers, content.decode("utf-8", "replace"))
    except TimeoutError:
        raise Failure(f"{method} {show(target.partition('?')[0])}: no answer in {seconds:g} s") from None


async def unreachable(address: str) -> str:
    """Why nothing at an address accepts a connection; empty if something does.

    :param address: a URL.
    """
    parts = urlsplit(address)
    port = parts.port or (443 if parts.scheme in ("wss", "https") else 80)
    try:
        async with asyncio.timeout(REACH_SECONDS):
            _, writer = await asyncio.open_connection(parts.hostname, port)
    except (OSError, TimeoutError) as error:
        return str(error) or "no answer"
    writer.close()
    return ""
