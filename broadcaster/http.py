"""HTTP/1.1 by uvicorn, with time limits on requests that never become whole and answers that nobody reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

if TYPE_CHECKING:
    import asyncio


STALLED_SECONDS: Final = 30.0
"""How long a peer may read nothing of an answer that waits for it."""


class HttpProtocol(HttpToolsProtocol):
    """uvicorn limits how long it waits after an answer; here a request's head has to come as soon.

    Otherwise a peer that connects and says nothing would keep its descriptor for ever, as would one that
    never reads its answer.
    """

    _stalled: asyncio.TimerHandle | None = None

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
        super().connection_lost(exc)

    def _moves(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
