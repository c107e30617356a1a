"""A process with many cheap clients, started by :mod:`.crowds`.

Standard input: one line, the :class:`CrowdOrder`; the process ends with standard input. Standard output:
``{"ready": n}`` once all have subscribed, then ``{"received": n}`` for each further line of input: the number
of channel events, or server-sent events, that all clients have received.
"""

from __future__ import annotations

import asyncio
import resource
import sys
from typing import Any, Final, cast

import msgspec
import uvloop

from legato.protocol import signatures

from .event_reader import EventReader

AT_ONCE: Final = 100
"""Largest number of concurrent handshakes."""

_MASK: Final = b"\0\0\0\0"


class CrowdOrder(msgspec.Struct, frozen=True):
    """The clients to connect. ``{}`` in ``channel`` and ``data`` is replaced by a client's number.

    :ivar data: channel_data of a presence channel; empty for none.
    :ivar path: of the server-sent events that all clients read instead of a channel; empty for none.
    :ivar token: the bearer token for ``path``.
    """

    port: int
    key: str
    secret: str
    first: int
    count: int
    channel: str
    data: str = ""
    path: str = ""
    token: str = ""


class _ClientMessage(msgspec.Struct):
    event: str
    data: str = "{}"


_decode = msgspec.json.Decoder(_ClientMessage).decode


class CrowdClient(asyncio.Protocol):
    """Subscribes to one channel and counts events. ``subscribed`` is set by the confirmation."""

    __slots__ = ("_buffer", "_number", "_order", "_transport", "_upgraded", "received", "subscribed")

    def __init__(self, order: CrowdOrder, number: int) -> None:
        self._order = order
        self._number = number
        self._buffer = bytearray()
        self._upgraded = False
        self.subscribed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.received = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the upgrade request."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(
            f"GET /app/{self._order.key}?protocol=7&client=benchmark HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail: only the parent closes a client."""
        if not self.subscribed.done():
            self.subscribed.set_exception(exc or ConnectionError("the server has closed a connection"))

    def data_received(self, data: bytes) -> None:
        """Process the complete frames in the buffer."""
        self._buffer += data
        if not self._upgraded:
            head, found, rest = self._buffer.partition(b"\r\n\r\n")
            if not found:
                return
            if b" 101 " not in head[:20]:
                self._transport.abort()
                return
            self._upgraded, self._buffer = True, rest
        while (text := self._frame()) is not None:
            self._on_message(text)

    def _frame(self) -> bytes | None:
        """The text of the next frame (RFC 6455 section 5.2), None if it is incomplete."""
        buffer, begin = self._buffer, 2
        if len(buffer) < begin:
            return None
        size = buffer[1]
        if size > 125:
            begin = 4 if size == 126 else 10
            size = int.from_bytes(buffer[2:begin])
        if len(buffer) < begin + size:
            return None
        text = bytes(buffer[begin : begin + size])
        del buffer[: begin + size]
        return text

    def _on_message(self, text: bytes) -> None:
        if self.subscribed.done():
            self.received += not text.startswith(b'{"event":"pusher')
            if text.startswith(b'{"event":"pusher:ping"'):
                self._send("pusher:pong", {})
            return
        message = _decode(text)
        if message.event == "pusher:connection_established":
            self._subscribe(msgspec.json.decode(message.data)["socket_id"])
        elif message.event == "pusher_internal:subscription_succeeded":
            self.subscribed.set_result(None)
        elif message.event.endswith("error"):
            self.subscribed.set_exception(ConnectionError(text.decode()))

    def _subscribe(self, socket_id: str) -> None:
        order, number = self._order, str(self._number)
        channel, told = order.channel.replace("{}", number), order.data.replace("{}", number)
        data = {"channel": channel} | ({"channel_data": told} if told else {})
        data["auth"] = signatures.sign_channel(order.key, order.secret, socket_id, channel, told or None)
        self._send("pusher:subscribe", data)

    def _send(self, event: str, data: Any) -> None:
        text = msgspec.json.encode({"event": event, "data": data})
        size = bytes([0x80 | len(text)]) if len(text) < 126 else b"\xfe" + len(text).to_bytes(2)
        self._transport.write(b"\x81" + size + _MASK + text)


async def _join(order: CrowdOrder, number: int, door: asyncio.Semaphore) -> CrowdClient | EventReader:
    async with door:
        client = EventReader(order.path, order.token) if order.path else CrowdClient(order, number)
        await asyncio.get_running_loop().create_connection(lambda: client, "127.0.0.1", order.port)
        await client.subscribed
        return client


def _say(value: Any) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(value) + b"\n")
    sys.stdout.buffer.flush()


async def _main() -> None:
    order = msgspec.json.decode(await asyncio.to_thread(sys.stdin.buffer.readline), type=CrowdOrder)
    door = asyncio.Semaphore(AT_ONCE)
    numbers = range(order.first, order.first + order.count)
    clients = await asyncio.gather(*(_join(order, number, door) for number in numbers))
    _say({"ready": len(clients)})
    while await asyncio.to_thread(sys.stdin.buffer.readline):
        _say({"received": sum(client.received for client in clients)})


if __name__ == "__main__":
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main())
