"""A client of the HTTP fallback transports: a session that outlives its requests.

At most one receive request is attached to it. Frames to the client wait in a bounded queue until the task of
that request takes them. Without a request they wait for the next one.

Messages from the client are read within the read budget (:mod:`.budget`), and not while its queue is long. A
send request is answered once its messages are read.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from legato.broadcaster.clients.client import Client
from legato.broadcaster.clients.command_queue import EFFECT_BYTES
from legato.broadcaster.clients.ends import DROPPED, error_frame
from legato.broadcaster.limits import (
    POLLING_CHECK_SECONDS,
    POLLING_GRACE_SECONDS,
    POLLING_HEARTBEAT_SECONDS,
    POLLING_HIGH_WATER_BYTES,
    READ_SLICE_BYTES,
    READ_SLICE_MESSAGES,
)
from legato.protocol import errors, fallback

from .frames import payloads

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from legato.broadcaster.clients.client import ClientContext
    from legato.protocol.errors import PusherError

    from .send_queue import SendQueue


class Receiver:
    """One receive request, as the session sees it."""

    __slots__ = ("_wake", "beat", "ended", "last_frame", "length", "streaming")

    def __init__(self, now: float, *, streaming: bool) -> None:
        self.streaming = streaming
        self.last_frame = now
        self.length = 0
        self.beat = False
        self.ended = False
        self._wake = asyncio.Event()

    def spent(self) -> bool:
        """Whether the stream is so long that the client abandons it: further frames would be lost."""
        return self.streaming and self.length > fallback.STREAM_LIMIT

    def wake(self) -> None:
        """Wake the task of the request."""
        self._wake.set()

    def end(self) -> None:
        """Finish the request."""
        self.ended = True
        self._wake.set()

    async def woken(self) -> None:
        """Wait for the next :meth:`wake`."""
        await self._wake.wait()
        self._wake.clear()


class FallbackClient(Client):
    """A client that receives by long polls or a stream, and sends by separate requests.

    :param forget: called once, when the session ends for its requests.
    :param address: of the peer of the first request.
    """

    __slots__ = (
        "_alone_since",
        "_backlog",
        "_forget",
        "_goodbye",
        "_receiver",
        "_unread",
        "_unread_bytes",
        "address",
        "opened",
        "over",
    )

    address: str

    def __init__(self, context: ClientContext, forget: Callable[[], None], address: str) -> None:
        super().__init__(context)
        self.address = address
        self.write_now = self.write
        self._forget = forget
        self._receiver: Receiver | None = None
        self._alone_since: float | None = context.now()
        self._backlog: SendQueue | None = None
        self._goodbye = b""
        self._unread: deque[bytes | asyncio.Future[None]] = deque()
        self._unread_bytes = 0
        self.opened = False
        self.over = False

    def begin(self, path: str, params: Mapping[str, str], origin: str) -> None:
        """See the base class. A client that is not refused is then checked every tick."""
        super().begin(path, params, origin)
        if self.there:
            self.context.wheel.add(self, _next_tick(self.context.now()))

    # --- called by the hub and the drain

    def write(self, data: bytes) -> None:
        """Queue frames. The session is closed when the queue is full."""
        if self._goodbye:
            return
        backlog = self._backlog
        if backlog is None:
            backlog = self._backlog = self.new_send_queue()
        if backlog.put(data) > backlog.limit:
            self._backlog = self.over_limit(backlog)
            if self._backlog is None:
                self.give_up(errors.TOO_SLOW)
                return
        if self._long:
            self.hold_up()
        if self._receiver is not None:
            self._receiver.wake()

    def enqueue(self, data: bytes) -> None:
        """As :meth:`write`, which always queues here."""
        self.write(data)

    def say_goodbye(self, error: PusherError) -> None:
        """Send the error event and the close frame, on this receive request or the next one."""
        if self._goodbye:
            return
        if self._backlog is None or error not in errors.RESTARTS:
            self._backlog = self.new_send_queue()
        self._backlog.put(error_frame(error))
        self._goodbye = fallback.close_frame(error.code, error.message)
        if self._receiver is not None:
            self._receiver.wake()

    def abort(self) -> None:
        """End the session without a close frame."""
        self._finish()

    # --- messages from the client

    async def take_in(self, messages: list[bytes]) -> None:
        """Take the messages of a send request. Returns once they are read or the client has left."""
        if not self.there:
            return
        size = sum(map(len, messages))
        self._unread.extend(messages)
        self._unread_bytes += size + EFFECT_BYTES * len(messages)
        at_once = not self.paused and self.context.budget.spend(size)
        if len(self._unread) > len(messages) and self._unread_bytes > self._bound:
            self.overwhelmed()
        self.hold_up()
        if at_once:
            at_once = not self.go_on()
        if not at_once and not self.held:
            self.context.budget.put(self)
        if self._unread:
            read: asyncio.Future[None] = self.context.loop.create_future()
            self._unread.append(read)
            await read

    def shorten_buffers(self) -> None:
        """See the base class. The connection is uvicorn's."""

    def hold_up(self) -> None:
        """Stop reading. Messages wait, and so do their send requests."""
        self.paused = True

    def read_on(self) -> None:
        """Resume reading, with the messages that have arrived meanwhile first."""
        if self._unread:
            self.context.budget.put(self)
        else:
            self.paused = False

    @property
    def held(self) -> bool:
        """See the base class. A long queue, too, means that the client is slow."""
        return self._long or super().held

    @property
    def _long(self) -> bool:
        return self._backlog is not None and self._backlog.size > POLLING_HIGH_WATER_BYTES

    def go_on(self) -> bool:
        """Read one slice of the messages that wait."""
        left, until = READ_SLICE_MESSAGES, self._unread_bytes - READ_SLICE_BYTES
        while self._unread and left and self._unread_bytes > until and not self.held:
            message = self._unread.popleft()
            if isinstance(message, bytes):
                left -= 1
                self._unread_bytes -= len(message) + EFFECT_BYTES
                self.receive(message)
            elif not message.done():
                message.set_result(None)
        if self._unread:
            return not self.held
        self.relieve()
        return False

    def leave(self, code: int = DROPPED, reason: str = "") -> None:
        """Leave, and drop the messages that are not read yet."""
        super().leave(code, reason)
        unread, self._unread, self._unread_bytes = self._unread, deque(), 0
        for waiting in unread:
            if not isinstance(waiting, bytes) and not waiting.done():
                waiting.set_result(None)

    # --- receive requests

    def attach(self, receiver: Receiver) -> None:
        """Make this the receive request, and end the previous one."""
        if self._receiver is not None:
            self._receiver.end()
        self._receiver = receiver
        self._alone_since = None
        self.seen()
        receiver.wake()

    def detach(self, receiver: Receiver) -> None:
        """Note that a receive request has ended. Idempotent."""
        if self._receiver is receiver:
            self._receiver = None
            self._alone_since = self.context.now()

    def seen(self) -> None:
        """Note a sign of life: the client has sent a request."""
        if self.session is not None:
            self.session.seen(self.context.now())

    def take(self, receiver: Receiver) -> bytes:
        """Take the frames that are due on this request."""
        if receiver is not self._receiver or receiver.spent():
            return b""
        frames = self._due(receiver)
        if frames:
            receiver.beat = False
            receiver.last_frame = self.context.now()
            receiver.length += fallback.code_units(frames)
            if receiver.spent():
                self._alone_since = receiver.last_frame
        return frames

    def _due(self, receiver: Receiver) -> bytes:
        frames = b"" if self.opened else fallback.OPEN
        self.opened = True
        if self._backlog:
            frames += fallback.messages_frame(payloads(self._backlog.take()))
            self._backlog = None
            self.relieve()
        if self._goodbye:
            self._finish()
            return frames + self._goodbye
        return frames or (fallback.HEARTBEAT if receiver.beat else b"")

    # --- the wheel

    def check_at(self, now: float) -> float | None:
        """Check liveness, send heartbeats, and end a session without receive requests."""
        if self._alone_since is not None and now >= self._alone_since + POLLING_GRACE_SECONDS:
            self._finish()
        receiver = self._receiver
        if receiver is not None and now >= receiver.last_frame + POLLING_HEARTBEAT_SECONDS:
            receiver.beat = True
            receiver.wake()
        super().check_at(now)
        return None if self.over else _next_tick(now)

    def _finish(self) -> None:
        """End the session: nothing more can be received."""
        if not self.over:
            self.over = True
            self.leave()
            if self._receiver is not None:
                self._receiver.end()
            self._forget()


def _next_tick(now: float) -> float:
    """The next multiple of :data:`POLLING_CHECK_SECONDS`, so that two entries of a session are one."""
    return (now // POLLING_CHECK_SECONDS + 1) * POLLING_CHECK_SECONDS
