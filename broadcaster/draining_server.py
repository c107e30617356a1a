"""The server around a node: uvicorn, with a drain before its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

import uvicorn

from legato.protocol.settings import SettingsError

from .limits import (
    CLOSED_CHECK_SECONDS,
    DRAIN_CLOSE_SECONDS,
    FILE_LIMIT_CHECK_TICKS,
    FORCED_EXIT_CHECK_SECONDS,
    SHUTDOWN_REQUEST_SECONDS,
)
from .transport.acceptor import Arrivals
from .transport.file_limit import FileLimit
from .transport.http11 import HttpProtocol
from .transport.listener import stop_listening
from .transport.websocket import Connection

if TYPE_CHECKING:
    import socket
    from collections.abc import Coroutine, Generator

    from .api.app import HttpApp
    from .clients.client import ClientContext
    from .config import Server
    from .transport.throttle import StartThrottle

logger: Final = logging.getLogger("legato.broadcaster")


class Draining(Protocol):
    """What the server asks of the node behind it when it stops.

    The server calls :meth:`give_notice`, :meth:`tell_peers` and :meth:`drain`, each once and in this order.
    It cancels the latter two after a second signal. None of them closes the listener or a connection that
    is no client.
    """

    def give_notice(self) -> None:
        """Report from now on that the node is not ready. Clients are still accepted."""

    async def tell_peers(self) -> None:
        """Tell the other nodes that this one is stopping. Ends within a few seconds if Redis hangs."""

    async def drain(self) -> None:
        """Accept no new clients, and close all open ones after the messages that they still have to get.

        After it every client is closed, but some may not have answered the close frame.
        """

    def hurry(self) -> None:
        """Wait no longer for Redis in what begins from now on. Idempotent; callable at any time."""


class DrainingServer(uvicorn.Server):
    """uvicorn with a drain: it stops accepting, drains, and then closes the connections that are left.

    :param notice_seconds: how long it still accepts connections after it has given notice.
    :ivar ready: done when connections are accepted.
    """

    def __init__(self, config: uvicorn.Config, node: Draining, notice_seconds: float) -> None:
        super().__init__(config)
        self._node = node
        self._notice_seconds = notice_seconds
        self._interrupts = 0
        self._files = FileLimit()
        self.ready = asyncio.get_running_loop().create_future()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections, and set :attr:`ready`."""
        await super().startup(sockets)
        self.ready.set_result(None)

    async def on_tick(self, counter: int) -> bool:
        """See uvicorn, which calls it every tenth of a second."""
        if counter % FILE_LIMIT_CHECK_TICKS == 0:
            self._files.look()
        return await super().on_tick(counter)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """The first SIGTERM or SIGINT drains, a second one stops at once. uvicorn would raise them again."""
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, self._stop)
        try:
            yield
        finally:
            for signum in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(signum)

    def _stop(self) -> None:
        self._interrupts += 1
        self.should_exit = True
        if self._interrupts > 1:
            self.force_exit = True
            self._node.hurry()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Give notice, close the listener, drain, then let uvicorn finish the running requests."""
        self._node.give_notice()
        # In place: running requests have the list already.
        self.server_state.default_headers.append((b"connection", b"close"))
        await self._unless_forced(self._node.tell_peers())
        await self._unless_forced(asyncio.sleep(self._notice_seconds))
        await asyncio.gather(
            *(self._take(one) for one in stop_listening(sockets or ())), return_exceptions=True
        )
        for server in self.servers:
            server.close()
        await self._unless_forced(self._node.drain())
        await self._closed()
        await super().shutdown(sockets)

    async def _take(self, accepted: socket.socket) -> None:
        """Serve a connection that the event loop has not accepted itself."""
        config = self.config

        def protocol() -> asyncio.Protocol:
            made: asyncio.Protocol = config.http_protocol_class(  # type: ignore[call-arg]
                config=config, server_state=self.server_state, app_state=self.lifespan.state
            )
            return made

        await asyncio.get_running_loop().connect_accepted_socket(protocol, accepted, ssl=config.ssl)

    async def _unless_forced(self, work: Coroutine[Any, Any, object]) -> None:
        """Wait for it, but not longer than until a second signal."""
        drained = asyncio.ensure_future(work)
        while not drained.done() and not self.force_exit:
            await asyncio.wait([drained], timeout=FORCED_EXIT_CHECK_SECONDS)
        drained.cancel()
        for error in await asyncio.gather(drained, return_exceptions=True):
            if isinstance(error, Exception):
                logger.error("the drain failed", exc_info=error)

    async def _closed(self) -> None:
        """Wait a moment for the close handshakes, then cut the connections that are left."""
        now = asyncio.get_running_loop().time
        deadline = now() + DRAIN_CLOSE_SECONDS
        while (  # noqa: ASYNC110 - uvicorn's set of connections has no event
            self._websockets() and now() < deadline and not self.force_exit
        ):
            await asyncio.sleep(CLOSED_CHECK_SECONDS)
        for connection in self._websockets():
            connection.abort()

    def _websockets(self) -> list[Connection]:
        return [open_ for open_ in self.server_state.connections if isinstance(open_, Connection)]


def uvicorn_config(
    server: Server, app: HttpApp, context: ClientContext, throttle: StartThrottle
) -> uvicorn.Config:
    """Make uvicorn serve the application with our own protocols.

    :param throttle: starts new connections a few per turn of the loop.
    :raises SettingsError: the certificate or its key cannot be used.
    """
    seconds, connect = round(server.keep_alive), partial(Connection, context)
    http = partial(HttpProtocol, app.api, connect, context.budget, server.request_seconds)
    config = uvicorn.Config(
        app,
        http=Arrivals(throttle, seconds, http, connect),  # type: ignore[arg-type]
        ws=Connection,  # made by our protocols; None would switch WebSockets off
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,  # it would believe what anybody on this machine says; see addresses/
        backlog=4096,
        timeout_keep_alive=seconds,
        timeout_graceful_shutdown=SHUTDOWN_REQUEST_SECONDS,
        ssl_certfile=server.tls_cert or None,
        ssl_keyfile=server.tls_key or None,
    )
    try:
        config.load()
    except OSError as error:  # ssl.SSLError is one
        raise SettingsError(f"server.tls_cert, server.tls_key: {error.strerror or error}") from error
    return config
