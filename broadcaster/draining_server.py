"""The server around a node: uvicorn, with a drain before its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from typing import TYPE_CHECKING, Any, Final

import uvicorn

from .limits import (
    CLOSED_CHECK_SECONDS,
    DRAIN_CLOSE_SECONDS,
    FILE_LIMIT_CHECK_TICKS,
    FORCED_EXIT_CHECK_SECONDS,
)
from .transport.file_limit import FileLimit
from .transport.listener import stop_listening
from .transport.websocket import Connection

if TYPE_CHECKING:
    import socket
    from collections.abc import Coroutine, Generator

    from .node import Node

logger: Final = logging.getLogger("legato.broadcaster")


class DrainingServer(uvicorn.Server):
    """uvicorn with a drain: it stops accepting, drains, and then closes the connections that are left.

    :ivar ready: done when connections are accepted.
    """

    def __init__(self, config: uvicorn.Config, node: Node) -> None:
        super().__init__(config)
        self._node = node
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
        self.force_exit = self._node.peers.hurried = self._interrupts > 1

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Give notice, close the listener, drain, then let uvicorn finish the running requests."""
        self._node.clients.leaving = True
        # In place: running requests have the list already.
        self.server_state.default_headers.append((b"connection", b"close"))
        # This also tells the peers: those that stop too send no clients here.
        await self._unless_forced(self._node.peers.ask())
        await self._unless_forced(asyncio.sleep(self._node.settings.server.notice_seconds))
        await asyncio.gather(
            *(self._take(one) for one in stop_listening(sockets or ())), return_exceptions=True
        )
        for server in self.servers:
            server.close()
        await self._unless_forced(self._node.drain.run())
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
        deadline = self._node.context.now() + DRAIN_CLOSE_SECONDS
        while (  # noqa: ASYNC110 - uvicorn's set of connections has no event
            self._websockets() and self._node.context.now() < deadline and not self.force_exit
        ):
            await asyncio.sleep(CLOSED_CHECK_SECONDS)
        for connection in self._websockets():
            connection.abort()

    def _websockets(self) -> list[Connection]:
        return [open_ for open_ in self.server_state.connections if isinstance(open_, Connection)]
