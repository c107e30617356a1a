"""The context of a case: unique names, sockets that close with it, signed requests."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import secrets
import time
from typing import TYPE_CHECKING, Any, Final, Protocol, Self, TypeVar
from urllib.parse import urlsplit

from websockets.asyncio.client import connect
from websockets.exceptions import InvalidHandshake

from legato.protocol import signatures

from . import http
from .checks import Failure, check, equal, show
from .client import Message, Socket, Wire

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from .hooks import Hooks
    from .target import Application, Target

QUERY: Final = "protocol=7&client=js&version=8.6.0&flash=false"
"""The query of pusher-js."""

CACHED: Final = ("cache-", "private-cache-", "private-encrypted-cache-", "presence-cache-")
"""Prefixes of channels that keep their last event."""

T = TypeVar("T")

POLL: Final = 0.02
"""Polling interval in seconds."""


class Peer(Protocol):
    """A client with a ``socket_id``."""

    socket_id: str


class CaseContext:
    """One run of one case. Names are unique, so that cases do not disturb each other."""

    def __init__(self, target: Target, hooks: Hooks | None = None) -> None:
        self.target = target
        self.app = target.app
        self._hooks = hooks
        self._token = secrets.token_hex(6)
        self._names = 0
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    @property
    def hooks(self) -> Hooks:
        """The webhooks that arrive."""
        if self._hooks is None:
            raise RuntimeError("a case about webhooks needs them")
        return self._hooks

    def name(self, prefix: str = "") -> str:
        """A unique channel name, event name or user id."""
        self._names += 1
        return f"{prefix}conformance-{self._token}-{self._names}"

    # --- sockets

    async def dial(
        self,
        query: str | None = QUERY,
        *,
        path: str | None = None,
        key: str | None = None,
        hear: Sequence[str] = (),
        **options: Any,
    ) -> Socket:
        """A WebSocket from which nothing has been read.

        :param path: instead of ``/app/KEY``.
        :param options: for ``websockets.connect``.
        :raises Failure: the upgrade is not answered with 101.
        """
        url = self.target.url + (f"/app/{key or self.app.key}" if path is None else path)
        url = url if query is None else f"{url}?{query}"
        try:
            wire = await connect(
                url,
                create_connection=Wire,
                open_timeout=self.target.timeout,
                close_timeout=1,
                ping_interval=None,
                max_size=None,
                proxy=None,
                **options,
            )
        except (InvalidHandshake, OSError, TimeoutError, EOFError) as error:
            raise Failure(f"the upgrade was not answered with 101: {error}") from error
        assert isinstance(wire, Wire)  # noqa: S101 - what create_connection makes
        socket = Socket(wire, self.target.timeout, hear)
        self._stack.push_async_callback(socket.aclose)
        return socket

    async def connect(self, query: str | None = QUERY, **options: Any) -> Socket:
        """A socket that has its ``socket_id``; options as :meth:`dial`."""
        socket = await self.dial(query, **options)
        greeting = (await socket.expect("pusher:connection_established")).parsed()
        check(isinstance(greeting, dict), f"the greeting's data is not an object: {show(greeting)}")
        socket.socket_id = str(greeting.get("socket_id"))
        socket.activity_timeout = greeting.get("activity_timeout", 0)
        return socket

    async def sockets(self, count: int) -> list[Socket]:
        """Several of :meth:`connect`."""
        return [await self.connect() for _ in range(count)]

    # --- channels

    def auth(
        self,
        peer: Peer,
        channel: str,
        channel_data: str | None = None,
        app: Application | None = None,
    ) -> str:
        """The ``auth`` that an application's authorisation endpoint returns."""
        app = app or self.app
        return signatures.sign_channel(app.key, app.secret, peer.socket_id, channel, channel_data)

    async def ask(self, socket: Socket, channel: str, channel_data: str | None = None, **more: Any) -> None:
        """Send a subscribe with a valid signature, unless ``more`` has ``auth``."""
        data: dict[str, Any] = {"channel": channel, "auth": ""}
        if channel.startswith(("private-", "presence-")):
            data["auth"] = self.auth(socket, channel, channel_data)
        if channel_data is not None:
            data["channel_data"] = channel_data
        await socket.send("pusher:subscribe", data | more)

    async def subscribe(self, socket: Socket, channel: str, channel_data: str | None = None) -> Message:
        """Subscribe and return the answer. On a cache channel, another message follows."""
        await self.ask(socket, channel, channel_data)
        return await socket.expect("pusher_internal:subscription_succeeded", channel)

    async def enter_channel(self, socket: Socket, channel: str, channel_data: str | None = None) -> None:
        """Subscribe to a new channel; on a cache channel, receive its cache_miss."""
        await self.subscribe(socket, channel, channel_data)
        if channel.startswith(CACHED):
            await socket.expect("pusher:cache_miss", channel)

    async def join(self, socket: Socket, channel: str, user_id: Any, **more: Any) -> dict[str, Any]:
        """Subscribe to a presence channel as a member; ``more`` is ``user_info``. Returns the roster."""
        data = (await self.subscribe(socket, channel, member(user_id, **more))).parsed()
        check(isinstance(data, dict), f"presence data is not an object: {show(data)}")
        presence = data.get("presence")
        check(isinstance(presence, dict), f"no presence in the answer: {show(data)}")
        roster: dict[str, Any] = presence
        return roster

    async def refusal(self, socket: Socket, channel: str) -> Message:
        """The next message, which must refuse the subscription in one of the two usual ways.

        :raises Failure: it does not, or the connection is closed.
        """
        message = await socket.next(f"a refusal of {show(channel)}")
        refusing = message.event in ("pusher:subscription_error", "pusher:error")
        check(refusing, f"expected a refusal of {show(channel)}, got {message}")
        check(self.app.secret not in message.raw, "the refusal has the application's secret in it")
        if message.event == "pusher:error":
            for extra in await socket.before_pong():
                check(extra.event == "pusher:subscription_error", f"expected a refusal, got {extra}")
                return extra
        return message

    async def is_out(self, socket: Socket, channel: str) -> None:
        """Raise :class:`.checks.Failure` if the socket gets an event of the channel."""
        await self.publish(channel, "intruder", "x")
        await socket.nothing(f"expected nothing of {show(channel)}")

    async def sign_in(self, socket: Socket, user_id: str, **more: Any) -> Message:
        """Sign in; ``more`` goes into ``user_data``."""
        user_data = json.dumps({"id": user_id} | more)
        await self.ask_sign_in(socket, user_data)
        return await socket.expect("pusher:signin_success")

    async def ask_sign_in(self, socket: Socket, user_data: str, app: Application | None = None) -> None:
        """Send a sign-in with a valid signature."""
        app = app or self.app
        text = f"{socket.socket_id}::user::{user_data}"
        auth = f"{app.key}:{signatures.sign(app.secret, text)}"
        await socket.send("pusher:signin", {"auth": auth, "user_data": user_data})

    # --- HTTP API

    def path(self, path: str, app: Application | None = None) -> str:
        """``/apps/ID/...`` below the prefix of the API's address."""
        return f"{self.prefix}/apps/{(app or self.app).id}{path}"

    @property
    def prefix(self) -> str:
        """The path of the API's address."""
        return urlsplit(self.target.api).path

    async def api(
        self,
        method: str,
        path: str,
        body: Any = None,
        params: Mapping[str, str] | None = None,
        app: Application | None = None,
    ) -> http.Response:
        """Send a request as an SDK signs it; a ``body`` that is not bytes is encoded as JSON."""
        content = encode(body)
        full = self.path(path, app)
        return await self.send(method, full, self.sign(method, full, content, params or {}, app), content)

    def sign(
        self,
        method: str,
        path: str,
        content: bytes,
        params: Mapping[str, str],
        app: Application | None = None,
    ) -> dict[str, str]:
        """Add the parameters of section 10.1, except those that are already given."""
        app = app or self.app
        signed = {"auth_key": app.key, "auth_timestamp": str(int(time.time())), "auth_version": "1.0"}
        if content:
            signed["body_md5"] = hashlib.md5(content, usedforsecurity=False).hexdigest()
        signed |= params
        signed["auth_signature"] = signatures.sign(app.secret, signatures.request_text(method, path, signed))
        return signed

    async def send(
        self, method: str, path: str, params: Mapping[str, str], content: bytes = b""
    ) -> http.Response:
        """Send a request with exactly these parameters, unescaped as by the Node, Python and Go SDKs."""
        query = "&".join(f"{name}={value}" for name, value in params.items())
        headers = {"content-type": "application/json", "x-pusher-library": "legato-conformance 1"}
        target = f"{path}?{query}" if query else path
        return await http.request(method, self.target.api, target, headers, content, self.target.timeout)

    async def publish(self, channel: str | Sequence[str], event: str, data: Any, **more: Any) -> None:
        """Publish over HTTP. The content of the answer is checked by other cases.

        :raises Failure: the answer is not 200 with a JSON object.
        """
        channels = [channel] if isinstance(channel, str) else list(channel)
        await self.done("/events", {"name": event, "data": data, "channels": channels} | more)

    async def done(self, path: str, body: Any = None) -> None:
        """Send a POST for its effect; the content of the answer does not matter.

        :raises Failure: the answer is not 200 with a JSON object.
        """
        answer = await self.ok("POST", path, body)
        check(isinstance(answer, dict), f"expected an object in answer to POST {path}, got {show(answer)}")

    async def ok(self, method: str, path: str, body: Any = None, **params: str) -> Any:
        """The JSON of the answer to a request, which must be 200.

        :raises Failure: another status.
        """
        response = await self.api(method, path, body, params)
        check(response.status == 200, f"expected 200 for {method} {path}, got {response}")
        return response.json()

    async def status(self, expected: int, method: str, path: str, body: Any = None, **params: str) -> str:
        """Send a request that must be answered with this status.

        :raises Failure: another status.
        """
        response = await self.api(method, path, body, params)
        check(response.status == expected, f"expected {expected} for {method} {path}, got {response}")
        return str(response)

    # --- waiting

    async def eventually(self, look: Callable[[], Awaitable[Any]], expected: Any, what: str) -> None:
        """Poll until the value is as expected.

        :raises Failure: it is not in time.
        """
        end = time.monotonic() + self.target.timeout
        while True:
            seen = await look()
            if seen == expected or time.monotonic() > end:
                return equal(seen, expected, what)
            await asyncio.sleep(POLL)

    async def within(self, waiting: Awaitable[T]) -> T:
        """Wait with the time-out of the run, after which it raises TimeoutError."""
        async with asyncio.timeout(self.target.timeout):
            return await waiting

    async def enter(self, manager: AbstractAsyncContextManager[Any]) -> Any:
        """Close something when the case ends."""
        return await self._stack.enter_async_context(manager)


def member(user_id: Any, **more: Any) -> str:
    """The ``channel_data`` of a member; ``more`` is ``user_info`` and other keys."""
    return json.dumps({"user_id": user_id} | more)


def encode(body: Any) -> bytes:
    """Encode the body of a request."""
    if body is None:
        return b""
    return body if isinstance(body, bytes) else json.dumps(body).encode()
