"""One WebSocket connection: handshake, writing, and close. :mod:`.reading` has the reading half.

Writing respects back-pressure. While the peer does not read, frames for it are queued within a bound, and
nothing is read from it, so that it cannot request more than it reads.
"""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Any, cast

from legato.broadcaster.clients.ends import error_frame
from legato.broadcaster.limits import (
    CLOSE_HANDSHAKE_SECONDS,
    MERGING_HIGH_WATER_BYTES,
    MERGING_UNSENT_BYTES,
    WRITE_HIGH_WATER_BYTES,
    WRITE_STALL_SECONDS,
)
from legato.protocol import errors, refusals

from . import handshake
from .cut import cut
from .peer import address_of
from .reading import ReadingHalf

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from legato.broadcaster.clients.client import ClientContext
    from legato.protocol.errors import PusherError

    from .handshake import UpgradeRequest
    from .send_queue import SendQueue


class Connection(ReadingHalf):
    """A client on a WebSocket.

    An ``asyncio.Protocol`` that takes the transport over from another one (:mod:`.acceptor`, :mod:`.http11`).
    """

    __slots__ = (
        "_backlog",
        "_closing",
        "_open_connections",
        "_pending",
        "_stall_timer",
    )

    _pending: int | None
    """Bytes in the transport's buffer at the last write-stall check; None before the first one."""

    def __init__(self, context: ClientContext, open_connections: set[Any]) -> None:
        """``open_connections`` is uvicorn's set of connections, for which it waits at shutdown."""
        super().__init__(context)
        self._open_connections = open_connections
        self._closing: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None
        self._backlog: SendQueue | None = None  # most clients never need one

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport over from the HTTP protocol."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=WRITE_HIGH_WATER_BYTES)
        self.write_now = self._transport.write
        self._open_connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Release everything that the connection holds."""
        del exc
        self._open_connections.discard(self)
        if self._closing is not None:
            self._closing.cancel()
        if self._stall_timer is not None:
            self._stall_timer.cancel()
        if self.slow:
            self.slow = False
            self.context.figures.slow -= 1
        self.leave()
        self._backlog = None
        self.forget_unread()

    def pause_writing(self) -> None:
        """The transport's buffer is full: queue further bytes, and stop reading."""
        self.slow = True
        self.context.figures.slow += 1
        self.context.hub.set_slow(self, slow=True)
        self.hold_up()
        self._pending = None
        if self._stall_timer is None:
            self._stall_timer = self.context.loop.call_later(WRITE_STALL_SECONDS, self._check_stall)

    def _check_stall(self) -> None:
        """Cut a slow peer that has read nothing since the last check."""
        self._stall_timer = None
        if not self.slow:
            return
        pending = self._transport.get_write_buffer_size()
        if pending == self._pending:
            self.context.figures.slow_closed += 1
            self.refused(refusals.TOO_SLOW, detail="it has read nothing for some time")
            self.abort()
            return
        self._pending = pending
        self._stall_timer = self.context.loop.call_later(WRITE_STALL_SECONDS, self._check_stall)

    def resume_writing(self) -> None:
        """The transport's buffer has drained: write the queued bytes, then leave the slow state."""
        self.slow = False
        self.context.figures.slow -= 1
        merges = self.session is not None and self.session.merging
        portion = MERGING_HIGH_WATER_BYTES if merges else WRITE_HIGH_WATER_BYTES
        while self._backlog and not self.slow:
            # One buffer's worth, so that the rest still counts against the bound of the queue. The write may
            # pause again, synchronously.
            self.write(self._backlog.take(portion))
        if not self.slow:
            self._backlog = None
            self.context.hub.set_slow(self, slow=False)
            self.relieve()

    @property
    def address(self) -> str:
        """See the base class."""
        return address_of(self._transport)

    # --- called by the hub and the drain

    def write(self, data: bytes) -> None:
        """Write now, or queue while the socket is slow."""
        if self.slow:
            self.enqueue(data)
            return
        try:
            self.write_now(data)
        except Exception as error:  # noqa: BLE001 - affects this connection only
            cut(self, "writing to it", error)

    def enqueue(self, data: bytes) -> None:
        """Queue for a slow socket. When the queue is full, close it: the client reconnects and recovers."""
        if self._closing is not None:
            return
        backlog = self._backlog
        if backlog is None:
            backlog = self._backlog = self.new_send_queue()
        if backlog.put(data) > backlog.limit:
            self._backlog = self.over_limit(backlog)
            if self._backlog is None:
                self.give_up(errors.TOO_SLOW)

    def shorten_buffers(self) -> None:
        """See the base class. The kernel's buffer alone would take a minute of tokens for a slow client."""
        self._transport.set_write_buffer_limits(high=MERGING_HIGH_WATER_BYTES)
        transport_socket = self._transport.get_extra_info("socket")
        with contextlib.suppress(OSError):  # it is gone
            transport_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, MERGING_UNSENT_BYTES)

    def say_goodbye(self, error: PusherError) -> None:
        """Send the error event, then the close frame."""
        if self._closing is not None or self._transport.is_closing():
            return
        backlog = self._backlog if error in errors.RESTARTS else None
        queued = b"" if backlog is None else backlog.take()
        # Bypasses the queue on purpose: the client learns the reason even if the queue is dropped.
        self.write_last(queued + error_frame(error))
        library = self.library()
        library.send_close(error.code, error.message)
        self.await_close()
        self.write_answers(library)

    def write_last(self, data: bytes) -> None:
        """Write a close frame and drop the queue: nothing may follow it (RFC 6455 section 5.5.1)."""
        self._drop_backlog()
        try:
            self.write_now(data)
        except Exception as error:  # noqa: BLE001 - affects this connection only
            cut(self, "writing to it", error)

    def _drop_backlog(self) -> None:
        self._backlog = None

    def abort(self) -> None:
        """Cut the connection, and drop unwritten data."""
        self._transport.abort()

    def shutdown(self) -> None:
        """Close with the code of a drain. Called by uvicorn at shutdown."""
        self.close(errors.DRAINING)

    # --- the handshake

    def upgrade(self, method: bytes, target: bytes, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Answer an upgrade request.

        :param headers: names in lower case.
        """
        response, accepted = handshake.answer(method, target, headers)
        if accepted:
            self.open(response, handshake.asked(target, headers))
        else:
            status = int(response[len(b"HTTP/1.1 ") :][:3])
            self.refused(
                refusals.BAD_HANDSHAKE, status=status, path=target.partition(b"?")[0].decode("latin-1")
            )
            self._transport.write(response)
            self.await_close()
            self._transport.close()

    def open(self, response: bytes, asked: UpgradeRequest) -> None:
        """Accept the upgrade with ``response``. Frames that follow at once are part of the same write."""
        first = [response]
        self.write_now = first.append
        if (callers := self.context.addresses.callers) is not None:
            self.caller = callers.of(self._transport, asked.forwarded)
        try:
            self.forwarded = asked.forwarded.decode("latin-1")
            self.begin(*asked[:3])
        finally:
            self.write_now = self._transport.write
            self._transport.write(b"".join(first))

    # --- the end

    def await_close(self) -> None:
        """Start the close timeout."""
        if self._closing is None:
            self._closing = self.context.loop.call_later(CLOSE_HANDSHAKE_SECONDS, self._transport.abort)

    def hang_up(self, code: int) -> None:
        """Leave, and close after the transport's buffer is written."""
        self.await_close()
        self.leave(code)
        self._drop_backlog()
        self._transport.close()
