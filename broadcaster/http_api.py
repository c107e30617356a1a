"""The Pusher HTTP API (protocol section 10), straight on ASGI: the hot path of publishing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple
from urllib.parse import unquote

import msgspec

from protocol import messages, signatures
from protocol.channels import SOCKET_ID, Channel, ChannelError
from protocol.signatures import SignatureError
from protocol.wire import Envelope

from .bus import BusError
from .hub import Key

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, MutableMapping

    from protocol.apps import App

    from .node import Node

    Scope = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
    Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

RESERVED: Final = ("pusher:", "pusher_internal:")

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class ApiError(Exception):
    """An answer other than 200, with the real status (section 10.2)."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Event(msgspec.Struct, frozen=True):
    """Body of ``POST /apps/ID/events``; unknown keys are ignored (section 10.3)."""

    name: Name
    data: msgspec.Raw
    channels: tuple[str, ...] | None = None
    channel: str | None = None
    socket_id: str | None = None
    info: str | None = None


class BatchEvent(msgspec.Struct, frozen=True):
    """One event of a batch (section 10.4)."""

    name: Name
    data: msgspec.Raw
    channel: str
    socket_id: str | None = None
    info: str | None = None


class Batch(msgspec.Struct, frozen=True):
    """Body of ``POST /apps/ID/batch_events``."""

    batch: tuple[BatchEvent, ...]


class Request(NamedTuple):
    """An authentic request."""

    app: App
    body: bytes


_event_decoder: Final = msgspec.json.Decoder(Event)
_batch_decoder: Final = msgspec.json.Decoder(Batch)
_encoder: Final = msgspec.json.Encoder()


class HttpApi:
    """ASGI application for everything below ``PREFIX/apps/``."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._prefix = node.settings.server.path
        self._routes: Mapping[str, tuple[str, Callable[[Request], Awaitable[Any]]]] = {
            "events": ("POST", self._events),
            "batch_events": ("POST", self._batch_events),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; whatever a client sends, the answer is JSON."""
        route = "unknown"
        try:
            app_id, route, handler = self._route(scope)
            body = await read_body(receive, self._node.settings.server.max_request_bytes)
            answer = await handler(Request(self._authenticate(scope, app_id, body), body))
            status = 200
        except ApiError as error:
            status, answer = error.status, {"error": str(error), "code": error.status}
        except BusError as error:
            status, answer = 503, {"error": str(error), "code": 503}
        self._node.requests[route, status] += 1
        await send_json(send, status, answer)

    def _route(self, scope: Scope) -> tuple[str, str, Callable[[Request], Awaitable[Any]]]:
        # On the raw path, decoded once: a name may hold what a path may not.
        parts = _raw_path(scope).removeprefix(f"{self._prefix}/apps/").split("/")
        route = self._routes.get("/".join(parts[1:]))
        if route is None:
            raise ApiError(404, "No such endpoint")
        method, handler = route
        if scope["method"] != method:
            raise ApiError(405, f"Expected {method}")
        return unquote(parts[0]), "/".join(parts[1:]), handler

    def _authenticate(self, scope: Scope, app_id: str, body: bytes) -> App:
        app = self._node.apps.get(app_id)
        if app is None:
            raise ApiError(404, "No such application")
        raw = _raw_path(scope)
        spellings = (raw, unquote(raw))
        short = tuple(path.removeprefix(self._prefix) for path in spellings) if self._prefix else ()
        params = signatures.parse_query(scope["query_string"])
        try:
            signatures.verify_request(
                app.keys, scope["method"], (*spellings, *short), params, body, time.time()
            )
        except SignatureError as error:
            raise ApiError(error.status, str(error)) from error
        if not app.enabled:
            raise ApiError(403, "The application is disabled")
        return app

    async def _events(self, request: Request) -> Any:
        event = _decode(_event_decoder, request.body)
        names = event.channels if event.channels is not None else (event.channel,)
        channels = tuple(dict.fromkeys(name for name in names if name is not None))
        limit = request.app.max_channels_per_event
        if not 1 <= len(channels) <= limit:
            raise ApiError(400, f"Expected 1 to {limit} channels")
        await self._node.bus.publish(_publications(request.app, event, channels))
        return {} if event.info is None else {"channels": {name: {} for name in channels}}

    async def _batch_events(self, request: Request) -> Any:
        events = _decode(_batch_decoder, request.body).batch
        limit = request.app.max_events_per_batch
        if not 1 <= len(events) <= limit:
            raise ApiError(400, f"Expected 1 to {limit} events")
        # All are validated before any is sent.
        publications = [
            publication
            for event in events
            for publication in _publications(request.app, event, (event.channel,))
        ]
        await self._node.bus.publish(publications)
        return {} if all(event.info is None for event in events) else {"batch": [{} for _ in events]}


def _publications(
    app: App, event: Event | BatchEvent, channels: tuple[str, ...]
) -> list[tuple[Key, Envelope]]:
    """One message per channel.

    :raises ApiError: a rule of section 10.3 is broken.
    """
    if event.name.startswith(RESERVED):
        raise ApiError(400, f"Event names may not start with {' or '.join(RESERVED)}")
    if event.socket_id is not None and not SOCKET_ID.fullmatch(event.socket_id):
        raise ApiError(400, "socket_id must be two numbers with a dot between them")
    data = _data_text(event.data)
    size = len(data.encode())
    if size > app.max_event_bytes:
        raise ApiError(
            413, f"The data of this event has {size} bytes; at most {app.max_event_bytes} are allowed"
        )
    return [
        (
            Key(app.id, _channel(name).name),
            Envelope(messages.channel_event(event.name, name, data), event.socket_id),
        )
        for name in channels
    ]


def _channel(name: str) -> Channel:
    try:
        return Channel.parse(name)
    except ChannelError as error:
        raise ApiError(400, str(error)) from error


def _data_text(raw: msgspec.Raw) -> str:
    """The event's data string; another JSON value is encoded compactly (section 10.3)."""
    value: Any = msgspec.json.decode(raw)
    return value if isinstance(value, str) else _encoder.encode(value).decode()


def _decode(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise ApiError(400, str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError(400, "The body is not valid JSON") from error


def _raw_path(scope: Scope) -> str:
    raw: bytes = scope["raw_path"]
    return raw.decode("ascii", "replace").partition("?")[0]


async def read_body(receive: Receive, limit: int) -> bytes:
    """The whole body, at most ``limit`` bytes.

    :raises ApiError: 413 when there is more; 400 when the client goes away before the end.
    """
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ApiError(400, "The request was cut off")
        body += message.get("body", b"")
        if len(body) > limit:
            raise ApiError(413, f"The body is larger than {limit} bytes")
        if not message.get("more_body", False):
            return bytes(body)


async def send_json(send: Send, status: int, answer: Any) -> None:
    """Answer with JSON."""
    body = _encoder.encode(answer)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
