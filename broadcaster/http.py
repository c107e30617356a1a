"""HTTP/1.1 by uvicorn, with a time limit on requests that never become whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

if TYPE_CHECKING:
    import asyncio


class HttpProtocol(HttpToolsProtocol):
    """uvicorn limits how long it waits after an answer; here a request's head has to come as soon.

    Otherwise a peer that connects and says nothing would keep its descriptor for ever.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._wait_until(self.loop.time() + self.timeout_keep_alive)

    def data_received(self, data: bytes) -> None:
        """As uvicorn does; a head that is not whole yet does not move the limit."""
        waiting = self.timeout_keep_alive_task
        super().data_received(data)
        cycle: RequestResponseCycle | None = self.cycle
        idle = cycle is None or cycle.response_complete
        if waiting is not None and idle and self.timeout_keep_alive_task is None:
            self._wait_until(waiting.when())

    def _wait_until(self, when: float) -> None:
        if self.transport.get_protocol() is self and not self.transport.is_closing():
            self.timeout_keep_alive_task = self.loop.call_at(when, self.timeout_keep_alive_handler)
