"""One WebSocket connection: its handshake, what is written to it, and its end. :mod:`.reading` reads.

Nothing is written past back-pressure. While the peer takes nothing, whatever is to be said to it is queued
within a bound, and nothing is read of what it says: so it cannot ask for more than it takes.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final, cast

from legato.broadcaster.clients.client import error_frame
from legato.protocol import errors

from . import handshake
from .cut import cut
from .reading import Reading

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from legato.broadcaster.clients.client import ClientContext
    from legato.protocol.errors import PusherError

    from .handshake import UpgradeRequest

CLOSE_TIMEOUT: Final = 5.0
"""Seconds that a closing socket has to finish the close handshake before it is aborted."""

WRITE_HIGH_WATER: Final = 65_536
"""Bytes in the transport's buffer from which on a socket is slow."""


STALLED_SECONDS: Final = 30.0
"""How often it is looked whether a slow peer takes anything. One that has not in between is cut."""


class Connection(Reading):
    """A client behind a WebSocket.

    An ``asyncio.Protocol``, to which the HTTP protocol hands the transport over (:mod:`.http11`).
    """

    __slots__ = (
        "_backlog",
        "_backlog_bytes",
        "_closing",
        "_open_connections",
        "_patience",
        "_pending",
    )

    _backlog_bytes: int
    """Of the backlog, if there is one."""
    _pending: int | None
    """What the transport had at the last look at a slow peer, if there was one."""

    def __init__(self, context: ClientContext, open_connections: set[Any]) -> None:
        """``open_connections`` is uvicorn's set of what it waits for at shutdown."""
        super().__init__(context)
        self._open_connections = open_connections
        self._closing: asyncio.TimerHandle | None = None
        self._patience: asyncio.TimerHandle | None = None
        self._backlog: deque[bytes] | None = None

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport over from the HTTP protocol."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=WRITE_HIGH_WATER)
        self.write_now = self._transport.write
        self._open_connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Undo everything that the connection had."""
        del exc
        self._open_connections.discard(self)
        if self._closing is not None:
            self._closing.cancel()
        if self._patience is not None:
            self._patience.cancel()
        if self.slow:
            self.slow = False
            self.context.figures.slow -= 1
        self.leave()
        self._backlog = None
        self.forget_unread()

    def pause_writing(self) -> None:
        """The transport's buffer is full: from here on bytes are queued, and nothing is read."""
        self.slow = True
        self.context.figures.slow += 1
        self.context.hub.set_slow(self, slow=True)
        self.hold_up()
        self._pending = None
        if self._patience is None:
            self._patience = self.context.loop.call_later(STALLED_SECONDS, self._look)

    def _look(self) -> None:
        """Cut a peer that has taken nothing since the last look."""
        self._patience = None
        if not self.slow:
            return
        pending = self._transport.get_write_buffer_size()
        if pending == self._pending:
            self.context.figures.slow_closed += 1
            self.abort()
            return
        self._pending = pending
        self._patience = self.context.loop.call_later(STALLED_SECONDS, self._look)

    def resume_writing(self) -> None:
        """The transport's buffer has drained: write what has queued up, then be fast again."""
        self.slow = False
        self.context.figures.slow -= 1
        while self._backlog and not self.slow:
            self._write_some(self._backlog)
        if not self.slow:
            self._backlog = None
            self.context.hub.set_slow(self, slow=False)
            self.relieve()

    def _write_some(self, backlog: deque[bytes]) -> None:
        """As much as makes it slow again, and no more: the rest still counts against the queue's bound."""
        batch, size = [], 0
        while backlog and size < WRITE_HIGH_WATER:
            batch.append(backlog.popleft())
            size += len(batch[-1])
        self._backlog_bytes -= size
        self.write(b"".join(batch))  # may pause again, synchronously

    # --- what the hub and the drain call

    def write(self, data: bytes) -> None:
        """Write now, or queue while the socket is slow."""
        if self.slow:
            self.enqueue(data)
            return
        try:
            self.write_now(data)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is of this connection alone
            cut(self, "writing to it", error)

    def enqueue(self, data: bytes) -> None:
        """Queue for a slow socket; past the bound it is closed, and the client comes back and recovers."""
        if self._closing is not None:
            return
        if self._backlog is None:  # most clients never need one
            self._backlog = deque()
            self._backlog_bytes = 0
        self._backlog.append(data)
        self._backlog_bytes += len(data)
        if self._backlog_bytes > self.context.server.send_queue_bytes:
            self._drop_backlog()
            self.give_up(errors.TOO_SLOW)

    def say_goodbye(self, error: PusherError) -> None:
        """The error event, then the close frame."""
        if self._closing is not None or self._transport.is_closing():
            return
        queued = b"".join(self._backlog or ()) if error in errors.RESTARTS else b""
        # Past the queue on purpose: the client learns why even when what was queued is dropped.
        self.write_last(queued + error_frame(error))
        library = self.library()
        library.send_close(error.code, error.message)
        self.await_close()
        self.write_answers(library)

    def write_last(self, data: bytes) -> None:
        """Write this behind what the transport has: nothing queued may follow (RFC 6455 section 5.5.1)."""
        self._drop_backlog()
        try:
            self.write_now(data)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is of this connection alone
            cut(self, "writing to it", error)

    def _drop_backlog(self) -> None:
        self._backlog = None

    def abort(self) -> None:
        """Cut the connection, whatever is still to be written."""
        self._transport.abort()

    def shutdown(self) -> None:
        """What uvicorn calls when it stops."""
        self.close(errors.DRAINING)

    # --- the handshake

    def upgrade(self, method: bytes, target: bytes, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Answer the request for it.

        :param headers: names in lower case.
        """
        response, accepted = handshake.answer(method, target, headers)
        if accepted:
            self.open(response, handshake.asked(target, headers))
        else:
            self._transport.write(response)
            self.await_close()
            self._transport.close()

    def open(self, response: bytes, asked: UpgradeRequest) -> None:
        """The connection is a WebSocket, by this answer. What follows that at once is of the same write."""
        first = [response]
        self.write_now = first.append
        try:
            self.begin(*asked)
        finally:
            self.write_now = self._transport.write
            self._transport.write(b"".join(first))

    # --- the end

    def await_close(self) -> None:
        """Not for ever."""
        if self._closing is None:
            self._closing = self.context.loop.call_later(CLOSE_TIMEOUT, self._transport.abort)

    def hang_up(self) -> None:
        """What the transport has is still written."""
        self.await_close()
        self.leave()
        self._drop_backlog()
        self._transport.close()
