"""One WebSocket connection: an ``asyncio.Protocol`` around the Sans-I/O ``ServerProtocol``.

uvicorn hands the transport over after it has read the upgrade request. Bytes go in, the session says what
to do, and its effects are run here. What the hub writes bypasses ``ServerProtocol``: ready-made frames.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Any, Final, cast

from websockets.datastructures import MultipleValuesError
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from protocol import errors, messages
from protocol.apps import SUBPROTOCOL
from protocol.session import Close, Effect, Send, Session, Subscribe, Unsubscribe
from protocol.signatures import parse_query

from .frames import text_frame
from .hub import Key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from websockets.typing import Subprotocol

    from protocol.errors import PusherError

    from .node import Node

CLOSE_TIMEOUT: Final = 5.0
"""Seconds that a closing socket has to finish the close handshake before it is aborted."""

WRITE_HIGH_WATER: Final = 65_536
"""Bytes in the transport's buffer from which on a socket is slow."""

_silent: Final = logging.getLogger("legato.websocket.protocol")
_silent.setLevel(logging.CRITICAL)  # a client's broken frame is not an event of the server's


def _select_subprotocol(_protocol: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """The first offered Pusher sub-protocol, else none; never required (protocol section 1.3)."""
    return next((name for name in offered if SUBPROTOCOL.fullmatch(name)), None)


class Connection(asyncio.Protocol):
    """A client. Satisfies :class:`broadcaster.hub.Subscriber` and :class:`broadcaster.wheel.Timed`."""

    __slots__ = (
        "_backlog",
        "_backlog_bytes",
        "_closing",
        "_fragments",
        "_node",
        "_open_connections",
        "_protocol",
        "_session",
        "_transport",
        "slow",
        "socket_id",
        "write_now",
    )

    write_now: Callable[[bytes], None]
    _transport: asyncio.Transport

    def __init__(self, node: Node, open_connections: set[Any]) -> None:
        """``open_connections`` is uvicorn's set of what it waits for at shutdown."""
        self._node = node
        self._open_connections = open_connections
        self._protocol = ServerProtocol(
            select_subprotocol=_select_subprotocol,
            max_size=node.settings.server.max_message_bytes,
            logger=_silent,
        )
        self._session: Session | None = None
        self._closing: asyncio.TimerHandle | None = None
        self._fragments: list[bytes] = []
        self._backlog: deque[bytes] = deque()
        self._backlog_bytes = 0
        self.slow = False
        self.socket_id = ""

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport over from the HTTP protocol."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=WRITE_HIGH_WATER)
        self.write_now = self._transport.write
        self._open_connections.add(self)

    def data_received(self, data: bytes) -> None:
        """Run everything that the bytes complete."""
        self._protocol.receive_data(data)
        if self._session is not None:
            self._session.seen(self._node.now())
        for event in self._protocol.events_received():
            if isinstance(event, Request):
                self._handshake(event)
            elif isinstance(event, Frame):
                self._frame(event)
        self._write_protocol_output()

    def eof_received(self) -> None:
        """The peer has ended its half: nothing more can be answered to it."""
        self._protocol.receive_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        """Undo everything that the connection had."""
        del exc
        self._open_connections.discard(self)
        if self._closing is not None:
            self._closing.cancel()
        if self.slow:
            self.slow = False
            self._node.slow_connections -= 1
        self._leave()
        self._backlog.clear()

    def pause_writing(self) -> None:
        """The transport's buffer is full: from here on bytes are queued, within a bound."""
        self.slow = True
        self._node.slow_connections += 1
        self._node.hub.set_slow(self, slow=True)

    def resume_writing(self) -> None:
        """The transport's buffer has drained: write what has queued up, then be fast again."""
        self.slow = False
        self._node.slow_connections -= 1
        if self._backlog:
            joined = b"".join(self._backlog)
            self._backlog.clear()
            self._backlog_bytes = 0
            self.write_now(joined)  # may pause again, synchronously
        if not self.slow:
            self._node.hub.set_slow(self, slow=False)

    # --- what the hub, the wheel and the drain call

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
        self._backlog.append(data)
        self._backlog_bytes += len(data)
        if self._backlog_bytes > self._node.settings.server.send_queue_bytes:
            self._node.slow_closed += 1
            self._backlog.clear()
            self.close(errors.TOO_SLOW)

    def subscriptions(self) -> Iterable[Key]:
        """Every channel that this connection has in the hub."""
        if self._session is None:
            return ()
        return [Key(self._session.app.id, channel) for channel in self._session.channels]

    def check_at(self, now: float) -> float | None:
        """Liveness, from the wheel."""
        session = self._session
        if session is None:
            return None
        self._run(session.check(now))
        return session.deadline if self._session is session else None

    def close(self, error: PusherError) -> None:
        """Send the error event, then the close frame with the same code (protocol section 9)."""
        if self._closing is not None:
            return
        if self._session is not None:
            self._session.close(error)
        self._leave()
        # Past the queue on purpose: the client learns why even when what was queued is dropped.
        self.write_now(text_frame(messages.error(error.message, error.code)))
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(error.code, error.message)
        self._arm_close_timer()
        self._write_protocol_output()

    def abort(self) -> None:
        """Cut the connection, whatever is still to be written."""
        self._transport.abort()

    def shutdown(self) -> None:
        """What uvicorn calls when it stops."""
        self.close(errors.DRAINING)

    # --- the handshake

    def _handshake(self, request: Request) -> None:
        response = self._protocol.accept(request)
        self._protocol.send_response(response)
        if response.status_code != 101:
            self._arm_close_timer()
            return
        self._write_protocol_output()
        path, _, query = request.path.partition("?")
        admitted = self._node.admit(path, parse_query(query.encode()), _origin(request))
        if isinstance(admitted, Session):
            self._session = admitted
            self.socket_id = admitted.socket_id
            self._node.enter(self, admitted)
            self._run([admitted.greeting()])
        else:
            self.close(admitted)

    # --- frames in, effects out

    def _frame(self, frame: Frame) -> None:
        if frame.opcode in (Opcode.TEXT, Opcode.CONT):
            self._fragments.append(bytes(frame.data))
            if not frame.fin:
                return
            text = self._fragments[0] if len(self._fragments) == 1 else b"".join(self._fragments)
            self._fragments.clear()
            if self._session is not None:
                self._run(self._session.receive(text, self._node.now()))
        elif frame.opcode is Opcode.BINARY:
            # Not part of the protocol (section 1.4): closed, since fragments of one would look like text.
            self._protocol.fail(1003, "binary frames are not supported")
            self._leave()
        elif frame.opcode is Opcode.CLOSE:
            self._arm_close_timer()

    def _run(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send(payload):
                    self.write(text_frame(payload))
                case Subscribe(channel, reply):
                    self._node.hub.subscribe(self, self._key(channel), text_frame(reply))
                case Unsubscribe(channel):
                    self._node.hub.unsubscribe(self, self._key(channel))
                case Close(error):
                    self.close(error)

    def _key(self, channel: str) -> Key:
        assert self._session is not None  # noqa: S101 - effects come from a session
        return Key(self._session.app.id, channel)

    def _leave(self) -> None:
        """Out of every channel and every count. Idempotent."""
        session, self._session = self._session, None
        if session is None:
            return
        session.closed = True
        for channel in session.channels:
            self._node.hub.unsubscribe(self, Key(session.app.id, channel))
        self._node.leave(self, session)

    def _arm_close_timer(self) -> None:
        if self._closing is None:
            self._closing = self._node.loop.call_later(CLOSE_TIMEOUT, self._transport.abort)

    def _write_protocol_output(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self.write_now(data)
            else:  # ServerProtocol's sign for "close the TCP connection now"
                self._arm_close_timer()
                self._leave()
                self._transport.close()


def _origin(request: Request) -> str:
    try:
        return request.headers.get("Origin", "")
    except MultipleValuesError:
        return "null"
