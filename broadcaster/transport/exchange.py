"""One request to the Pusher HTTP API and its answer, without ASGI: one call and one write."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Coroutine

    from uvicorn.server import ServerState

    from legato.broadcaster.api.http_api import HttpApi

    from .asgi import Flow

_HEADS: Final = {
    status.value: (
        f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json\r\ncontent-length: "
    ).encode()
    for status in HTTPStatus
}


class Carrier(Protocol):
    """The connection that an exchange is on."""

    api: HttpApi
    transport: asyncio.Transport
    flow: Flow
    server_state: ServerState

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine in the background."""

    def part(self) -> None:
        """Close after the answer, but let the peer finish what it is sending."""

    def on_response_complete(self) -> None:
        """The next request may begin."""


class Exchange:
    """One request to the HTTP API and its answer. Other requests have an :class:`~.asgi_cycle.AsgiCycle`.

    :param caller: the client's address; empty if nothing is limited by it.
    :ivar body: what has arrived of it; None when it is too large.
    :ivar begun: its answer is known or in progress; the rest of the body does not matter.
    """

    __slots__ = (
        "_caller",
        "_carrier",
        "_method",
        "_target",
        "begun",
        "body",
        "disconnected",
        "keep_alive",
        "response_complete",
    )

    def __init__(
        self,
        carrier: Carrier,
        method: str,
        target: bytes,
        body: bytes | bytearray | None,
        caller: str,
        *,
        keep_alive: bool,
    ) -> None:
        self._carrier = carrier
        self._method = method
        self._target = target
        self.body = body
        self._caller = caller
        self.begun = False
        self.keep_alive = keep_alive
        self.disconnected = False
        self.response_complete = False

    @property
    def response_started(self) -> bool:
        """Whether the answer is written. It is written in one piece."""
        return self.response_complete

    @property
    def size(self) -> int:
        """Bytes of the body that have arrived."""
        return 0 if self.body is None else len(self.body)

    @property
    def full(self) -> bool:
        """Whether nothing more of the body is read for now."""
        return self.begun

    def begin(self) -> None:
        """Pass the request to the API, which answers now or later, exactly once. Idempotent."""
        if self.begun:
            return
        self.begun = True
        carrier = self._carrier
        asked = (self._method, self._target, self.body)
        carrier.api.answer(*asked, self._reply, carrier.transport, self._caller)

    complete = begin

    def refused(self, length: int | None) -> bool:
        """Refuse a request before its body arrives, if no body can make it valid. Returns whether it did.

        :param length: the length of the body; None if unknown.
        """
        carrier = self._carrier
        asked = (self._method, self._target, length)
        self.begun = carrier.api.refuses(*asked, self._reply, carrier.transport, self._caller)
        return self.begun

    def add(self, data: bytes) -> None:
        """Append a part of the body. A body that becomes too large is refused at once."""
        if self.body is None:
            return
        self.body += data
        if len(self.body) > self._carrier.api.max_body:
            self.body = None
            self.begin()

    def disconnect(self) -> None:
        """Write nothing more to the peer."""
        self.disconnected = not self.response_complete

    def _reply(self, status: int, answer: bytes, wait: int = 0) -> None:
        carrier = self._carrier
        if self.disconnected:
            return
        if carrier.flow.write_paused:
            carrier.spawn(self._reply_later(status, answer, wait))
            return
        lines = [_HEADS[status], b"%d\r\n" % len(answer)]
        for name, value in carrier.server_state.default_headers:
            if name == b"connection":  # the server is stopping
                self.keep_alive = False
            else:
                lines += (name, b": ", value, b"\r\n")
        if wait:
            lines.append(b"retry-after: %d\r\n" % wait)
        lines.append(b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n")
        if self._method != "HEAD":
            lines.append(answer)
        carrier.transport.write(b"".join(lines))
        self.response_complete = True
        if not self.keep_alive:
            carrier.part()
        carrier.on_response_complete()

    async def _reply_later(self, status: int, answer: bytes, wait: int) -> None:
        """Reply once the peer has read the answers before this one."""
        await self._carrier.flow.drain()
        self._reply(status, answer, wait)
