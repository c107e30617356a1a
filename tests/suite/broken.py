"""The sockets of the small server: WebSocket, HTTP API, fallback transports and webhooks."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import re
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import h11
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import Opcode

from protocol.signatures import parse_query
from tests.conformance import http

from .world import CACHED, NAME, TO_USER, App, Peer, World, dumps

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from websockets.http11 import Request, Response

SOCKET_ID = re.compile(r"[0-9]+\.[0-9]+")
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


class ApiError(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Server:
    """WebSocket on `url`, everything else on `api`."""

    def __init__(self, world: World, hook_url: str = "") -> None:
        self.world = world
        self.sender = Hooks(hook_url, world)
        world.hook = self.sender.tell
        self.sessions: dict[str, Session] = {}
        self.url = self.api = ""

    def app(self, key: str) -> App | None:
        return next((app for app in self.world.apps if app.key == key), None)

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
        app = self.app(path.removeprefix("/app/"))
        refusal = self.world.refusal(app, parse_query(query.encode()), request.headers.get("Origin", ""))
        if refusal is not None:
            return await self.refuse(connection, *refusal)
        assert app is not None
        peer = self.world.enter(app)
        assert isinstance(connection, Connection)
        connection.heard = peer.heard
        tasks = [asyncio.create_task(self.write(peer, connection)), asyncio.create_task(self.world.watch(peer))]
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
            status, content = self.route(method, target, body)
        except ApiError as error:
            status, content = error.status, {"error": str(error)}
        if status == 200 and self.world.bad("answers 202"):
            status = 202
        kind = "text/html" if self.world.bad("answers with text/html") else "application/json"
        await answer.whole(status, dumps(content).encode(), {"content-type": kind})

    def route(self, method: str, target: str, body: bytes) -> tuple[int, Any]:
        path, _, raw_query = target.partition("?")
        query = raw_query.replace(";", "&") if self.world.bad("splits queries at ;") else raw_query
        params = parse_query(query.encode())
        parts = [unquote(part) for part in path.split("/")[1:]]
        if parts[0] == "users":
            app = self.app(params.get("auth_key", ""))
            if app is None:
                raise ApiError(401, "unknown key")
            parts = ["apps", app.id, *parts]
        found = next((app for app in self.world.apps if parts[:2] == ["apps", app.id]), None)
        if found is None:
            raise ApiError(404, "no such application")
        if not (method == "GET" and self.world.bad("tells everybody about channels")):
            self.authenticate(found, method, path, params, body)
        return self.dispatch(found, method, parts[2:], params, body)

    def authenticate(self, app: App, method: str, path: str, params: dict[str, str], body: bytes) -> None:
        bad = self.world.bad
        if bad("takes any API request"):
            return
        if params.get("auth_key") != app.key or params.get("auth_version") != "1.0":
            raise ApiError(401, "auth_key or auth_version")
        stamp = params.get("auth_timestamp", "")
        if not re.fullmatch(r"[0-9]{1,15}", stamp) or abs(time.time() - int(stamp)) > 600:
            if not bad("takes any timestamp"):
                raise ApiError(401, "auth_timestamp")
        if body and params.get("body_md5") != hashlib.md5(body).hexdigest() and not bad("takes any body"):
            raise ApiError(401, "body_md5")
        signed = dict(params)
        if not body and bad("drops body_md5 of a GET"):
            signed.pop("body_md5", None)
        pairs = "&".join(f"{key}={value}" for key, value in sorted(signed.items()) if key != "auth_signature")
        paths = [path] if bad("knows paths only as sent") else [path, unquote(path)]
        for spelling in paths:
            text = f"{method}\n{spelling}\n{pairs}".encode()
            if hmac.new(app.secret.encode(), text, hashlib.sha256).hexdigest() == params.get("auth_signature"):
                break
        else:
            raise ApiError(401, "auth_signature")
        if app.disabled:
            raise ApiError(403, "disabled")

    def dispatch(
        self, app: App, method: str, parts: list[str], params: dict[str, str], body: bytes
    ) -> tuple[int, Any]:
        match [method, *parts]:
            case ["POST", "events"]:
                return 200, self.events(app, self.given(body, params))
            case ["POST", "batch_events"]:
                return 200, self.batch(app, _object(body))
            case ["POST", "channels", name, "events"]:
                self.events(app, {**params, "channel": name, "data": body.decode()})
                return 202, {}
            case ["GET", "channels"]:
                return 200, self.channels(app, params)
            case ["GET", "channels", name] | ["GET", "channels", name, "stats"]:
                return 200, self.channel(app, name, params)
            case ["GET", "channels", name, "users"]:
                return 200, self.users(app, name)
            case ["POST", "users", user, "terminate_connections"]:
                for peer in self.world.sockets_of(app, user):
                    if not self.world.bad("terminates nobody"):
                        peer.close(4009, "Terminated")
                return 200, {}
            case ["GET", "connections"]:
                return 200, {"connections": len(self.world.peers)}
        raise ApiError(404, "no such route")

    def given(self, body: bytes, params: dict[str, str]) -> dict[str, Any]:
        given: dict[str, Any] = {key: params[key] for key in ("name", "data", "socket_id", "info") if key in params}
        if "channels" in params:
            given["channels"] = params["channels"].split(",")
        return given | _object(body)

    def events(self, app: App, body: dict[str, Any]) -> Any:
        channels = body.get("channels", [body.get("channel")])
        if not isinstance(channels, list) or not 1 <= len(channels) <= 100:
            raise ApiError(400, "channels")
        if not self.world.bad("delivers to doubles"):
            channels = list(dict.fromkeys(map(_text, channels)))
        data = self.checked(body, channels)
        for name in channels:
            self.world.publish(app, name, body["name"], data, body.get("socket_id"))
        if body.get("info") is None:
            return {"ok": True} if self.world.bad("answers with more than {}") else {}
        return {"channels": {name: self.info(app, name, body["info"]) for name in channels}}

    def batch(self, app: App, body: dict[str, Any]) -> Any:
        events = body.get("batch")
        if not isinstance(events, list) or not 1 <= len(events) <= 10:
            raise ApiError(400, "batch")
        one_by_one = self.world.bad("sends a batch one by one")
        checked = [] if one_by_one else [self.checked(event, [event.get("channel")]) for event in events]
        for index, event in enumerate(events):
            data = self.checked(event, [event.get("channel")]) if one_by_one else checked[index]
            self.world.publish(app, event["channel"], event["name"], data, event.get("socket_id"))
        if all(event.get("info") is None for event in events):
            return {}
        infos = [self.info(app, event["channel"], event.get("info") or "") for event in events]
        return {"batch": {} if self.world.bad("answers a batch with an object") else infos}

    def checked(self, event: Any, channels: list[Any]) -> str:
        if not isinstance(event, dict) or "data" not in event:
            raise ApiError(400, "data")
        name, socket_id = event.get("name"), event.get("socket_id")
        reserved = isinstance(name, str) and re.match(r"pusher(_internal)?:", name)
        if not isinstance(name, str) or not 1 <= len(name) <= 200 or (reserved and not self.world.bad("sends names of the protocol")):
            raise ApiError(400, "name")
        for channel in channels:
            if not isinstance(channel, str) or not NAME.fullmatch(channel.removeprefix(TO_USER)):
                raise ApiError(400, "channel")
        if socket_id is not None and not (isinstance(socket_id, str) and SOCKET_ID.fullmatch(socket_id)):
            if not self.world.bad("takes any socket_id"):
                raise ApiError(400, "socket_id")
        data = event["data"] if isinstance(event["data"], str) else dumps(event["data"])
        size = len(data) if self.world.bad("measures characters") else len(data.encode())
        if size > 10_240:
            raise ApiError(400 if self.world.bad("answers 400 to too much data") else 413, "data")
        return data

    def info(self, app: App, name: str, wanted: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        names = wanted.split(",")
        if "user_count" in names and name.startswith("presence-"):
            count: Any = len(self.world.users(app, name))
            if self.world.bad("counts connections for users"):
                count = len(self.world.channels.get((app.id, name), ()))
            found["user_count"] = str(count) if self.world.bad("counts in text") else count
        if "subscription_count" in names:
            found["subscription_count"] = len(self.world.channels.get((app.id, name), ()))
        return found

    def channels(self, app: App, params: dict[str, str]) -> Any:
        prefix, info = params.get("filter_by_prefix", ""), params.get("info", "")
        if "user_count" in info.split(",") and not prefix.startswith("presence-"):
            raise ApiError(400, "user_count may only be requested for presence channels")
        known = [name for app_id, name in list(self.world.channels) if app_id == app.id]
        named = [name for name in known if prefix in name] if self.world.bad("filters anywhere") else None
        named = named if named is not None else [name for name in known if name.startswith(prefix)]
        kept = self.world.bad("keeps vacated channels")
        names = [name for name in named if kept or self.world.channels[app.id, name]]
        found = {name: self.info(app, name, info) for name in names}
        return {"channels": [] if self.world.bad("lists nothing as a list") and not found else found}

    def channel(self, app: App, name: str, params: dict[str, str]) -> Any:
        wanted = params.get("info", "")
        if "user_count" in wanted.split(",") and not name.startswith("presence-"):
            if not self.world.bad("counts users of any channel"):
                raise ApiError(400, "user_count")
        found = {"occupied": bool(self.world.channels.get((app.id, name)))} | self.info(app, name, wanted)
        if "cache" in wanted.split(",") and name.startswith(CACHED):
            cached = self.world.cache.get((app.id, name))
            left = 0 if cached is None else int(1800 - (time.monotonic() - cached[2]))
            found["cache"] = None if cached is None else {"data": cached[1], "ttl": left}
        return found

    def users(self, app: App, name: str) -> Any:
        if not name.startswith("presence-"):
            raise ApiError(400, "presence channels only")
        members = self.world.users(app, name).values()
        as_text = (lambda value: value) if self.world.bad("lists ids as they are") else str
        return {"users": [{"id": as_text(member["user_id"])} for member in members]}

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
        app = self.app(key)
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
        opposite = {"channel_occupied": "channel_vacated", "member_added": "member_removed"}.get(event["name"])
        held = self.held.pop((opposite or "", *key[1:]), None)
        if held is not None:
            return held.cancel()
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
                    "content-type": "application/json" + ("; charset=utf-8" if bad("names a charset") else ""),
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


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except ValueError:
        raise ApiError(400, "not JSON") from None
    if not isinstance(value, dict):
        raise ApiError(400, "not an object")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ApiError(400, "channel")
    return value


@contextlib.asynccontextmanager
async def running(apps: Iterable[App], faults: Iterable[str] = (), hook_url: str = "") -> AsyncIterator[Server]:
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
