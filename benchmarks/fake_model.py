"""A model's HTTP side at a fixed pace, in a process of its own; started by :mod:`.model_streams`.

``python -m legato.benchmarks.fake_model TOKENS RATE``. It answers each ``POST`` with the event stream of
Anthropic's Messages API: ``TOKENS`` pieces of text, ``RATE`` a second, the first at once. Every piece is due
at a time that is fixed when the request arrives.

Standard output: ``listening on http://127.0.0.1:PORT``, then an :class:`Emission` for each stream. The times
are of the monotonic clock, which all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from typing import Any, Final, cast

import msgspec
import uvloop


class Emission(msgspec.Struct):
    """One stream.

    :ivar id: the user's message, which the request ends with.
    :ivar at: when each piece of text was sent.
    :ivar late: by how much the latest of them was sent after it was due.
    """

    id: str
    at: list[float]
    late: float


def _chunk(event: str, **fields: Any) -> bytes:
    data = msgspec.json.encode({"type": event, **fields})
    body = b"event: %s\ndata: %s\n\n" % (event.encode(), data)
    return b"%x\r\n%s\r\n" % (len(body), body)


_USAGE: Final = {"input_tokens": 11, "cache_read_input_tokens": 5, "output_tokens": 1}
_MESSAGE: Final[dict[str, Any]] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "fake",
    "content": [],
    "stop_reason": None,
    "stop_sequence": None,
    "usage": _USAGE,
}
_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nrequest-id: req_1\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
    + _chunk("message_start", message=_MESSAGE)
    + _chunk("content_block_start", index=0, content_block={"type": "text", "text": ""})
    + _chunk("ping")
)
_TAIL: Final = (
    _chunk("content_block_stop", index=0)
    + _chunk(
        "message_delta",
        delta={"stop_reason": "end_turn", "stop_sequence": None},
        usage={"output_tokens": 9},
    )
    + _chunk("message_stop")
    + b"0\r\n\r\n"
)


def piece(index: int) -> str:
    """The text of one piece, as the readers expect it."""
    return f"w{index} "


class _PromptMessage(msgspec.Struct):
    content: str


class _Request(msgspec.Struct):
    messages: list[_PromptMessage]


class _Model(asyncio.Protocol):
    """One connection, with one stream after the other."""

    def __init__(self, chunks: list[bytes], rate: int) -> None:
        self._chunks = chunks
        self._rate = rate
        self._loop = asyncio.get_running_loop()
        self._received = b""
        self._emission = Emission("", [], 0.0)
        self._begun = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, blank, rest = self._received.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        if blank and length and len(rest) >= int(length[1]):
            request = msgspec.json.decode(rest[: int(length[1])], type=_Request)
            self._received = rest[int(length[1]) :]
            self._begin(request.messages[-1].content)

    def _begin(self, message: str) -> None:
        self._emission = Emission(message, [], 0.0)
        self._begun = self._loop.time()
        self._transport.write(_HEAD)
        self._emit()

    def _emit(self) -> None:
        """Send what is due, and come back for the rest."""
        if self._transport.is_closing():
            return
        at = self._emission.at
        while len(at) < len(self._chunks):
            due, now = self._begun + len(at) / self._rate, self._loop.time()
            if due > now:
                self._loop.call_at(due, self._emit)
                return
            self._emission.late = max(self._emission.late, now - due)
            at.append(time.monotonic())
            self._transport.write(self._chunks[len(at) - 1])
        self._transport.write(_TAIL)
        _print(msgspec.json.encode(self._emission))


def _print(line: bytes) -> None:
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


async def _main(tokens: int, rate: int) -> None:
    chunks = [
        _chunk("content_block_delta", index=0, delta={"type": "text_delta", "text": piece(index)})
        for index in range(tokens)
    ]
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Model(chunks, rate), "127.0.0.1", 0, backlog=1024)
    _print(f"listening on http://127.0.0.1:{server.sockets[0].getsockname()[1]}".encode())
    await asyncio.to_thread(sys.stdin.buffer.read)  # the process ends with its standard input


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main(int(sys.argv[1]), int(sys.argv[2])))
