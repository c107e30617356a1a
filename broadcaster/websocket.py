"""One WebSocket connection: bytes go in, the session says what to do, and its effects are run here.

What clients send all the time, whole text frames, is read here. For everything else there is ``websockets``'
Sans-I/O ``Protocol``, made when it is first needed: fragments, control frames, what breaks a rule, the close
handshake. What the hub writes bypasses it: ready-made frames.
"""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side, State

from protocol import errors

from . import handshake
from .client import Client, error_frame
from .frames import goodbye, whole_texts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from protocol.errors import PusherError

    from .handshake import Asked
    from .node import Node

CLOSE_TIMEOUT: Final = 5.0
"""Seconds that a closing socket has to finish the close handshake before it is aborted."""

WRITE_HIGH_WATER: Final = 65_536
"""Bytes in the transport's buffer from which on a socket is slow."""


class Connection(Client, asyncio.Protocol):
    """A client behind a WebSocket.

    An ``asyncio.Protocol``, to which the HTTP protocol hands the transport over (:mod:`.http`).
    """

    __slots__ = (
        "_backlog",
        "_backlog_bytes",
        "_closing",
        "_fragments",
        "_open_connections",
        "_protocol",
        "_transport",
    )

    _transport: asyncio.Transport

    def __init__(self, node: Node, open_connections: set[Any]) -> None:
        """``open_connections`` is uvicorn's set of what it waits for at shutdown."""
        super().__init__(node)
        self._open_connections = open_connections
        self._protocol: Protocol | None = None
        self._closing: asyncio.TimerHandle | None = None
        self._fragments: bytearray | None = None
        self._backlog: deque[bytes] | None = None
        self._backlog_bytes = 0

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport over from the HTTP protocol."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=WRITE_HIGH_WATER)
        self.write_now = self._transport.write
        self._open_connections.add(self)

    def data_received(self, data: bytes) -> None:
        """Run everything that the bytes complete."""
        texts = None
        if self._protocol is None:
            texts = whole_texts(data, self.node.settings.server.max_message_bytes)
        if texts is not None:
            for text in texts:
                self.receive(text)
            return
        if self.session is not None:
            self.session.seen(self.node.now())
        if self._protocol is None and not self.node.turns.put(partial(self._read_in_turn, data)):
            self._transport.pause_reading()  # most likely a crowd that says goodbye
        else:
            self._read(data)

    def _read_in_turn(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()
            self._read(data)

    def _read(self, data: bytes) -> None:
        answer = goodbye(data) if self._protocol is None else None
        if answer is not None:
            self.write_now(answer)
            self._hang_up()
            return
        protocol = self._library()
        protocol.receive_data(data)
        for event in protocol.events_received():
            if isinstance(event, Frame):
                self._frame(event)
        self._write_protocol_output()

    def _library(self) -> Protocol:
        """From now on it reads what comes."""
        if self._protocol is None:
            limit = self.node.settings.server.max_message_bytes
            self._protocol = Protocol(Side.SERVER, state=State.OPEN, max_size=limit, logger=handshake.silent)
        return self._protocol

    def eof_received(self) -> None:
        """The peer has ended its half: nothing more can be answered to it."""
        if self._protocol is not None:
            self._protocol.receive_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        """Undo everything that the connection had."""
        del exc
        self._open_connections.discard(self)
        if self._closing is not None:
            self._closing.cancel()
        if self.slow:
            self.slow = False
            self.node.slow_connections -= 1
        self.leave()
        self._backlog = None

    def pause_writing(self) -> None:
        """The transport's buffer is full: from here on bytes are queued, within a bound."""
        self.slow = True
        self.node.slow_connections += 1
        self.node.hub.set_slow(self, slow=True)

    def resume_writing(self) -> None:
        """The transport's buffer has drained: write what has queued up, then be fast again."""
        self.slow = False
        self.node.slow_connections -= 1
        if self._backlog:
            joined = b"".join(self._backlog)
            self._backlog = None
            self._backlog_bytes = 0
            self.write_now(joined)  # may pause again, synchronously
        if not self.slow:
            self.node.hub.set_slow(self, slow=False)

    # --- what the hub and the drain call

    def write(self, data: bytes) -> None:
        """Write now, or queue while the socket is slow."""
        if self.slow:
            self.enqueue(data)
        else:
            self.write_now(data)

    def enqueue(self, data: bytes) -> None:
        """Queue for a slow socket; past the bound it is closed, and the client comes back and recovers."""
        if self._closing is not None:
            return
        if self._backlog is None:  # most clients never need one
            self._backlog = deque()
        self._backlog.append(data)
        self._backlog_bytes += len(data)
        if self._backlog_bytes > self.node.settings.server.send_queue_bytes:
            self._backlog.clear()
            self.give_up(errors.TOO_SLOW)

    def say_goodbye(self, error: PusherError) -> None:
        """The error event, then the close frame."""
        if self._closing is not None or self._transport.is_closing():
            return
        queued = b"".join(self._backlog or ()) if error in errors.RESTARTS else b""
        self._backlog = None  # nothing may follow a close frame (RFC 6455 section 5.5.1)
        self._backlog_bytes = 0
        # Past the queue on purpose: the client learns why even when what was queued is dropped.
        self.write_now(queued + error_frame(error))
        protocol = self._library()
        if protocol.state is State.OPEN:
            protocol.send_close(error.code, error.message)
        self._arm_close_timer()
        self._write_protocol_output()

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
            self._transport.close()

    def open(self, response: bytes, asked: Asked) -> None:
        """The connection is a WebSocket, by this answer. What follows that at once is of the same write."""
        first = [response]
        self.write_now = first.append
        try:
            self.begin(*asked)
        finally:
            self.write_now = self._transport.write
            self._transport.write(b"".join(first))

    # --- frames in

    def _frame(self, frame: Frame) -> None:
        if frame.opcode in (Opcode.TEXT, Opcode.CONT):
            if self._fragments is None:
                self._fragments = bytearray()
            self._fragments += frame.data
            if frame.fin:
                text = bytes(self._fragments)
                self._fragments = None
                self.receive(text)
        elif frame.opcode is Opcode.BINARY:
            # Not part of the protocol (section 1.4): closed, since fragments of one would look like text.
            self._library().fail(1003, "binary frames are not supported")
            self.leave()
        elif frame.opcode is Opcode.CLOSE:
            self._arm_close_timer()

    def _arm_close_timer(self) -> None:
        if self._closing is None:
            self._closing = self.node.loop.call_later(CLOSE_TIMEOUT, self._transport.abort)

    def _write_protocol_output(self) -> None:
        for data in self._library().data_to_send():
            if data:
                self.write_now(data)
            else:  # ServerProtocol's sign for "close the TCP connection now"
                self._hang_up()

    def _hang_up(self) -> None:
        self._arm_close_timer()
        self.leave()
        self._transport.close()
