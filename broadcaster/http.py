"""HTTP/1.1 by uvicorn, with time limits on requests that never become whole and answers that nobody reads.

Requests to the Pusher HTTP API are parsed by it like all others, but do not go through ASGI: a request is
one call, and its answer one write.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, cast

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.utils import is_ssl

from .plain import plain_post

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine, Iterable

    from .http_api import HttpApi
    from .websocket import Connection


STALLED_SECONDS: Final = 30.0
"""How long a peer may read nothing of an answer that waits for it."""


_HEADS: Final = {
    status.value: (
        f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json\r\ncontent-length: "
    ).encode()
    for status in HTTPStatus
}
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class _NobodyWaits:
    """In place of the event that wakes a cycle."""

    def set(self) -> None:
        """Nothing waits for it."""


class Exchange:
    """One request to the HTTP API and its answer, where uvicorn expects a ``RequestResponseCycle``.

    :ivar body: as far as it has come; None once it is larger than it may be.
    :ivar complete: the whole body has come, or what has come is too large.
    """

    __slots__ = (
        "_method",
        "_protocol",
        "_target",
        "body",
        "complete",
        "disconnected",
        "keep_alive",
        "response_complete",
    )

    message_event: Final = _NobodyWaits()

    def __init__(
        self, protocol: HttpProtocol, method: str, target: bytes, body: bytes | bytearray, *, keep_alive: bool
    ) -> None:
        self._protocol = protocol
        self._method = method
        self._target = target
        self.body: bytes | bytearray | None = body
        self.complete = False
        self.keep_alive = keep_alive
        self.disconnected = False
        self.response_complete = False

    def begin(self, api: HttpApi) -> None:
        """Have it answered, now or later. Whatever it is, there is an answer."""
        api.answer(self._method, self._target, self.body, self._reply)

    def _reply(self, status: int, answer: bytes) -> None:
        protocol = self._protocol
        if self.disconnected:
            return
        if protocol.flow.write_paused:
            protocol.spawn(self._reply_later(status, answer))
            return
        lines = [_HEADS[status], b"%d\r\n" % len(answer)]
        for name, value in protocol.server_state.default_headers:
            if name == b"connection":  # the server stops
                self.keep_alive = False
            else:
                lines += (name, b": ", value, b"\r\n")
        lines.append(b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n")
        if self._method != "HEAD":
            lines.append(answer)
        protocol.transport.write(b"".join(lines))
        self.response_complete = True
        if not self.keep_alive:
            protocol.transport.close()
        protocol.on_response_complete()

    async def _reply_later(self, status: int, answer: bytes) -> None:
        """The peer does not read the answers before this one."""
        await self._protocol.flow.drain()
        self._reply(status, answer)


class HttpProtocol(HttpToolsProtocol):
    """uvicorn limits how long it waits after an answer; here a request's head has to come as soon.

    Otherwise a peer that connects and says nothing would keep its descriptor for ever, as would one that
    never reads its answer. One timer looks after that, and is not moved by every request.

    :param api: what answers requests to the Pusher HTTP API.
    :param connect: makes what a WebSocket is for us, given uvicorn's set of what is open.
    :param since: when the peer has connected, in the loop's time.
    """

    _stalled: asyncio.TimerHandle | None = None
    _patience: asyncio.TimerHandle | None = None
    _between = True
    """The parser has nothing of a message that is not complete."""

    def __init__(
        self, api: HttpApi, connect: Callable[[set[Any]], Connection], *, since: float, **of_uvicorn: Any
    ) -> None:
        super().__init__(**of_uvicorn)
        self._api = api
        self._connect = connect
        self._waiting_since = since

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the transport over (:mod:`.arrivals`), and ask nobody for addresses that nobody asks for."""
        self.connections.add(self)
        self.transport = transport
        self.flow = FlowControl(transport)
        self.scheme = "https" if is_ssl(transport) else "http"
        self._be_patient()

    def data_received(self, data: bytes) -> None:
        """As uvicorn does. Nearly all requests to the API come whole and plain, and need no parser."""
        before: RequestResponseCycle | Exchange | None = self.cycle
        if self._between and (before is None or before.response_complete):
            plain = plain_post(data)
            if plain is not None and self._api.serves(plain[0]):
                target, body = plain
                exchange = Exchange(self, "POST", target, body, keep_alive=True)
                if len(body) > self._api.max_body:
                    exchange.body = None
                exchange.complete = True
                self.cycle = exchange  # type: ignore[assignment]
                exchange.begin(self._api)
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        """As uvicorn does."""
        self._between = False
        super().on_message_begin()

    # --- requests to the API

    def on_headers_complete(self) -> None:
        """As uvicorn does, but for the API."""
        if not self._api.serves(self.url) or self.parser.should_upgrade():
            super().on_headers_complete()
            return
        method: bytes = self.parser.get_method()
        keep_alive = self.parser.get_http_version() != "1.0" and self.parser.should_keep_alive()
        before: RequestResponseCycle | Exchange | None = self.cycle
        exchange = Exchange(self, method.decode("ascii"), self.url, bytearray(), keep_alive=keep_alive)
        self.cycle = exchange  # type: ignore[assignment]
        if before is not None and not before.response_complete:  # answers keep the order of requests
            self.flow.pause_reading()
            self.pipeline.appendleft((exchange, self._api))  # type: ignore[arg-type]
        elif self.expect_100_continue:
            self.transport.write(_CONTINUE)

    def on_body(self, body: bytes) -> None:
        """As uvicorn does; for the API, up to its limit."""
        exchange: Any = self.cycle
        if not isinstance(exchange, Exchange):
            super().on_body(body)
        elif exchange.body is not None:
            exchange.body += body
            if len(exchange.body) > self._api.max_body:
                exchange.body = None
                self._complete(exchange)

    def on_message_complete(self) -> None:
        """As uvicorn does; for the API, all has come that is needed."""
        self._between = True
        exchange: Any = self.cycle
        if not isinstance(exchange, Exchange):
            super().on_message_complete()
        elif not exchange.complete:
            self._complete(exchange)

    def _complete(self, exchange: Exchange) -> None:
        exchange.complete = True
        if not any(waiting is exchange for waiting, _ in cast("Iterable[tuple[Any, Any]]", self.pipeline)):
            exchange.begin(self._api)

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        """Its turn has come; a request to the API that is not complete begins when it is."""
        if not isinstance(cycle, Exchange):
            super()._start_asgi_task(cycle, app)
        elif cycle.complete:  # later: each may be answered at once, and have the next one begin
            self.loop.call_soon(cycle.begin, self._api)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """In the background; uvicorn waits for it when it stops."""
        task = self.loop.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    # --- limits

    def on_response_complete(self) -> None:
        """As uvicorn does, without a timer for each answer."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self._waiting_since = self.loop.time()
        if not self.pipeline:  # else more and more would come before these are answered
            self.flow.resume_reading()

    def _be_patient(self) -> None:
        """Until a request's head should be whole, by what is known now."""
        deadline = self._waiting_since + self.timeout_keep_alive
        self._patience = self.loop.call_at(deadline, self._look)

    def _look(self) -> None:
        cycle: RequestResponseCycle | Exchange | None = self.cycle
        if self.transport.is_closing():
            return
        if cycle is not None and not cycle.response_complete:  # it waits for us
            self._waiting_since = self.loop.time()
        if self._waiting_since + self.timeout_keep_alive <= self.loop.time():
            self.transport.close()
        else:
            self._be_patient()

    def handle_websocket_upgrade(self) -> None:
        """The connection is somebody else's. With the parser, which knows this object, this one goes."""
        self._stop_looking()
        self.connections.discard(self)
        method, self.parser = self.parser.get_method(), None  # type: ignore[assignment]
        connection = self._connect(self.connections)
        connection.connection_made(self.transport)
        self.transport.set_protocol(connection)
        connection.upgrade(method, self.url, self.headers)

    def _stop_looking(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def pause_writing(self) -> None:
        """As uvicorn does; the peer has to read on soon."""
        super().pause_writing()
        self._stalled = self.loop.call_later(STALLED_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """The peer reads."""
        self._moves()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """As uvicorn does."""
        self._moves()
        self._stop_looking()
        super().connection_lost(exc)

    def _moves(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
