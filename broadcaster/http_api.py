"""The Pusher HTTP API (protocol section 10), straight on ASGI: the hot path of publishing."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple
from urllib.parse import unquote

import msgspec

from protocol import messages, signatures, users
from protocol.channels import SERVER_TO_USER, SOCKET_ID, Channel, ChannelError
from protocol.presence import MAX_USER_ID
from protocol.signatures import UNKNOWN_KEY, SignatureError
from protocol.wire import CACHED, RECONNECT, TERMINATE, Envelope

from .bus import BusError
from .hub import Key

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, MutableMapping

    from protocol.apps import App

    from .node import Node
    from .registry import Counts

    Scope = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
    Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

logger: Final = logging.getLogger("legato.api")

RESERVED: Final = ("pusher:", "pusher_internal:")
PRESENCE: Final = "presence-"
USER_COUNT_NEEDS_PRESENCE: Final = (
    "user_count may only be requested for presence channels - "
    "please supply filter_by_prefix begining with presence-"
)
"""The hosted service's text, its spelling too."""

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
    """An authentic request. ``names`` are what stands for ``*`` in its route, decoded."""

    app: App
    names: tuple[str, ...]
    params: Mapping[str, str]
    body: bytes

    @property
    def info(self) -> frozenset[str]:
        """The attributes asked for in the query."""
        return attributes(self.params.get("info"))


def attributes(info: str | None) -> frozenset[str]:
    """The names in a comma-separated ``info``."""
    return frozenset(name.strip() for name in (info or "").split(",")) - {""}


_event_decoder: Final = msgspec.json.Decoder(Event)
_batch_decoder: Final = msgspec.json.Decoder(Batch)
QUERY_FIELDS: Final = ("name", "data", "channel", "channels", "socket_id", "info")
"""Parameters of an event that may be in the query."""

_object_decoder: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_any_decoder: Final = msgspec.json.Decoder()
_encoder: Final = msgspec.json.Encoder()


class Route(NamedTuple):
    """An endpoint below ``/apps/ID/``; ``*`` stands for one part of any text."""

    method: str
    parts: tuple[str, ...]
    handler: Callable[[Request], Awaitable[tuple[int, Any]]]

    def matches(self, parts: list[str]) -> bool:
        """Whether the path is this endpoint's."""
        return len(parts) == len(self.parts) and all(
            place in ("*", part) for place, part in zip(self.parts, parts, strict=True)
        )


class HttpApi:
    """ASGI application for everything below ``PREFIX/apps/``."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._prefix = node.settings.server.path
        self._routes: tuple[Route, ...] = (
            Route("POST", ("events",), self._events),
            Route("POST", ("batch_events",), self._batch_events),
            Route("GET", ("channels",), self._channels),
            Route("GET", ("channels", "*"), self._channel),
            Route("GET", ("channels", "*", "users"), self._users),
            Route("POST", ("users", "*", "terminate_connections"), self._terminate),
            Route("POST", ("users", "*", "reconnect_connections"), self._reconnect),
            Route("GET", ("connections",), self._connections),
            Route("POST", ("channels", "*", "events"), self._event_on_channel),
            Route("GET", ("channels", "*", "stats"), self._channel),
        )

    def serves(self, raw_path: bytes) -> bool:
        """Whether the path is one of the API's."""
        return raw_path.startswith((f"{self._prefix}/apps/".encode(), f"{self._prefix}/users/".encode()))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; whatever a client sends, the answer is JSON."""
        name, status = "unknown", 200
        try:
            params = signatures.parse_query(scope["query_string"])
            app_id, parts = self._address(scope, params)
            route, names = self._match(scope["method"], parts)
            name = "/".join(route.parts)
            body = await read_body(receive, self._node.settings.server.max_request_bytes)
            request = Request(self._authenticate(scope, app_id, params, body), names, params, body)
            status, answer = await route.handler(request)
        except ApiError as error:
            status, answer = error.status, {"error": str(error), "code": error.status}
        except BusError as error:
            status, answer = 503, {"error": str(error), "code": 503}
        except Exception:  # whatever it is, the SDK gets JSON
            logger.exception("a request could not be answered")
            status, answer = 500, {"error": "Server error", "code": 500}
        self._node.requests[name, status] += 1
        await send_json(send, status, answer)

    def _address(self, scope: Scope, params: Mapping[str, str]) -> tuple[str, list[str]]:
        """The application's id, and the parts of the path behind it.

        On the raw path, each part decoded once: a name may hold what a path may not. The official Python SDK
        leaves ``/apps/ID`` out of one path: there the key tells the application (section 10.8).
        """
        parts = [unquote(part) for part in _raw_path(scope).removeprefix(self._prefix).split("/")[1:]]
        if parts[0] == "apps":
            return (parts[1] if len(parts) > 1 else ""), parts[2:]
        app = self._node.app_with_key(params.get("auth_key", ""))
        return ("" if app is None else app.id), parts

    def _match(self, method: str, parts: list[str]) -> tuple[Route, tuple[str, ...]]:
        found = [route for route in self._routes if route.matches(parts)]
        for route in found:
            if route.method == method:
                return route, tuple(
                    part for part, place in zip(parts, route.parts, strict=True) if place == "*"
                )
        if found:
            raise ApiError(405, f"Expected {found[0].method}")
        raise ApiError(404, "No such endpoint")

    def _authenticate(self, scope: Scope, app_id: str, params: Mapping[str, str], body: bytes) -> App:
        """The application that the request is for, if it has signed it.

        Only an application, any one, learns that another is not there: to all others an unknown one looks
        like one that they have no key of.
        """
        app = self._node.apps.get(app_id)
        signer = app or self._node.app_with_key(params.get("auth_key", ""))
        try:
            self._verify(scope, {} if signer is None else signer.keys, params, body)
        except SignatureError as error:
            reason = str(error) if app is not None else UNKNOWN_KEY
            raise ApiError(error.status, reason) from error
        if app is None:
            raise ApiError(404, "No such application")
        if not app.enabled:
            raise ApiError(403, "The application is disabled")
        return app

    def _verify(self, scope: Scope, keys: Mapping[str, str], params: Mapping[str, str], body: bytes) -> None:
        raw = _raw_path(scope)
        spellings = (raw, unquote(raw))
        short = tuple(path.removeprefix(self._prefix) for path in spellings) if self._prefix else ()
        signatures.verify_request(keys, scope["method"], (*spellings, *short), params, body, time.time())

    # --- publishing

    async def _events(self, request: Request) -> tuple[int, Any]:
        event = _decode(_event_decoder, _with_query(request))
        names = event.channels if event.channels is not None else (event.channel,)
        channels = tuple(dict.fromkeys(name for name in names if name is not None))
        limit = request.app.max_channels_per_event
        if not 1 <= len(channels) <= limit:
            raise ApiError(400, f"Expected 1 to {limit} channels")
        await self._publish(request.app, [(event, channel) for channel in channels])
        if event.info is None:
            return 200, {}
        infos = await self._infos(request.app, channels, attributes(event.info))
        return 200, {"channels": dict(zip(channels, infos, strict=True))}

    async def _batch_events(self, request: Request) -> tuple[int, Any]:
        events = _decode(_batch_decoder, request.body).batch
        limit = request.app.max_events_per_batch
        if not 1 <= len(events) <= limit:
            raise ApiError(400, f"Expected 1 to {limit} events")
        await self._publish(request.app, [(event, event.channel) for event in events])
        if all(event.info is None for event in events):
            return 200, {}
        return 200, {
            "batch": [
                (await self._infos(request.app, (event.channel,), attributes(event.info)))[0]
                for event in events
            ]
        }

    async def _event_on_channel(self, request: Request) -> tuple[int, Any]:
        """The deprecated form: the body is the data itself (section 10.9)."""
        try:
            data = request.body.decode()
        except UnicodeDecodeError as error:
            raise ApiError(400, "The body is not UTF-8") from error
        name = request.params.get("name", "")
        if not 1 <= len(name) <= 200:
            raise ApiError(400, "Expected an event name of 1 to 200 characters")
        raw = msgspec.Raw(_encoder.encode(data))
        event = BatchEvent(name, raw, request.names[0], request.params.get("socket_id") or None)
        await self._publish(request.app, [(event, event.channel)])
        return 202, {}

    async def _publish(self, app: App, events: list[tuple[Event | BatchEvent, str]]) -> None:
        """All are validated before any is sent, and what cache channels keep is kept first."""
        messages_ = [_publication(app, event, channel) for event, channel in events]
        await self._node.bus.publish([(row.key, await self._kept(app, row)) for row in messages_])

    async def _kept(self, app: App, row: _Publication) -> Envelope:
        if not row.cached:
            return row.envelope
        version = await self._node.registry.remember(row.key, row.name, row.data, app.cache_seconds)
        return row.envelope._replace(command=CACHED, detail=str(version))

    # --- questions

    async def _infos(
        self, app: App, channels: tuple[str, ...], wanted: frozenset[str]
    ) -> list[dict[str, Any]]:
        """For each channel those of ``wanted`` that apply to it."""
        keys = [Key(app.id, channel) for channel in channels]
        counts = await self._node.registry.counts(keys)
        return [_counts(key, count, wanted) for key, count in zip(keys, counts, strict=True)]

    async def _channels(self, request: Request) -> tuple[int, Any]:
        prefix = request.params.get("filter_by_prefix", "")
        if "user_count" in request.info and not prefix.startswith(PRESENCE):
            raise ApiError(400, USER_COUNT_NEEDS_PRESENCE)
        names = [
            name for name in await self._node.registry.occupied(request.app.id) if name.startswith(prefix)
        ]
        if not request.info:
            return 200, {"channels": {name: {} for name in names}}
        infos = await self._infos(request.app, tuple(names), request.info)
        return 200, {"channels": dict(zip(names, infos, strict=True))}

    async def _channel(self, request: Request) -> tuple[int, Any]:
        channel, wanted = _channel(request.names[0]), request.info
        if "user_count" in wanted and not channel.presence:
            raise ApiError(400, "user_count may only be requested for presence channels")
        if "cache" in wanted and not channel.cache:
            raise ApiError(400, "cache may only be requested for cache channels")
        key = Key(request.app.id, channel.name)
        (counts,) = await self._node.registry.counts([key])
        answer: dict[str, Any] = {"occupied": counts.subscriptions > 0} | _counts(key, counts, wanted)
        if "cache" in wanted:
            cached = await self._node.registry.recall(key)
            answer["cache"] = None if cached is None else {"data": cached.data, "ttl": cached.ttl}
        return 200, answer

    async def _users(self, request: Request) -> tuple[int, Any]:
        channel = _channel(request.names[0])
        if not channel.presence:
            raise ApiError(400, "Users may only be requested for presence channels")
        members = await self._node.registry.members(Key(request.app.id, channel.name))
        return 200, {"users": [{"id": user_id} for user_id in members]}

    async def _connections(self, request: Request) -> tuple[int, Any]:
        """Reverb's; of this node."""
        return 200, {"connections": self._node.connections[request.app.id]}

    async def _terminate(self, request: Request) -> tuple[int, Any]:
        return await self._tell_connections(request, TERMINATE)

    async def _reconnect(self, request: Request) -> tuple[int, Any]:
        """Legato's own: the user's connections end, and come back at once."""
        return await self._tell_connections(request, RECONNECT)

    async def _tell_connections(self, request: Request, command: str) -> tuple[int, Any]:
        key = Key(request.app.id, users.user_channel(request.names[0]))
        await self._node.bus.publish([(key, Envelope(b"", command=command))])
        return 200, {}


def _with_query(request: Request) -> bytes:
    """The body, with what only the query has (section 10.1); there ``channels`` are joined with commas."""
    given = {name: request.params[name] for name in QUERY_FIELDS if name in request.params}
    if not given:
        return request.body
    fields: dict[str, Any] = dict(given)
    if "channels" in given:
        fields["channels"] = given["channels"].split(",")
    body = _decode(_object_decoder, request.body or b"{}")
    return _encoder.encode(fields | body)


def _counts(key: Key, counts: Counts, wanted: frozenset[str]) -> dict[str, int]:
    answer = {}
    if "user_count" in wanted and key.channel.startswith(PRESENCE):
        answer["user_count"] = counts.users
    if "subscription_count" in wanted:
        answer["subscription_count"] = counts.subscriptions
    return answer


class _Publication(NamedTuple):
    """One message on one channel, and what a cache channel keeps of it."""

    key: Key
    envelope: Envelope
    cached: bool
    name: str
    data: str


def _publication(app: App, event: Event | BatchEvent, channel: str) -> _Publication:
    """What goes out.

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
    is_user = channel.startswith(SERVER_TO_USER) and 1 <= len(channel) - len(SERVER_TO_USER) <= MAX_USER_ID
    cached = not is_user and _channel(channel).cache
    envelope = Envelope(messages.channel_event(event.name, channel, data), event.socket_id)
    return _Publication(Key(app.id, channel), envelope, cached, event.name, data)


def _channel(name: str) -> Channel:
    try:
        return Channel.parse(name)
    except ChannelError as error:
        raise ApiError(400, str(error)) from error


def _data_text(raw: msgspec.Raw) -> str:
    """The event's data string; another JSON value is encoded compactly (section 10.3)."""
    value: Any = _decode(_any_decoder, bytes(raw))  # msgspec.Raw is skipped over, not validated
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
