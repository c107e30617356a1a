"""HTTP/1.1 on a connection: one request at a time, each within bounds of time and of memory.

Requests to the Pusher HTTP API do not go through ASGI: a request is one call, and its answer one write
(:mod:`.exchange`). All others go through ASGI, in uvicorn's ``RequestResponseCycle`` (:mod:`.cycles`).
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from uvicorn.protocols.utils import is_ssl

from .asgi import Flow, Parting, refusal, scope_of
from .budget import SLICE, SLICE_BYTES
from .cycles import asgi_cycle, complete, disconnect, give, has_enough
from .deadlines import Deadlines
from .exchange import Exchange
from .farewell import Farewell
from .fastpath import plain_post
from .framing import Refused, body_of, parse_head, take_head

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from uvicorn import Config
    from uvicorn.server import ServerState

    from legato.broadcaster.api.http_api import HttpApi

    from .budget import Budget
    from .cycles import Cycle
    from .framing import Body, Head
    from .websocket import Connection

logger: Final = logging.getLogger("legato.http")

SKIPPED_BYTES: Final = 65_536
"""A connection outlives an answer that came before its request's end, if at most this much is missing."""

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class HttpProtocol(asyncio.Protocol):
    """Reads requests, and has them answered.

    What has come behind a request waits for its answer; meanwhile reading pauses. So at most one read is
    kept, and answers keep the order of requests.

    :param api: what answers requests to the Pusher HTTP API.
    :param connect: makes what a WebSocket is for us, given uvicorn's set of what is open.
    :param budget: gives it slices of the loop's time, as its ``Reader``.
    :param seconds: for a head, and for each :data:`.deadlines.PROGRESS_BYTES` of a body.
    :param since: when the peer has connected, in the loop's time.
    :ivar cycle: the request that is answered, or was.
    """

    transport: asyncio.Transport
    flow: Flow
    cycle: Cycle | None = None
    _body: Body | None = None
    """What reads the rest of the request."""
    _keep_alive = True
    """What the request says, once it is complete."""
    _searched = 0
    _unchecked = False
    """Nobody has looked yet whether a request to the API, whose body is on its way, can be accepted."""
    _expects = False
    """It waits to be told to go on."""
    _queued = False
    _reading = False
    _paused = False
    _gone = False

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
        self._api = api
        self._connect = connect
        self._budget = budget
        self._config: Config = of_uvicorn["config"]
        self._deadlines = Deadlines(self, self._config.timeout_keep_alive, seconds, since)
        self._unread = bytearray()
        self.server_state: ServerState = of_uvicorn["server_state"]
        self.loop = asyncio.get_running_loop()

    # --- the connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the transport over (:mod:`.acceptor`)."""
        self.server_state.connections.add(self)  # type: ignore[arg-type]
        self.transport = transport
        self.flow = Flow(transport, self._wanted)
        self._deadlines.start()

    def connection_lost(self, exc: Exception | None) -> None:
        """Whoever is at work for the peer learns that it has gone."""
        self.server_state.connections.discard(self)
        self._deadlines.read_on()
        self._stop_reading()
        disconnect(self.cycle)
        self.flow.resume_writing()
        if exc is None:
            self.transport.close()

    def _stop_reading(self) -> None:
        """Nothing that comes, or has come, is read by this object any more."""
        self._gone = True
        self._unread.clear()
        self._deadlines.stop()

    def shutdown(self) -> None:
        """What uvicorn calls when it stops."""
        if self._gone or not self._answering():
            self.transport.close()
        elif self.cycle is not None:
            self._keep_alive = self.cycle.keep_alive = False

    def abort(self) -> None:
        """See :class:`~legato.broadcaster.transport.budget.Reader`."""
        self.transport.abort()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """In the background; uvicorn waits for it when it stops."""
        task = self.loop.create_task(work)
        self.server_state.tasks.add(task)
        task.add_done_callback(self.server_state.tasks.discard)

    # --- bytes in

    def data_received(self, data: bytes) -> None:
        """Nearly all requests to the API come whole and plain, and need no parser."""
        before = self.cycle
        if not self._unread and self._body is None and (before is None or before.response_complete):
            if self._budget.spend():
                plain = plain_post(data)
                if plain is not None and self._api.serves(plain[0]):
                    target, body = plain
                    exchange = Exchange(self, "POST", target, body, keep_alive=True)
                    if len(body) > self._api.max_body:
                        exchange.body = None
                    self.cycle = exchange
                    exchange.begin(self._api)
                    return
                self._unread += data
                if not self._read_slice():
                    self._settle()
                    return
            else:
                self._unread += data
        else:
            self._unread += data
            if not self._queued and self._budget.spend() and not self._read_slice():
                self._settle()
                return
        self._read_later()

    def go_on(self) -> bool:
        """See :class:`~legato.broadcaster.transport.budget.Reader`."""
        self._queued = False
        if self._gone or self.transport.is_closing():
            return False
        if self._read_slice():
            self._queued = True
            return True
        self._settle()
        return False

    def _read_later(self) -> None:
        if self._gone:
            return
        self._pause()
        self._queued = True
        self._budget.put(self)

    def _wanted(self) -> None:
        """The request's application takes some of its body, or the next request may begin."""
        if (self._unread or self._paused) and not self._reading and not self._queued:
            self._read_later()

    def _read_slice(self) -> bool:
        """Whether there may be more that can be read at once."""
        unread, reading = self._unread, self._reading
        until = len(unread) - SLICE_BYTES
        self._reading = True
        try:
            for _ in range(SLICE):
                if not self._step() or self._gone:
                    return False
                if len(unread) <= until:
                    break
            return bool(unread)
        except Refused as refused:
            self._refuse(refused.status, str(refused))
            return False
        finally:
            self._reading = reading

    def _step(self) -> bool:
        """Read one head, or some of a body; whether there was anything that could be read."""
        if self._body is not None:
            return self._read_body(self._body)
        if not self._unread or self._answering():
            return False
        data = take_head(self._unread, self._searched)
        self._searched = len(self._unread) if data is None else 0
        if data is None:
            return False
        self._begin(parse_head(data))
        return True

    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _settle(self) -> None:
        """What can be read has been read. Wait for more, unless it is the peer that waits."""
        if self._gone:
            return
        if self._unread and self._answering() and (self._body is None or has_enough(self.cycle)):
            self._pause()
            return
        self._resume()
        if self._unchecked:
            self._check()
        if (self._unread or self._body is not None) and self._deadlines.due is None and not self._gone:
            self._deadlines.renew()

    def _pause(self) -> None:
        if not self._paused:
            self._paused = True
            self.transport.pause_reading()

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            self.transport.resume_reading()

    # --- requests

    def _begin(self, head: Head) -> None:
        if head.websocket:
            self._hand_over(head)
            return
        if head.method == b"CONNECT":
            raise Refused(405, "This is no proxy.")
        scope = (
            None
            if self._api.serves(head.target)
            else scope_of(head, self._config, secure=is_ssl(self.transport))
        )
        self._deadlines.due = None
        self._body = body = body_of(head)
        self._keep_alive = head.keep_alive
        skipped = body is None or (body.left is not None and body.left <= SKIPPED_BYTES)
        keep_alive = head.keep_alive and skipped  # the rest is known when the request is complete
        if scope is None:
            self._begin_exchange(head, keep_alive=keep_alive)
        else:
            self._begin_cycle(head, scope, keep_alive=keep_alive)

    def _begin_exchange(self, head: Head, *, keep_alive: bool) -> None:
        method, body = head.method.decode("ascii"), self._body
        self.cycle = exchange = Exchange(self, method, head.target, bytearray(), keep_alive=keep_alive)
        if body is None:
            exchange.begin(self._api)
            return
        self._unchecked = True
        self._expects = head.expects

    def _check(self) -> None:
        """The body of a request to the API is not complete: it is not waited for in vain."""
        self._unchecked = False
        exchange, body = self.cycle, self._body
        if not isinstance(exchange, Exchange) or body is None or exchange.response_complete:
            return
        length = None if body.left is None else body.left + exchange.size
        if not exchange.refused(self._api, length) and self._expects and not exchange.size:
            self.transport.write(_CONTINUE)

    def _begin_cycle(self, head: Head, scope: dict[str, Any], *, keep_alive: bool) -> None:
        whole = self._body is None
        transport = self.transport if whole else Parting(self.transport, self.part)
        headers, done = self.server_state.default_headers, self.on_response_complete
        self.cycle = cycle = asgi_cycle(head, scope, transport, self.flow, headers, done)
        cycle.keep_alive = keep_alive
        if whole:
            complete(cycle, self._api)
        self.spawn(cycle.run_asgi(self._config.loaded_app))

    def _read_body(self, body: Body) -> bool:
        """Give the request's answer what has come of it. Nobody wants it any more behind the answer."""
        if has_enough(self.cycle):
            return False
        before = len(self._unread)
        data = body.take(self._unread, SLICE_BYTES)
        give(self.cycle, data, self._api)
        if body.done:
            self._complete()
            return True
        if before == len(self._unread):
            return False
        self._deadlines.came(len(data))
        return True

    def _complete(self) -> None:
        """The whole request has come."""
        self._body = self._deadlines.due = None
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            self._deadlines.idle_since = self.loop.time()
            return
        if not cycle.response_started:
            cycle.keep_alive = self._keep_alive
        complete(cycle, self._api)

    def on_response_complete(self) -> None:
        """The next request may begin."""
        self.server_state.total_requests += 1
        self._deadlines.idle_since = self.loop.time()
        self._wanted()

    def _hand_over(self, head: Head) -> None:
        """The connection is somebody else's."""
        unread = bytes(self._unread)
        self._stop_reading()
        self.server_state.connections.discard(self)
        self._resume()
        connection = self._connect(self.server_state.connections)
        connection.connection_made(self.transport)
        self.transport.set_protocol(connection)
        connection.upgrade(head.method, head.target, head.headers)
        if unread and not self.transport.is_closing():
            connection.data_received(unread)

    # --- the end

    def _refuse(self, status: int, reason: str) -> None:
        """Answer what is not read on; the connection ends."""
        if self._body is not None and (self.cycle is None or self.cycle.response_started):
            self._stop_reading()  # it has an answer, or a part of one
            self.transport.abort()
            return
        disconnect(self.cycle)
        logger.warning("a request is refused (%d): %s", status, reason)
        self.transport.write(refusal(status, reason, self.server_state.default_headers))
        self._part(whole=False)

    def part(self) -> None:
        """Close after the answer, but let the peer finish what it is sending."""
        self._part(whole=self._body is None and not self._unread)

    def _part(self, *, whole: bool) -> None:
        if self._gone or self.transport.is_closing():
            return
        self._stop_reading()
        if whole:
            self.transport.close()
        else:
            self._resume()
            self.transport.set_protocol(Farewell(self, self.transport))

    # --- deadlines

    @property
    def busy(self) -> bool:
        """Whether the peer waits for us."""
        return self._paused or (self._body is None and self._answering())

    def expire(self) -> None:
        """The request has not come in time."""
        self._refuse(408, "The request did not come in time.")

    def pause_writing(self) -> None:
        """The peer has to read on soon."""
        self.flow.pause_writing()
        self._deadlines.stall()

    def resume_writing(self) -> None:
        """The peer reads."""
        self._deadlines.read_on()
        self.flow.resume_writing()
