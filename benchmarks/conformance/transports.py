"""A client of pusher-js's HTTP fallback transports (section 12)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from typing import TYPE_CHECKING, Any, Final

from . import http
from .checks import Failure, check, show
from .client import OPTIONAL, Message

if TYPE_CHECKING:
    from .context import CaseContext

ALPHABET: Final = "0123456789abcdefghijklmnopqrstuv"
HEADERS: Final = {"content-type": "application/json", "origin": "http://localhost"}
QUERY: Final = "protocol=7&client=js&version=8.6.0"


def session_path(t: CaseContext, key: str | None = None) -> str:
    """A new session's path; pusher-js's ``httpPath`` is ``/pusher``."""
    name = "".join(secrets.choice(ALPHABET) for _ in range(8))
    return f"{t.prefix}/pusher/app/{key or t.app.key}/{secrets.randbelow(1000)}/{name}"


def _stamp() -> str:
    return f"t={int(time.time() * 1000)}&n=1"


async def poll(t: CaseContext, path: str, query: str = QUERY, seconds: float | None = None) -> http.Response:
    """One long poll."""
    target = f"{path}/xhr?{query}&{_stamp()}"
    return await http.request("POST", t.target.api, target, HEADERS, b"", seconds or t.target.timeout)


async def push(t: CaseContext, path: str, messages: list[dict[str, Any]]) -> http.Response:
    """Send messages."""
    body = json.dumps([json.dumps(message) for message in messages]).encode()
    target = f"{path}/xhr_send?{_stamp()}"
    return await http.request("POST", t.target.api, target, HEADERS, body, t.target.timeout)


def frames(text: str) -> list[tuple[str, Any]]:
    """The frames of a receive body: (type, payload), without preludes and heartbeats.

    :raises Failure: a frame that pusher-js would not understand.
    """
    found = []
    for line in text.split("\n"):
        kind, payload = line[:1], line[1:]
        if not kind or kind == "h":
            continue
        if kind not in "oamc":
            raise Failure(f"not a frame: {show(line)}")
        try:
            found.append((kind, json.loads(payload) if payload else None))
        except ValueError:
            raise Failure(f"a frame whose payload is not JSON: {show(line)}") from None
    return found


def messages(found: list[tuple[str, Any]]) -> list[Message]:
    """The messages in frames, each a JSON string of an envelope.

    :raises Failure: it is not.
    """
    texts = [
        text for kind, payload in found for text in (payload if kind == "a" else [payload]) if kind in "am"
    ]
    check(all(isinstance(text, str) for text in texts), f"messages are not strings: {show(texts)}")
    return [Message(text, json.loads(text)) for text in texts]


async def ignored(t: CaseContext, path: str, message: Message) -> bool:
    """Whether a message may come at any time; a ping is answered."""
    if message.event == "pusher:ping":
        await push(t, path, [{"event": "pusher:pong", "data": {}}])
        return True
    return message.event in OPTIONAL


class Poller:
    """A session over long polls."""

    def __init__(self, t: CaseContext) -> None:
        self._t = t
        self._waiting: list[Message] = []
        self.path = session_path(t)
        self.socket_id = ""

    async def start(self) -> None:
        """Open it, and read the greeting."""
        first = frames((await poll(self._t, self.path)).text)
        check(first and first[0][0] == "o", f"the first frame is not an open frame: {show(first)}")
        self._waiting = messages(first[1:])
        greeting = (await self.expect("pusher:connection_established")).parsed()
        self.socket_id = greeting["socket_id"]

    async def expect(self, event: str) -> Message:
        """The next message, which must be this one."""
        end = time.monotonic() + self._t.target.timeout
        while not self._waiting:
            check(time.monotonic() < end, f"expected {event}, polled in vain")
            arrived = messages(frames((await poll(self._t, self.path)).text))
            self._waiting = [message for message in arrived if not await self._ignored(message)]
        message = self._waiting.pop(0)
        check(message.event == event, f"expected {event}, got {message}")
        return message

    async def _ignored(self, message: Message) -> bool:
        return await ignored(self._t, self.path, message)

    async def send(self, event: str, data: Any, **more: Any) -> None:
        """Send a message."""
        response = await push(self._t, self.path, [{"event": event, "data": data} | more])
        check(response.status in (200, 204), f"expected 204 for a send, got {response}")


class Stream:
    """A session over one endless answer."""

    def __init__(self, t: CaseContext, path: str) -> None:
        self._t = t
        self._buffer = b""
        self._frames: list[tuple[str, Any]] = []
        self._exchange: http.HttpExchange | None = None
        self._stack = contextlib.AsyncExitStack()
        self.path = path

    async def start(self, query: str = QUERY) -> http.HttpExchange:
        """Send the receive request. It ends with :meth:`abort` or with the case."""
        target = f"{self.path}/xhr_streaming?{query}&{_stamp()}"
        await self._t.enter(self._stack)
        manager = http.exchange("POST", self._t.target.api, target, HEADERS, b"")
        started = self._exchange = await self._stack.enter_async_context(manager)
        check(started.status == 200, f"expected 200 for a streaming receive, got {started.status}")
        return started

    async def abort(self) -> None:
        """Abort the answer, as pusher-js does after 256 KB."""
        await self._stack.aclose()

    async def frame(self) -> tuple[str, Any]:
        """The next frame that is no heartbeat.

        :raises Failure: none in time, or the stream ends.
        """
        assert self._exchange is not None  # noqa: S101 - set when the exchange begins
        try:
            async with asyncio.timeout(self._t.target.timeout):
                while not self._frames:
                    piece = await self._exchange.piece()
                    check(piece, "the stream has ended")
                    whole, _, self._buffer = (self._buffer + piece).rpartition(b"\n")
                    self._frames = frames(whole.decode("utf-8", "replace"))
        except TimeoutError:
            raise Failure(f"no frame in {self._t.target.timeout:g} s") from None
        return self._frames.pop(0)

    async def expect(self, event: str) -> Message:
        """The next message, which must be this one."""
        while True:
            found = messages([await self.frame()])
            check(found, f"expected {event}, got a frame without messages")
            self._frames[:0] = [("m", message.raw) for message in found[1:]]
            if not await ignored(self._t, self.path, found[0]):
                break
        check(found[0].event == event, f"expected {event}, got {found[0]}")
        return found[0]
