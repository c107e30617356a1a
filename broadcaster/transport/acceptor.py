"""Accepts connections, and chooses their protocol from the first bytes.

Most connections begin with a plain WebSocket upgrade, which is handled here without an HTTP protocol and its
parser: creating these would cost more than the upgrade itself. All other connections get them.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

from . import handshake

if TYPE_CHECKING:
    from collections.abc import Callable

    from .http11 import HttpProtocol
    from .throttle import StartThrottle
    from .websocket import Connection


class Arrivals:
    """The protocol factory for uvicorn, which takes it for the class of its HTTP protocol.

    One timer closes connections that stay silent: all have the same time limit, so they expire in order.

    :param throttle: limits how many connections start per turn of the loop.
    :param seconds: how long a new connection may stay silent.
    :param http: creates an HTTP protocol, given the loop time at which the connection was accepted.
    :param connect: creates a WebSocket connection, given uvicorn's set of open connections.
    """

    def __init__(
        self,
        throttle: StartThrottle,
        seconds: float,
        http: Callable[..., HttpProtocol],
        connect: Callable[[set[Any]], Connection],
    ) -> None:
        self.throttle = throttle
        self.http = http
        self.connect = connect
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._since: dict[PendingConnection, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __call__(self, **of_uvicorn: Any) -> PendingConnection:
        """Create a protocol, with the arguments that uvicorn passes to its own."""
        return PendingConnection(self, of_uvicorn)

    def begin(self, arrival: PendingConnection) -> None:
        """Start the time limit of a new connection."""
        now = self._since[arrival] = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_at(now + self._seconds, self._close_expired)

    def end(self, arrival: PendingConnection) -> float:
        """End the time limit. Returns the loop time at which the connection was accepted. Idempotent."""
        return self._since.pop(arrival, 0.0)

    def _close_expired(self) -> None:
        self._timer = None
        latest = self._loop.time() - self._seconds
        for arrival, since in list(self._since.items()):
            if since > latest:
                self._timer = self._loop.call_at(since + self._seconds, self._close_expired)
                return
            self.end(arrival)
            arrival.shutdown()


class PendingConnection(asyncio.Protocol):
    """A new connection. Its first bytes decide which protocol takes over.

    :param of_uvicorn: the arguments that uvicorn passes to its protocol.
    """

    __slots__ = ("_arrivals", "_of_uvicorn", "_transport")

    _transport: asyncio.Transport

    def __init__(self, arrivals: Arrivals, of_uvicorn: dict[str, Any]) -> None:
        self._arrivals = arrivals
        self._of_uvicorn = of_uvicorn

    @property
    def _open(self) -> set[Any]:
        """The set of open connections, for which uvicorn waits at shutdown."""
        connections: set[Any] = self._of_uvicorn["server_state"].connections
        return connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start reading, now or in a later turn of the loop."""
        self._transport = cast("asyncio.Transport", transport)
        self._open.add(self)
        self._arrivals.begin(self)
        if not self._arrivals.throttle.put(self._begin):
            self._transport.pause_reading()

    def _begin(self) -> None:
        """Start reading, after waiting for a turn."""
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Hand the connection over to its protocol."""
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
        """The peer has disconnected before its first bytes."""
        del exc
        self._arrivals.end(self)
        self._open.discard(self)

    def shutdown(self) -> None:
        """Close the connection. Called by uvicorn at shutdown."""
        self._transport.close()
