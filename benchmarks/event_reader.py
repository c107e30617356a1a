"""A cheap reader of server-sent events, as :class:`.crowd.CrowdClient` is one of a channel."""

from __future__ import annotations

import asyncio
from typing import Final, cast

EVENT: Final = b"\nevent: "
"""Stands once in each event of a reply, and in nothing else: no JSON has a line break."""


class EventReader(asyncio.Protocol):
    """Reads one reply over HTTP and counts its events. ``subscribed`` is set when the answer begins."""

    __slots__ = ("_path", "_rest", "_token", "_transport", "received", "subscribed")

    def __init__(self, path: str, token: str) -> None:
        self._path = path
        self._token = token
        self._rest = b""
        self.subscribed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.received = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the events."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(
            f"GET {self._path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {self._token}\r\n"
            "Accept: text/event-stream\r\n\r\n".encode()
        )

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail, if the answer has not begun."""
        if not self.subscribed.done():
            self.subscribed.set_exception(exc or ConnectionError("the server has closed a connection"))

    def data_received(self, data: bytes) -> None:
        """Count the events. One may be cut between two reads."""
        if not self.subscribed.done():
            head, found, data = (self._rest + data).partition(b"\r\n\r\n")
            if not found:
                self._rest = head
                return
            self._rest = b""
            if b" 200 " not in head[:20]:
                self.subscribed.set_exception(ConnectionError(head.partition(b"\r\n")[0].decode()))
                return
            self.subscribed.set_result(None)
        data = self._rest + data
        self.received += data.count(EVENT)
        self._rest = data[-(len(EVENT) - 1) :]
