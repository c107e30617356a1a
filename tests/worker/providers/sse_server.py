"""A model's HTTP side, scripted: answers requests one after the other, each as told, byte for byte."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import ssl
    from types import TracebackType
    from typing import Self


class Step(NamedTuple):
    """One thing the server does with a connection: send bytes, pause, wait for a release, or abort."""

    kind: str
    data: bytes = b""


HANG = Step("hang")
ABORT = Step("abort")
RESET = Step("reset")
PAUSE = Step("pause")
"""What follows comes in another piece, a little later."""


def send(data: bytes) -> Step:
    return Step("send", data)


def chunk(data: bytes) -> Step:
    return send(f"{len(data):x}\r\n".encode() + data + b"\r\n")


def sse(event: str, **fields: Any) -> Step:
    """One server-sent event, as one HTTP chunk."""
    return chunk(f"event: {event}\ndata: {json.dumps({'type': event, **fields})}\n\n".encode())


STREAM = send(
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nrequest-id: req_1\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
EOF_ = send(b"0\r\n\r\n")
PING = sse("ping")
PINGS = Step("pings", PING.data)
"""The same data again and again, until the client closes."""

START = sse(
    "message_start",
    message={
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-test",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 11, "cache_read_input_tokens": 5, "output_tokens": 1},
    },
)
BLOCK = sse("content_block_start", index=0, content_block={"type": "text", "text": ""})
BLOCK_END = sse("content_block_stop", index=0)
STOP = sse("message_stop")


def text(piece: str) -> Step:
    return sse("content_block_delta", index=0, delta={"type": "text_delta", "text": piece})


def block(index: int, /, **fields: Any) -> Step:
    """A block of content begins."""
    return sse("content_block_start", index=index, content_block=fields)


def delta(index: int, /, **fields: Any) -> Step:
    """Something is added to a block."""
    return sse("content_block_delta", index=index, delta=fields)


def block_end(index: int) -> Step:
    return sse("content_block_stop", index=index)


def answer(*content: Step, reason: str = "end_turn") -> list[Step]:
    """An answer of these events from start to end."""
    return [STREAM, START, *content, stopped(reason), STOP, EOF_]


def stopped(reason: str) -> Step:
    delta = {"stop_reason": reason, "stop_sequence": None}
    return sse("message_delta", delta=delta, usage={"output_tokens": 9})


def error_event(kind: str, message: str = "no") -> Step:
    return sse("error", error={"type": kind, "message": message})


def refused(status: int, kind: str, *headers: str, message: str = "no") -> list[Step]:
    """A plain HTTP error."""
    body = json.dumps({"type": "error", "error": {"type": kind, "message": message}}).encode()
    lines = [
        f"HTTP/1.1 {status} No",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *headers,
    ]
    return [send("\r\n".join(lines).encode() + b"\r\n\r\n" + body)]


def whole(*pieces: str, reason: str = "end_turn") -> list[Step]:
    """A reply from start to end."""
    return [STREAM, START, BLOCK, *map(text, pieces), BLOCK_END, stopped(reason), STOP, EOF_]


def body_of(script: list[Step]) -> bytes:
    """The bytes of the stream of such a reply, without HTTP."""
    return b"".join(step.data.split(b"\r\n", 1)[1].removesuffix(b"\r\n") for step in script[1:-1])


class SseServer:
    """Serves one script per request, in order. ``closed``: a client left. ``accepted``: connections so far.

    ``requests`` are their bodies, parsed; ``bodies`` the same as they came.

    :param tls: serve over TLS.
    """

    def __init__(self, *scripts: list[Step], tls: ssl.SSLContext | None = None) -> None:
        self._scripts = list(scripts)
        self._tls = tls
        self.requests: list[Any] = []
        self.bodies: list[bytes] = []
        self.headers: list[bytes] = []
        self.accepted = 0
        self.closed = asyncio.Event()
        self._connections: set[asyncio.Task[None]] = set()
        self._writer: asyncio.StreamWriter | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=self._tls)
        host, port = self._server.sockets[0].getsockname()[:2]
        self.url = f"{'https' if self._tls else 'http'}://{host}:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def send(self, data: bytes) -> None:
        """Send on the latest connection, now."""
        assert self._writer is not None
        self._writer.write(data)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        self.accepted += 1
        self._writer = writer
        try:
            while await self._request(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            self.closed.set()
        except asyncio.CancelledError:
            pass  # the end of the test
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        self.headers.append(head)
        length = next(
            int(line.split(b":")[1])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length:")
        )
        self.bodies.append(await reader.readexactly(length))
        self.requests.append(json.loads(self.bodies[-1]))
        for step in self._scripts.pop(0):
            if step.kind == "abort":
                return False
            if step.kind == "reset":
                _reset_on_close(writer)
                return False
            if step.kind == "hang":
                await reader.readexactly(1)  # raises when the client closes
            elif step.kind == "pause":
                await asyncio.sleep(0.05)
            elif step.kind == "pings":
                await self._ping_until_closed(writer, step.data)
            else:
                writer.write(step.data)
                await writer.drain()
        return True

    async def _ping_until_closed(self, writer: asyncio.StreamWriter, ping: bytes) -> None:
        while True:
            writer.write(ping)
            await writer.drain()
            await asyncio.sleep(0.01)


def _reset_on_close(writer: asyncio.StreamWriter) -> None:
    """Let the close be a TCP reset."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
