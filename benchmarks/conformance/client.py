"""A minimal Pusher client that exposes the raw messages."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed
from websockets.frames import Opcode

from .checks import Failure, check, show

if TYPE_CHECKING:
    from collections.abc import Iterable

    from websockets.client import ClientProtocol
    from websockets.frames import Frame

ABSENT: Final = object()
"""Stands for a missing key, because ``None`` is JSON's null."""

OPTIONAL: Final = frozenset({"pusher_internal:subscription_count", "pusher_internal:watchlist_events"})
"""Messages that a server may send at any time if an option is on. Only cases that ask get them."""

INBOX: Final = 10_000


class Wire(ClientConnection):
    """Counts WebSocket pings, and can leave them unanswered, as a dead peer does."""

    def __init__(self, protocol: ClientProtocol, **options: Any) -> None:
        super().__init__(protocol, **options)
        self.pings = 0
        self.mute = False
        send_frame = protocol.send_frame

        def send_unless_mute(frame: Frame) -> None:
            if not (self.mute and frame.opcode is Opcode.PONG):
                send_frame(frame)

        protocol.send_frame = send_unless_mute  # type: ignore[method-assign]  # no option for it

    def process_event(self, event: Any) -> None:
        """Count the pings in received data."""
        if getattr(event, "opcode", None) is Opcode.PING:
            self.pings += 1
        super().process_event(event)


@dataclass(frozen=True)
class Message:
    """One frame. ``raw`` is its text, ``body`` the JSON object."""

    raw: str
    body: dict[str, Any]

    @property
    def event(self) -> Any:
        """The event's name."""
        return self.body.get("event")

    @property
    def channel(self) -> Any:
        """The channel, None if there is none."""
        return self.body.get("channel")

    @property
    def data(self) -> Any:
        """``data`` as it is on the wire, None if there is none."""
        return self.body.get("data")

    def parsed(self) -> Any:
        """``data``, which must be JSON in a string.

        :raises Failure: it is not.
        """
        check(isinstance(self.data, str), f"data is not a string: {self}")
        try:
            return json.loads(self.data)
        except ValueError:
            raise Failure(f"data is not JSON in a string: {self}") from None

    def fields(self) -> dict[str, Any]:
        """``data``, which must be an object or an object in a string. Other cases check which of them.

        :raises Failure: it is neither.
        """
        data = self.parsed() if isinstance(self.data, str) else self.data
        check(isinstance(data, dict), f"data is neither an object nor one in a string: {self}")
        found: dict[str, Any] = data
        return found

    def __str__(self) -> str:
        return show(self.raw)


@dataclass(frozen=True)
class Closed:
    """The end of a connection."""

    code: int
    reason: str

    def __str__(self) -> str:
        return f"a close with {self.code} {show(self.reason)}".rstrip()


class Socket:
    """One connection. A task reads it continuously, and answers pings unless the socket is ``mute``.

    :param hear: which of :data:`OPTIONAL` (and ``pusher:ping``) are messages for this socket.
    """

    def __init__(self, wire: Wire, seconds: float, hear: Iterable[str] = ()) -> None:
        self.wire = wire
        self.seconds = seconds
        self.socket_id = ""
        self.activity_timeout = 0
        self.mute = False
        self.pings = 0
        self._hear = frozenset(hear)
        self._inbox: asyncio.Queue[Message | Closed] = asyncio.Queue(INBOX)
        self._reader = asyncio.create_task(self._read())

    async def aclose(self) -> None:
        """Close with a close handshake, and wait for the server's close frame."""
        await self.wire.close()
        await asyncio.gather(self._reader, return_exceptions=True)

    def drop(self) -> None:
        """Cut the TCP connection without a close frame."""
        self.wire.transport.abort()

    async def send(self, event: str, data: Any = ABSENT, **more: Any) -> None:
        """Send a message."""
        body: dict[str, Any] = {"event": event} | more
        if data is not ABSENT:
            body["data"] = data
        await self.send_text(json.dumps(body))

    async def send_text(self, text: str) -> None:
        """Send any text as a frame; on a closed socket, do nothing."""
        try:
            await self.wire.send(text)
        except ConnectionClosed:
            return

    async def next(self, what: str = "a message") -> Message:
        """The next message.

        :raises Failure: there is none in time, or the connection is closed.
        """
        item = await self._next(what)
        if isinstance(item, Closed):
            raise Failure(f"expected {what}, got {item}")
        return item

    async def expect(self, event: str, channel: str | None = None) -> Message:
        """The next message, which must be this one.

        :raises Failure: it is another one.
        """
        what = event if channel is None else f"{event} on {show(channel)}"
        message = await self.next(what)
        if message.event != event or (channel is not None and message.channel != channel):
            raise Failure(f"expected {what}, got {message}")
        return message

    async def closed(self, what: str = "a close") -> Closed:
        """The close of the connection, which must be next.

        :raises Failure: something else comes.
        """
        item = await self._next(what)
        if isinstance(item, Message):
            raise Failure(f"expected {what}, got {item}")
        return item

    async def before_pong(self) -> list[Message]:
        """All messages before the answer to a ping: the server has sent everything that was due."""
        await self.send("pusher:ping", {})
        messages = []
        while (message := await self.next("pusher:pong")).event != "pusher:pong":
            messages.append(message)
        return messages

    async def nothing(self, why: str) -> None:
        """:raises Failure: the server says something before it answers a ping."""
        messages = await self.before_pong()
        if messages:
            raise Failure(f"{why}, got {messages[0]}")

    async def error(self, code: int | None, channel: str | None = None) -> Message:
        """The next message, which must be a complete ``pusher:error`` with this code.

        :raises Failure: it is not.
        """
        message = await self.expect("pusher:error", channel)
        data = message.fields()
        check("code" in data and isinstance(data.get("message"), str), f"no code or message: {message}")
        check(data["code"] == code and type(data["code"]) is type(code), f"expected code {code}: {message}")
        return message

    async def refused(self, code: int) -> Message:
        """An error, then a close with the same code (section 1.5).

        :raises Failure: anything else.
        """
        message = await self.error(code)
        closed = await self.closed(f"a close with {code}")
        check(closed.code == code, f"expected a close with {code} after the error, got {closed}")
        return message

    async def _next(self, what: str) -> Message | Closed:
        try:
            async with asyncio.timeout(self.seconds):
                return await self._inbox.get()
        except TimeoutError:
            raise Failure(f"expected {what}, got nothing in {self.seconds:g} s") from None

    async def _read(self) -> None:
        try:
            while True:
                await self._received(await self.wire.recv(decode=True))
        except ConnectionClosed:
            closed = Closed(self.wire.close_code or 1006, self.wire.close_reason or "")
            await self._inbox.put(closed)

    async def _received(self, text: str) -> None:
        message = Message(text, _object(text))
        if message.event == "pusher:ping":
            self.pings += 1
            if not self.mute:
                await self.send("pusher:pong", {})
            if "pusher:ping" not in self._hear:
                return
        if message.event not in OPTIONAL or message.event in self._hear:
            await self._inbox.put(message)


def _object(text: str) -> dict[str, Any]:
    """Parse a frame. Anything but a JSON object becomes a message that no case expects."""
    try:
        body = json.loads(text)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
