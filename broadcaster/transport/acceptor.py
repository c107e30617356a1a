"""Connections that have not said anything yet.

Most bring one plain request for a WebSocket, which needs nothing of uvicorn's HTTP protocol. That, and its
parser, cost more than all that such a request asks for, so they are made for those who bring anything else.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

from . import handshake

if TYPE_CHECKING:
    from collections.abc import Callable

    from .http11 import HttpProtocol
    from .throttle import Turns
    from .websocket import Connection


class Arrivals:
    """Stands where uvicorn expects the class of its HTTP protocol.

    One timer closes those who say nothing for too long: all have the same time, so they are due in order.

    :param turns: where connections wait until their requests are read.
    :param seconds: how long one may say nothing.
    :param http: makes what speaks HTTP, given since when the connection is there, in the loop's time.
    :param connect: makes what a WebSocket is for us, given uvicorn's set of what is open.
    """

    def __init__(
        self,
        turns: Turns,
        seconds: float,
        http: Callable[..., HttpProtocol],
        connect: Callable[[set[Any]], Connection],
    ) -> None:
        self.turns = turns
        self.http = http
        self.connect = connect
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._since: dict[Arrival, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __call__(self, **of_uvicorn: Any) -> Arrival:
        """As uvicorn makes its own."""
        return Arrival(self, of_uvicorn)

    def begin(self, arrival: Arrival) -> None:
        """Wait for its first bytes."""
        now = self._since[arrival] = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_at(now + self._seconds, self._look)

    def end(self, arrival: Arrival) -> float:
        """It waits no longer. Since when it is there. Idempotent."""
        return self._since.pop(arrival, 0.0)

    def _look(self) -> None:
        self._timer = None
        latest = self._loop.time() - self._seconds
        for arrival, since in list(self._since.items()):
            if since > latest:
                self._timer = self._loop.call_at(since + self._seconds, self._look)
                return
            self.end(arrival)
            arrival.shutdown()


class Arrival(asyncio.Protocol):
    """One of them, until its first bytes: those go to the protocol that is for them.

    :param of_uvicorn: what uvicorn gives to its protocol.
    """

    __slots__ = ("_arrivals", "_of_uvicorn", "_transport")

    _transport: asyncio.Transport

    def __init__(self, arrivals: Arrivals, of_uvicorn: dict[str, Any]) -> None:
        self._arrivals = arrivals
        self._of_uvicorn = of_uvicorn

    @property
    def _open(self) -> set[Any]:
        """What uvicorn waits for at shutdown."""
        connections: set[Any] = self._of_uvicorn["server_state"].connections
        return connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Read from it when it is its turn."""
        self._transport = cast("asyncio.Transport", transport)
        self._open.add(self)
        self._arrivals.begin(self)
        if not self._arrivals.turns.put(self._begin):
            self._transport.pause_reading()

    def _begin(self) -> None:
        """Its turn has come, in the crowd of those who connect at the same time."""
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Hand the connection over."""
        since = self._arrivals.end(self)
        self._open.discard(self)
        answered = handshake.at_once(data)
        if answered is None:
            protocol = self._arrivals.http(since=since, **self._of_uvicorn)
            protocol.connection_made(self._transport)
            self._transport.set_protocol(protocol)
            protocol.data_received(data)
        else:
            connection = self._arrivals.connect(self._open)
            connection.connection_made(self._transport)
            self._transport.set_protocol(connection)
            connection.open(*answered)

    def connection_lost(self, exc: Exception | None) -> None:
        """It has gone without a word."""
        del exc
        self._arrivals.end(self)
        self._open.discard(self)

    def shutdown(self) -> None:
        """What uvicorn calls when it stops."""
        self._transport.close()
