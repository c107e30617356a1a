"""HTTP/1.1 on a connection: one request at a time, within bounds of time and memory.

Requests to the Pusher HTTP API do not go through ASGI: a request is one call, and its answer one write
(:mod:`.exchange`). All others go through ASGI (:mod:`.asgi_cycle`). Unread bytes are in :mod:`.read_buffer`,
timeouts in :mod:`.deadlines`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from legato.broadcaster.addresses.callers import forwarded
from legato.broadcaster.limits import MAX_SKIPPED_BODY_BYTES, READ_SLICE_BYTES
from legato.protocol import refusals

from .asgi import CONTINUE, ClosingTransport, Flow, refusal, scope_of
from .asgi_cycle import AsgiCycle, Link
from .budget import COST_SHIFT
from .deadlines import Deadlines
from .exchange import Exchange
from .fastpath import plain_post
from .framing import FramingRefusal, body_of, parse_head
from .lingering_close import LingeringClose
from .peer import address_of
from .read_buffer import ReadBuffer

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from uvicorn import Config
    from uvicorn.server import ServerState

    from legato.broadcaster.api.http_api import HttpApi

    from .budget import Budget
    from .framing import Body, Head
    from .websocket import Connection

    Cycle = AsgiCycle | Exchange


class _Incomplete:
    """A request whose body is incomplete.

    :ivar keep_alive: whether the request lets the connection serve another one.
    :ivar expects: the peer waits for ``100 Continue``.
    :ivar unchecked: it is for the HTTP API, and may still be refused before its body is complete.
    """

    __slots__ = ("body", "expects", "keep_alive", "unchecked")

    def __init__(self, head: Head, body: Body, *, unchecked: bool) -> None:
        self.body = body
        self.keep_alive = head.keep_alive
        self.expects = head.expects
        self.unchecked = unchecked


class HttpProtocol(asyncio.Protocol):
    """Reads the requests of one connection, and has them answered in order.

    A request waits until the one before it is answered; meanwhile reading pauses.

    :param api: what answers requests to the Pusher HTTP API.
    :param connect: makes a WebSocket connection, given uvicorn's set of open connections.
    :param budget: gives its read buffer slices of the loop's time.
    :param seconds: for a head, and for each :data:`~legato.broadcaster.limits.BODY_PROGRESS_BYTES` of a body.
    :param since: when the peer has connected, in the loop's time.
    :ivar cycle: the request that is being answered, or was the last.
    """

    transport: asyncio.Transport
    flow: Flow
    cycle: Cycle | None
    _incomplete: _Incomplete | None

    def __init__(
        self,
        api: HttpApi,
        connect: Callable[[set[Any]], Connection],
        budget: Budget,
        seconds: float,
        *,
        since: float,
        **of_uvicorn: Any,
    ) -> None:
        self.api = api
        self._connect = connect
        self._budget = budget
        self._config: Config = of_uvicorn["config"]
        self.server_state: ServerState = of_uvicorn["server_state"]
        self._loop = asyncio.get_running_loop()
        self.cycle = self._incomplete = None
        self._buffer = ReadBuffer(self, budget)
        self._deadlines = Deadlines(self, self._config.timeout_keep_alive, seconds, since)

    # --- the connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the transport over (:mod:`.acceptor`)."""
        self.server_state.connections.add(self)  # type: ignore[arg-type]
        self.transport = transport
        self.flow = Flow(self._buffer.proceed)
        self._deadlines.start()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop everything that works for this peer."""
        self.server_state.connections.discard(self)
        self._deadlines.unstall()
        self._stop_reading()
        if self.cycle is not None:
            self.cycle.disconnect()
        self.flow.resume_writing()
        if exc is None:
            self.transport.close()

    def close(self) -> None:
        """Close. Written data is still sent, as long as the peer reads."""
        self._deadlines.close()

    def _stop_reading(self) -> bytes:
        """Read nothing more. Returns the unparsed bytes."""
        self._deadlines.stop()
        return self._buffer.close()

    def shutdown(self) -> None:
        """See uvicorn, which calls it when it stops: close after the answer that is under way."""
        if self._buffer.closed or not self._answering():
            self.close()
            return
        if self.cycle is not None:
            self.cycle.keep_alive = False
        if self._incomplete is not None:
            self._incomplete.keep_alive = False

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run it in the background; uvicorn waits for it when it stops."""
        task = self._loop.create_task(work)
        self.server_state.tasks.add(task)
        task.add_done_callback(self.server_state.tasks.discard)

    # --- reading

    def data_received(self, data: bytes) -> None:
        """Nearly all requests to the HTTP API arrive whole and plain, and need no parser."""
        before = self.cycle
        if (before is not None and not before.response_complete) or self._incomplete or self._buffer.unread:
            self._buffer.receive(data)
            return
        if not self._budget.spend():
            self._buffer.read_later(data)
            return
        plain = plain_post(data)
        if plain is None or not self.api.serves(plain[0]):
            self._budget.left -= len(data) >> COST_SHIFT
            self._buffer.read(data)
            return
        target, body = plain
        callers = self.api.callers
        caller = "" if callers is None else callers.of_request(self.transport, data)
        self.cycle = exchange = Exchange(self, "POST", target, body, caller, keep_alive=True)
        if len(body) > self.api.max_body:
            exchange.body = None
        exchange.begin()

    def step(self) -> bool:
        """See :class:`~.read_buffer.Requests`."""
        if self._incomplete is not None:
            return self._read_body(self._incomplete)
        if not self._buffer.unread or self._waits():
            return False
        data = self._buffer.take_head()
        if data is None:
            return False
        self._begin(parse_head(data))
        return True

    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _waits(self) -> bool:
        """Whether the next request has to wait: for the answer before it, or until the peer reads answers.

        A WebSocket connection must know of all back-pressure, so it does not start under it.
        """
        return self._answering() or self.flow.write_paused

    def blocked(self) -> bool:
        """See :class:`~.read_buffer.Requests`."""
        return self._waits() if self._incomplete is None else self._full()

    def _full(self) -> bool:
        """Whether nothing more of the body is read for now."""
        cycle = self.cycle
        return cycle is not None and not cycle.response_complete and cycle.full

    def expect(self) -> None:
        """See :class:`~.read_buffer.Requests`: refuse what no body can make valid, and set a deadline."""
        request = self._incomplete
        if request is None and not self._buffer.unread:
            return
        if request is not None and request.unchecked:
            self._check(request)
        if self._deadlines.due is None and not self._buffer.closed:
            self._deadlines.renew()

    # --- requests

    def _begin(self, head: Head) -> None:
        if head.websocket:
            self._hand_over(head)
            return
        if head.method == b"CONNECT":
            raise FramingRefusal(405, "This is no proxy.")
        for_api = self.api.serves(head.target)
        secure = not for_api and self.transport.get_extra_info("sslcontext") is not None
        callers = self.api.callers
        caller = None if callers is None else callers.of(self.transport, forwarded(head.headers))
        scope = None if for_api else scope_of(head, self._config, self.transport, caller, secure=secure)
        self._deadlines.due = None
        body = body_of(head)
        self._incomplete = None if body is None else _Incomplete(head, body, unchecked=for_api)
        skipped = body is None or (body.left is not None and body.left <= MAX_SKIPPED_BODY_BYTES)
        keep_alive = head.keep_alive and skipped  # the rest is known when the request is complete
        if scope is None:
            self._begin_exchange(head, caller or "", keep_alive=keep_alive)
        else:
            self._begin_cycle(head, scope, keep_alive=keep_alive)

    def _begin_exchange(self, head: Head, caller: str, *, keep_alive: bool) -> None:
        method = head.method.decode("ascii")
        self.cycle = exchange = Exchange(
            self, method, head.target, bytearray(), caller, keep_alive=keep_alive
        )
        if self._incomplete is None:
            exchange.begin()

    def _check(self, request: _Incomplete) -> None:
        """Refuse a request to the API before its body, if no body can make it acceptable."""
        request.unchecked = False
        exchange = self.cycle
        if not isinstance(exchange, Exchange) or exchange.response_complete:
            return
        left = request.body.left
        length = None if left is None else left + exchange.size
        if not exchange.refused(length) and request.expects and not exchange.size:
            self.transport.write(CONTINUE)

    def _begin_cycle(self, head: Head, scope: dict[str, Any], *, keep_alive: bool) -> None:
        whole = self._incomplete is None
        self.cycle = cycle = AsgiCycle(
            scope,
            self.transport if whole else ClosingTransport(self.transport, self.part),
            Link(self.flow, self.server_state.default_headers, self.on_response_complete),
            expects=head.expects and not whole,
            keep_alive=keep_alive,
        )
        if whole:
            cycle.complete()
        self.spawn(cycle.run(self._config.loaded_app))

    def _read_body(self, request: _Incomplete) -> bool:
        """Give a part of the body to the request's answer; skip it when the answer is complete."""
        if self._full():
            return False
        unread = self._buffer.unread
        before = len(unread)
        data = request.body.take(unread, READ_SLICE_BYTES)
        if data and self.cycle is not None and not self.cycle.response_complete:
            self.cycle.add(data)
        if request.body.done:
            self._complete(request)
            return True
        if before == len(unread):
            return False
        self._deadlines.received(len(data))
        return True

    def _complete(self, request: _Incomplete) -> None:
        """The whole request has arrived."""
        self._incomplete = self._deadlines.due = None
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            self._deadlines.idle_since = self._loop.time()
            return
        if not cycle.response_started:
            cycle.keep_alive = request.keep_alive
        cycle.complete()

    def on_response_complete(self) -> None:
        """The next request may begin."""
        self._deadlines.idle_since = self._loop.time()
        self._buffer.proceed()

    def _hand_over(self, head: Head) -> None:
        """Give the connection to a WebSocket."""
        unread = self._stop_reading()
        self.server_state.connections.discard(self)
        self._buffer.resume()
        connection = self._connect(self.server_state.connections)
        connection.connection_made(self.transport)
        self.transport.set_protocol(connection)
        connection.upgrade(head.method, head.target, head.headers)
        if unread and not self.transport.is_closing():
            connection.data_received(unread)

    # --- the end

    def refuse(self, status: int, reason: str) -> None:
        """Refuse the request and close."""
        if self._incomplete is not None and (self.cycle is None or self.cycle.response_started):
            self._stop_reading()  # it has an answer, or a part of one
            self.transport.abort()
            return
        if self.cycle is not None:
            self.cycle.disconnect()
        address = address_of(self.transport)
        self.api.refused(refusals.BAD_HTTP, status=status, detail=reason, address=address)
        self.transport.write(refusal(status, reason, self.server_state.default_headers))
        self._part(whole=False)

    def part(self) -> None:
        """Close after the answer, but let the peer finish what it is sending."""
        self._part(whole=self._incomplete is None and not self._buffer.unread)

    def _part(self, *, whole: bool) -> None:
        if self._buffer.closed or self.transport.is_closing():
            return
        self._stop_reading()
        if whole:
            self.close()
        else:
            self._buffer.resume()
            self.transport.set_protocol(LingeringClose(self, self.transport))

    # --- deadlines

    @property
    def busy(self) -> bool:
        """See :class:`~.deadlines.HasDeadline`."""
        return self._buffer.paused or (self._incomplete is None and self._answering())

    def expire(self) -> None:
        """See :class:`~.deadlines.HasDeadline`."""
        self.refuse(408, "The request did not come in time.")

    def pause_writing(self) -> None:
        """The write buffer is full: start the write-stall timer."""
        self.flow.pause_writing()
        self._deadlines.stall()

    def resume_writing(self) -> None:
        """The write buffer has drained."""
        self._deadlines.unstall()
        self.flow.resume_writing()
        self._buffer.proceed()
