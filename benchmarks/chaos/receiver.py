"""A receiver of webhooks: an HTTP server that checks signatures and stores each event once."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from .record import Told

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

OK: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class WebhookReceiver:
    """Listens on a free port of 127.0.0.1. The last part of a request's path is the number of the node.

    A retry has the ``time_ms`` of the first request, by which a receiver recognises known events.

    :ivar told: the events in order of arrival.
    :ivar refused: number of requests with a wrong signature.
    :ivar again: number of repeated events.
    """

    def __init__(self, key: str, secret: str) -> None:
        self.told: list[Told] = []
        self.refused = 0
        self.again = 0
        self.port = 0
        self._key = key
        self._secret = secret.encode()
        self._known: set[tuple[int, int, str]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening."""
        if self.port:
            self._server.close()
            for writer in self._writers:
                writer.transport.abort()

    def save(self, path: Path) -> None:
        """The events, one line of JSON each."""
        path.write_text("".join(json.dumps(asdict(told)) + "\n" for told in self.told), encoding="utf-8")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                request, *lines = head.strip().split("\r\n")
                headers = {
                    name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)
                }
                body = await reader.readexactly(int(headers["content-length"]))
                self._take(int(request.split(" ")[1].rpartition("/")[2]), headers, body)
                writer.write(OK)
                await writer.drain()
        self._writers.discard(writer)
        writer.close()

    def _take(self, node: int, headers: Mapping[str, str], body: bytes) -> None:
        signature = hmac.new(self._secret, body, hashlib.sha256).hexdigest()
        if (headers.get("x-pusher-key"), headers.get("x-pusher-signature")) != (self._key, signature):
            self.refused += 1
            return
        content: dict[str, Any] = json.loads(body)
        for event in content["events"]:
            identity = (node, content["time_ms"], json.dumps(event, sort_keys=True))
            if identity in self._known:
                self.again += 1
                continue
            self._known.add(identity)
            user = event.get("user_id", "")
            self.told.append(Told(time.time(), node, event["name"], event["channel"], user))
