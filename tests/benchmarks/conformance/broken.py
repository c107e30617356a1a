"""The sockets of the small server: WebSocket, HTTP, fallback transports and webhooks."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import re
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import h11
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import Opcode

from legato.benchmarks.conformance import http
from legato.protocol.signatures import parse_query
from tests.benchmarks.conformance.api import Api, ApiError
from tests.benchmarks.conformance.world import App, Peer, World, dumps

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from websockets.http11 import Request, Response

SUBPROTOCOL = re.compile(r"pusher-channels-protocol-[4-7]")
CORS = {
    "access-control-allow-origin": "*",
    "access-control-allow-methods": "POST, OPTIONS",
    "access-control-allow-headers": "Content-Type",
    "cache-control": "no-store",
}


class Connection(ServerConnection):
    """Tells of protocol-level pongs, which count as activity."""

    heard: Any = None

    def process_event(self, event: Any) -> None:
        if self.heard is not None and getattr(event, "opcode", None) in (Opcode.PING, Opcode.PONG):
            self.heard()
        super().process_event(event)


class Server:
    """WebSocket on `url`, everything else on `api`."""

    def __init__(self, world: World, hook_url: str = "") -> None:
        self.world = world
        self.sender = Hooks(hook_url, world)
        world.hook = self.sender.tell
        self.routes = Api(world)
        self.sessions: dict[str, Session] = {}
        self.url = self.api = ""

    # --- WebSocket

    def select(self, _connection: ServerConnection, offered: Any) -> Any:
        if self.world.bad("selects no sub-protocol"):
            return None
        if self.world.bad("selects any sub-protocol"):
            return next(iter(offered), None)
        return next((name for name in offered if SUBPROTOCOL.fullmatch(name)), None)

    def process_request(self, connection: ServerConnection, request: Request) -> Response | None:
        if self.world.bad("refuses without an upgrade") and "/app/app-key" not in request.path:
            return connection.respond(404, "no")
        return None

    async def websocket(self, connection: ServerConnection) -> None:
        request = connection.request
        assert request is not None
        path, _, query = request.path.partition("?")
        if not path.startswith("/app/"):
            return await self.refuse(connection, 4005, "Path not found")
        app = self.world.app(path.removeprefix("/app/"))
        refusal = self.world.refusal(app, parse_query(query.encode()), request.headers.get("Origin", ""))
        if refusal is not None:
            return await self.refuse(connection, *refusal)
        assert app is not None
        peer = self.world.enter(app)
        assert isinstance(connection, Connection)
        connection.heard = peer.heard
        tasks = [
            asyncio.create_task(self.write(peer, connection)),
            asyncio.create_task(self.world.watch(peer)),
        ]
        try:
            await self.read(peer, connection)
        finally:
            self.world.leave(peer)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return None

    async def refuse(self, connection: ServerConnection, code: int, text: str) -> None:
        bad = self.world.bad
        shown: Any = str(code) if bad("refuses with a code that is text") else code
        data: Any = {"code": shown, "message": text}
        if not bad("closes without an error"):
            data = dumps(data) if bad("refuses with a string") else data
            await connection.send(dumps({"event": "pusher:error", "data": data}))
        if bad("keeps refused sockets open"):
            with contextlib.suppress(ConnectionClosed):
                async for _ in connection:
                    await connection.send(dumps({"event": "pusher:pong", "data": "{}"}))
        if bad("cuts refused sockets"):
            connection.transport.close()
        await connection.close(1000 if bad("closes with another code") else code, text)

    async def read(self, peer: Peer, connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for text in connection:
                peer.heard()
                if isinstance(text, str):
                    self.world.receive(peer, text)
                elif self.world.bad("takes binary frames"):
                    self.world.receive(peer, text.decode())

    async def write(self, peer: Peer, connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                item = await peer.outbox.get()
                if isinstance(item, tuple):
                    await connection.close(*item)
                    return
                await connection.send(item)

    # --- HTTP

    async def http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request; the connection is closed after it."""
        connection = h11.Connection(h11.SERVER)
        with contextlib.suppress(OSError, h11.ProtocolError, asyncio.CancelledError):
            request, body = await _read(connection, reader)
            if request is not None:
                target = request.target.decode()
                answer = Answer(connection, writer)
                if "/pusher/app/" in target:
                    await self.fallback(request.method.decode(), target, body, answer)
                else:
                    await self.respond(request.method.decode(), target, body, answer)
        writer.close()

    async def respond(self, method: str, target: str, body: bytes, answer: Answer) -> None:
        try:
            status, content = self.routes.route(method, target, body)
        except ApiError as error:
            status, content = error.status, {"error": str(error)}
        if status == 200 and self.world.bad("answers 202"):
            status = 202
        kind = "text/html" if self.world.bad("answers with text/html") else "application/json"
        await answer.whole(status, dumps(content).encode(), {"content-type": kind})

    # --- fallback transports

    async def fallback(self, method: str, target: str, body: bytes, answer: Answer) -> None:
        path, _, query = target.partition("?")
        parts = path.split("/")
        name, kind = "/".join(parts[3:6]), parts[-1]
        headers = {} if self.world.bad("forgets CORS") else CORS
        if method == "OPTIONS":
            return await answer.whole(204, b"", headers)
        if kind == "xhr_send":
            return await answer.whole(self.push(name, body), b"", headers)
        session = self.sessions.get(name)
        if session is None:
            session = self.sessions[name] = self.open(parts[3], parse_query(query.encode()))
        if kind == "xhr":
            return await answer.whole(200, await session.poll(), headers)
        return await session.stream(answer, headers)

    def open(self, key: str, params: dict[str, str]) -> Session:
        app = self.world.app(key)
        refusal = self.world.refusal(app, params, "")
        if refusal is not None:
            return Session(None, [b"o{}\n", f"c[{refusal[0]},{json.dumps(refusal[1])}]\n".encode()])
        assert app is not None
        opening = [] if self.world.bad("forgets the open frame") else [b"o{}\n"]
        return Session(self.world.enter(app), opening, self.world.bad("loses messages between polls"))

    def push(self, name: str, body: bytes) -> int:
        session = self.sessions.get(name)
        if session is None or session.peer is None:
            return 404
        try:
            texts = json.loads(body)
        except ValueError:
            return 400
        for text in texts if isinstance(texts, list) else []:
            if isinstance(text, str):
                self.world.receive(session.peer, text)
        return 204


class Session:
    def __init__(self, peer: Peer | None, first: list[bytes], forgetful: bool = False) -> None:
        self.peer = peer
        self.first = first
        self.forgetful = forgetful
        self.streams = 0

    async def frames(self, seconds: float) -> bytes:
        """What there is, after waiting for something."""
        if self.first or self.peer is None:
            found, self.first = b"".join(self.first), []
            return found
        try:
            async with asyncio.timeout(seconds):
                texts = [await self.peer.outbox.get()]
        except TimeoutError:
            return b"h\n"
        while not self.peer.outbox.empty():
            texts.append(self.peer.outbox.get_nowait())
        texts = texts[-1:] if self.forgetful else texts
        return f"a{json.dumps([text for text in texts if isinstance(text, str)])}\n".encode()

    async def poll(self) -> bytes:
        return await self.frames(5)

    async def stream(self, answer: Answer, headers: dict[str, str]) -> None:
        self.streams += 1
        mine = self.streams
        await answer.start(200, headers)
        await answer.piece(b"h" * 2048 + b"\n")
        with contextlib.suppress(ConnectionError):
            while mine == self.streams:
                found = await self.frames(0.05)
                if mine != self.streams:
                    self.first.append(found)
                    return
                await answer.piece(found)


class Answer:
    def __init__(self, connection: h11.Connection, writer: asyncio.StreamWriter) -> None:
        self._connection = connection
        self._writer = writer

    async def start(self, status: int, headers: dict[str, str]) -> None:
        event = h11.Response(status_code=status, headers=list(headers.items()))
        self._writer.write(self._connection.send(event) or b"")

    async def piece(self, data: bytes) -> None:
        self._writer.write(self._connection.send(h11.Data(data=data)) or b"")
        await self._writer.drain()

    async def whole(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        length = {} if status == 204 else {"content-length": str(len(body))}
        await self.start(status, headers | length)
        if body:
            await self.piece(body)
        self._writer.write(self._connection.send(h11.EndOfMessage()) or b"")
        await self._writer.drain()


class Hooks:
    """Sends webhooks, one event in each, in order."""

    def __init__(self, url: str, world: World) -> None:
        self.url = url
        self.world = world
        self.queue: asyncio.Queue[tuple[App, dict[str, Any], int]] = asyncio.Queue()
        self.held: dict[tuple[str, str, str], asyncio.TimerHandle] = {}

    def tell(self, app: App, event: dict[str, Any], hold: float) -> None:
        if not self.url:
            return
        key = (event["name"], event["channel"], event.get("user_id", ""))
        if hold:
            loop = asyncio.get_running_loop()
            self.held[key] = loop.call_later(hold, self.release, key, app, event)
            return
        opposite = {"channel_occupied": "channel_vacated", "member_added": "member_removed"}.get(
            event["name"]
        )
        held = self.held.pop((opposite or "", *key[1:]), None)
        if held is not None:
            held.cancel()
            return
        self.enqueue(app, event)

    def release(self, key: tuple[str, str, str], app: App, event: dict[str, Any]) -> None:
        self.held.pop(key, None)
        self.enqueue(app, event)

    def enqueue(self, app: App, event: dict[str, Any]) -> None:
        self.queue.put_nowait((app, event, int(time.time() * 1000)))

    async def run(self) -> None:
        bad = self.world.bad
        while True:
            app, event, stamp = await self.queue.get()
            for attempt in range(3):
                now: Any = stamp + attempt if bad("stamps hooks anew") else stamp
                now = now + 0.5 if bad("stamps hooks with fractions") else now
                body = dumps({"time_ms": now, "events": [event]}).encode()
                signed = body + b"\n" if bad("signs other bytes than it sends") else body
                headers = {
                    "content-type": "application/json"
                    + ("; charset=utf-8" if bad("names a charset") else ""),
                    "x-pusher-key": app.id if bad("names the app by its id") else app.key,
                    "x-pusher-signature": hmac.new(app.secret.encode(), signed, hashlib.sha256).hexdigest(),
                }
                target = urlsplit(self.url).path or "/"
                answer = await http.request("POST", self.url, target, headers, body, 5)
                if answer.status == 200 or bad("never repeats a hook"):
                    break


async def _read(connection: h11.Connection, reader: asyncio.StreamReader) -> tuple[Any, bytes]:
    request, body = None, bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(65536))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            body += event.data
        else:
            return request, bytes(body)


@contextlib.asynccontextmanager
async def running(
    apps: Iterable[App], faults: Iterable[str] = (), hook_url: str = ""
) -> AsyncIterator[Server]:
    """The server on free ports."""
    server = Server(World(apps, faults), hook_url)
    hooks = asyncio.create_task(server.sender.run())
    try:
        async with (
            serve(
                server.websocket,
                "127.0.0.1",
                0,
                select_subprotocol=server.select,
                process_request=server.process_request,
                create_connection=Connection,
                ping_interval=None,
                close_timeout=1,
            ) as sockets,
            await asyncio.start_server(server.http, "127.0.0.1", 0) as requests,
        ):
            server.url = f"ws://127.0.0.1:{next(iter(sockets.sockets)).getsockname()[1]}"
            server.api = f"http://127.0.0.1:{requests.sockets[0].getsockname()[1]}"
            yield server
    finally:
        hooks.cancel()
        for held in server.sender.held.values():
            held.cancel()
        await asyncio.gather(hooks, return_exceptions=True)
