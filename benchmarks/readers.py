"""A process with readers of streamed replies, started by :mod:`.audience`.

Each reader is a WebSocket client on the private channel of one user. It checks the index and the text of
every token. Times are of the monotonic clock, which all processes of a machine share.

Standard input: one line, the :class:`ReadersOrder`. Standard output: ``{"ready": true}`` once all have
subscribed, then ``{"began": id, "at": t}`` at the first token of each reply, and its :class:`ReplyReading` at
its end.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import sys
import time
from typing import Any

import msgspec
import uvloop
from websockets.asyncio.client import ClientConnection, connect

from legato.protocol.stream import chat_channel


class ReadersOrder(msgspec.Struct, frozen=True):
    """The server and the users. The process ends with standard input."""

    url: str
    key: str
    secret: str
    users: list[str]


class ReplyReading(msgspec.Struct):
    """One reply as its reader received it.

    :ivar at: arrival time of each token.
    :ivar end: the terminal event and its arrival time.
    :ivar wrong: the violations, in words; empty without any.
    """

    id: str
    at: list[float] = []
    end: str = ""
    ended: float = 0.0
    wrong: str = ""

    def token(self, index: int, text: str, now: float) -> None:
        """Process a token."""
        if not self.wrong and (index, text) != (len(self.at), f"w{len(self.at)} "):
            self.wrong = f"token {index} is {text!r}, where token {len(self.at)} has to come"
        self.at.append(now)

    def finish(self, event: str, total: int | None, now: float) -> None:
        """Process the terminal event."""
        if not self.wrong and total is not None and total != len(self.at):
            self.wrong = f"{event} counts {total} tokens, and {len(self.at)} came"
        self.end, self.ended = event, now


_TERMINAL = frozenset({"stream.completed", "stream.failed", "stream.cancelled"})


class _Data(msgspec.Struct, rename="camel"):
    message_id: str = ""
    token: str = ""
    token_index: int = 0
    total_tokens: int | None = None


class _PusherMessage(msgspec.Struct):
    event: str
    data: str = "{}"


_message = msgspec.json.Decoder(_PusherMessage)
_data = msgspec.json.Decoder(_Data)


async def _subscribe(order: ReadersOrder, user: str) -> ClientConnection:
    socket = await connect(f"{order.url}/app/{order.key}?protocol=7&client=benchmark", compression=None)
    greeting: dict[str, Any] = msgspec.json.decode(_message.decode(await socket.recv()).data)
    channel = chat_channel(user)
    signed = hmac.new(order.secret.encode(), f"{greeting['socket_id']}:{channel}".encode(), hashlib.sha256)
    data = {"channel": channel, "auth": f"{order.key}:{signed.hexdigest()}"}
    await socket.send(msgspec.json.encode({"event": "pusher:subscribe", "data": data}).decode())
    answer = _message.decode(await socket.recv())
    if answer.event != "pusher_internal:subscription_succeeded":
        raise ConnectionError(f"{channel}: {answer.event} {answer.data}")
    return socket


async def _read(socket: ClientConnection) -> None:
    readings: dict[str, ReplyReading] = {}
    async for raw in socket:
        now = time.monotonic()
        message = _message.decode(raw)
        if message.event == "pusher:ping":
            await socket.send('{"event":"pusher:pong","data":{}}')
        elif message.event == "token.received":
            data = _data.decode(message.data)
            reading = readings.get(data.message_id)
            if reading is None:
                reading = readings[data.message_id] = ReplyReading(data.message_id)
                _print({"began": data.message_id, "at": now})
            reading.token(data.token_index, data.token, now)
        elif message.event in _TERMINAL:
            data = _data.decode(message.data)
            reading = readings.pop(data.message_id, None) or ReplyReading(data.message_id)
            reading.finish(message.event, data.total_tokens, now)
            _print(reading)


def _print(value: Any) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(value) + b"\n")
    sys.stdout.buffer.flush()


async def _main() -> None:
    line = await asyncio.to_thread(sys.stdin.buffer.readline)
    order = msgspec.json.decode(line, type=ReadersOrder)
    sockets = [await _subscribe(order, user) for user in order.users]
    tasks = [asyncio.create_task(_read(socket)) for socket in sockets]
    _print({"ready": True})
    over = asyncio.create_task(asyncio.to_thread(sys.stdin.buffer.read))
    done, _ = await asyncio.wait({over, *tasks}, return_when=asyncio.FIRST_COMPLETED)
    for task in {*tasks} & done:
        task.result()
        raise ConnectionError("the server has closed a reader's connection")


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main())
