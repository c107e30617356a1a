"""The HTTP fallback transports of pusher-js as an ASGI application (protocol section 12)."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Final

from legato.broadcaster.addresses.callers import forwarded
from legato.broadcaster.api.asgi import disconnected, read_body
from legato.broadcaster.api.events import ApiError
from legato.broadcaster.limits import MAX_POLLING_SESSIONS
from legato.protocol import errors, fallback, refusals
from legato.protocol.fallback import Handle, SendError
from legato.protocol.redis.cancellation import end_task
from legato.protocol.signatures import parse_query

from .peer import address_of
from .polling_client import FallbackClient, Receiver

if TYPE_CHECKING:
    from legato.broadcaster.api.asgi import Receive, Scope, Send
    from legato.broadcaster.clients.client import ClientContext

_CORS: Final = [(b"access-control-allow-origin", b"*")]
_PREFLIGHT: Final = [
    *_CORS,
    (b"access-control-allow-methods", b"POST, OPTIONS"),
    (b"access-control-allow-headers", b"Content-Type"),
    (b"access-control-max-age", b"86400"),
]
_RECEIVE: Final = [
    *_CORS,
    (b"content-type", b"text/plain; charset=utf-8"),
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store, no-transform"),
    (b"x-accel-buffering", b"no"),
]
_SEND: Final = [*_CORS, (b"cache-control", b"no-store")]


class Fallback:
    """ASGI application for everything below ``PREFIX/pusher/app/``."""

    def __init__(self, context: ClientContext) -> None:
        server = context.server
        self._context = context
        self._app_path = f"{server.path}/app/"
        # The requests of a session use several sockets; on a shared port, any process may get one of them.
        served = server.fallback and not server.reuse_port
        self._prefix = f"{server.path}{server.fallback_path}/app/".encode() if served else None
        self._sessions: dict[Handle, FallbackClient] = {}

    def serves(self, raw_path: bytes) -> bool:
        """Whether the path belongs to the fallback transports."""
        return self._prefix is not None and raw_path.startswith(self._prefix)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Errors have CORS headers, too, so that any page can read the status."""
        assert self._prefix is not None  # noqa: S101 - the caller checks `serves`
        raw_path: bytes = scope["raw_path"].partition(b"?")[0]
        address = fallback.parse_address(raw_path.removeprefix(self._prefix).decode("ascii", "replace"))
        if address is None:
            await _answer(send, 404)
        elif scope["method"] == "OPTIONS":
            await _answer(send, 204, _PREFLIGHT)
        elif scope["method"] != "POST":
            await _answer(send, 405, [*_CORS, (b"allow", b"POST, OPTIONS")])
        elif address[1] == "xhr_send":
            await self._push(address[0], receive, send)
        else:
            client = self._client(address[0], scope)
            await _serve_receiver(client, address[1] == "xhr_streaming", receive, send)

    async def _push(self, handle: Handle, receive: Receive, send: Send) -> None:
        """Take messages from the client. A request without messages is a ping."""
        server = self._context.server
        if handle not in self._sessions:
            await _answer(send, 404)
            return
        try:
            body = await read_body(receive, server.max_request_bytes)
            parse = partial(fallback.parse_send, body, server.max_message_bytes)
            messages = await self._context.budget.in_turn(parse, len(body))
        except (ApiError, SendError) as error:
            await _answer(send, error.status)
            return
        client = self._sessions.get(handle)  # reading the body takes time
        if client is None:
            await _answer(send, 404)
            return
        client.seen()
        await client.take_in(messages)
        await _answer(send, 204)

    def _client(self, handle: Handle, scope: Scope) -> FallbackClient:
        """Return the client of a session. A new session starts, and may be refused, if there is none."""
        known = self._sessions.get(handle)
        if known is not None:
            return known
        address = address_of(scope["state"]["peer"])
        client = FallbackClient(self._context, lambda: self._forget(handle, client), address)
        client.forwarded = forwarded(scope["headers"]).decode("latin-1")
        if scope["client"] is not None:
            client.caller = scope["client"][0]
        if len(self._sessions) >= MAX_POLLING_SESSIONS:
            self._context.figures.refused[errors.OVER_CAPACITY.code] += 1
            client.refused(refusals.OVER_CAPACITY, detail="too many sessions of the HTTP fallback")
            client.close(errors.OVER_CAPACITY)
            return client
        client.begin(self._app_path + handle.key, parse_query(scope["query_string"]), _origin(scope))
        if client.there:
            self._sessions[handle] = client
        return client

    def _forget(self, handle: Handle, client: FallbackClient) -> None:
        if self._sessions.get(handle) is client:  # a refused one is not in it, or another one is by now
            del self._sessions[handle]


async def _serve_receiver(client: FallbackClient, streaming: bool, receive: Receive, send: Send) -> None:
    """Write frames to a receive request: once for a poll, until either side ends it for a stream."""
    receiver = Receiver(client.context.now(), streaming=streaming)
    gone = asyncio.create_task(disconnected(receive))
    gone.add_done_callback(lambda _: receiver.wake())
    client.attach(receiver)
    try:
        await send({"type": "http.response.start", "status": 200, "headers": _RECEIVE})
        if streaming:
            receiver.length += len(fallback.PRELUDE)
            await _write(send, fallback.PRELUDE)
        while not gone.done():
            frames = client.take(receiver)
            if frames:
                await _write(send, frames)
            if receiver.ended or (frames and not streaming):
                break
            await receiver.woken()
        await send({"type": "http.response.body", "body": b""})
    finally:
        client.detach(receiver)
        await end_task(gone)


async def _write(send: Send, frames: bytes) -> None:
    await send({"type": "http.response.body", "body": frames, "more_body": True})


async def _answer(send: Send, status: int, headers: list[tuple[bytes, bytes]] = _SEND) -> None:
    length = [] if status == 204 else [(b"content-length", b"0")]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *length]})
    await send({"type": "http.response.body", "body": b""})


def _origin(scope: Scope) -> str:
    found = [value for name, value in scope["headers"] if name == b"origin"]
    return "null" if len(found) > 1 else b"".join(found).decode("latin-1")
