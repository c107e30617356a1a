"""One request to an ASGI application, and its answer in HTTP/1.1."""

from __future__ import annotations

import asyncio
import logging
import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from legato.broadcaster.limits import MAX_HELD_BODY_BYTES

from .asgi import CONTINUE, BrokenOffError, Flow

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from .asgi import ClosingTransport

    Message = Mapping[str, Any]
    Application = Callable[
        [dict[str, Any], Callable[[], Awaitable[dict[str, Any]]], Callable[[Message], Awaitable[None]]],
        Awaitable[None],
    ]

logger: Final = logging.getLogger("legato.http")

_BAD_NAME: Final = re.compile(rb"[^!#$%&'*+\-.^_`|~0-9A-Za-z]|\A\Z")
"""What a field name must not contain (RFC 9110 section 5.1)."""

_BAD_VALUE: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
"""What a field value must not contain: a line break would let an attacker add fields."""

_WITHOUT_BODY: Final = frozenset({204, 304})

_FAILED: Final = b"Internal Server Error"


class Link(NamedTuple):
    """What a request needs of its connection.

    :ivar default_headers: of every answer. uvicorn makes a new list every second, and adds to it when it
        stops.
    :ivar done: called after each answer that is complete.
    """

    flow: Flow
    default_headers: list[tuple[bytes, bytes]]
    done: Callable[[], None]


class _Body:
    """The part of a request's body that the application has not taken.

    :ivar size: bytes that the application has not taken.
    """

    __slots__ = ("_content", "_event", "_more")

    def __init__(self) -> None:
        self._content = bytearray()
        self._more = True
        self._event = asyncio.Event()

    @property
    def size(self) -> int:
        return len(self._content)

    def add(self, data: bytes) -> None:
        self._content += data
        self._event.set()

    def end(self) -> None:
        self._more = False
        self._event.set()

    def wake(self) -> None:
        """Wake the application although no bytes have arrived."""
        self._event.set()

    async def changed(self) -> None:
        """Wait for more of the body, its end, or a wake-up."""
        await self._event.wait()
        self._event.clear()

    def take(self) -> dict[str, Any]:
        """What has arrived, as an ASGI message."""
        body, self._content = bytes(self._content), bytearray()
        return {"type": "http.request", "body": body, "more_body": self._more}


class AsgiCycle:
    """A request to an ASGI application, and its answer. The HTTP API has :class:`~.exchange.Exchange`.

    :param scope: of the request (https://asgi.readthedocs.io/en/latest/specs/www.html).
    :param transport: where the answer goes. It is closed after the last answer of a connection.
    :param expects: the peer waits for ``100 Continue``, which is sent when the application wants the body.
    :param keep_alive: whether the connection may serve another request.
    """

    __slots__ = (
        *("_body", "_chunked", "_disconnected", "_expects", "_left", "_link", "_scope", "_transport"),
        *("keep_alive", "response_complete", "response_started"),
    )

    def __init__(
        self,
        scope: dict[str, Any],
        transport: asyncio.Transport | ClosingTransport,
        link: Link,
        *,
        expects: bool,
        keep_alive: bool,
    ) -> None:
        self._scope = scope
        self._transport = transport
        self._link = link
        self._expects = expects
        self._body = _Body()
        self._chunked = False
        self._left = 0
        self._disconnected = False
        self.keep_alive = keep_alive
        self.response_started = False
        self.response_complete = False

    # --- for the HTTP protocol

    @property
    def full(self) -> bool:
        """Whether nothing more of the body is read for now."""
        return self._body.size >= MAX_HELD_BODY_BYTES

    def add(self, data: bytes) -> None:
        """Take a part of the body."""
        self._body.add(data)

    def complete(self) -> None:
        """End the body."""
        self._body.end()

    def disconnect(self) -> None:
        """Write nothing more to the peer, and notify the application."""
        if not self.response_complete:
            self._disconnected = True
            self._body.wake()

    # --- for the application

    async def run(self, app: Application) -> None:
        """Run the application. Never raises: a failure is logged, and answered with 500."""
        try:
            await app(self._scope, self._receive, self._send)
        except BrokenOffError:
            await self._fail()
        except BaseException:
            logger.exception("an application failed")
            await self._fail()
        else:
            if not self.response_complete and not self._disconnected:
                logger.error("an application has not completed its answer")
                await self._fail()

    async def _fail(self) -> None:
        """Answer 500; or close, if the answer has begun, so that the peer sees that it is incomplete."""
        if self.response_started:
            self._transport.close()
            return
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"%d" % len(_FAILED)),
            (b"connection", b"close"),
        ]
        await self._send({"type": "http.response.start", "status": 500, "headers": headers})
        await self._send({"type": "http.response.body", "body": _FAILED})

    async def _receive(self) -> dict[str, Any]:
        """Wait for more of the body, or for the end of the request."""
        if self._expects and not self._transport.is_closing():
            self._transport.write(CONTINUE)
            self._expects = False
        if not self._disconnected and not self.response_complete:
            self._link.flow.resume_reading()
            await self._body.changed()
        if self._disconnected or self.response_complete:
            return {"type": "http.disconnect"}
        return self._body.take()

    async def _send(self, message: Message) -> None:
        """Write a part of the answer, when the peer reads.

        :raises RuntimeError: the message is out of order, or cannot be sent.
        """
        if self._link.flow.write_paused and not self._disconnected:
            await self._link.flow.drain()
        if self._disconnected:
            return
        expected = "http.response.body" if self.response_started else "http.response.start"
        if self.response_complete or message["type"] != expected:
            raise RuntimeError(f"unexpected ASGI message {message['type']!r}")
        if self.response_started:
            self._send_body(message.get("body", b""), more=message.get("more_body", False))
        else:
            self._send_head(message["status"], message.get("headers", ()))

    def _send_head(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self.response_started = True
        self._expects = False
        lines = [b"HTTP/1.1 %d %b\r\n" % (status, _phrase(status))]
        sized = closes = False
        for given, value in (*self._link.default_headers, *headers):
            name = given.lower()
            if _BAD_NAME.search(name) or _BAD_VALUE.search(value):
                raise RuntimeError("a header field cannot be sent")
            if name == b"content-length" and not sized:
                self._left, sized = int(value), True
            elif name == b"transfer-encoding" and value.lower() == b"chunked":
                self._left, self._chunked, sized = 0, True, True
            elif name == b"connection" and b"close" in [one.strip() for one in value.lower().split(b",")]:
                self.keep_alive, closes = False, True
            lines += (name, b": ", value, b"\r\n")
        if not self.keep_alive and not closes:
            lines.append(b"connection: close\r\n")
        if not sized and self._scope["method"] != "HEAD" and status not in _WITHOUT_BODY:
            self._chunked = True
            lines.append(b"transfer-encoding: chunked\r\n")
        lines.append(b"\r\n")
        self._transport.write(b"".join(lines))

    def _send_body(self, body: bytes, *, more: bool) -> None:
        if self._scope["method"] == "HEAD":
            self._left = 0
        elif self._chunked:
            chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            self._transport.write(chunk if more else chunk + b"0\r\n\r\n")
        else:
            if len(body) > self._left:
                raise RuntimeError("the body is longer than its content-length")
            self._left -= len(body)
            self._transport.write(body)
        if more:
            return
        if self._left:
            raise RuntimeError("the body is shorter than its content-length")
        self.response_complete = True
        self._body.wake()
        if not self.keep_alive:
            self._transport.close()
        self._link.done()


def _phrase(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:  # an application may use its own codes
        return b""
