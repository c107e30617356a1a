"""The Pusher HTTP API (protocol section 10): the hot path of publishing."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from legato.broadcaster.bus.bus import BusError
from legato.broadcaster.channels.subscriber import Key
from legato.broadcaster.slices import slices
from legato.protocol import signatures, users
from legato.protocol.signatures import UNKNOWN_KEY, SignatureError
from legato.protocol.wire import CACHED, RECONNECT, TERMINATE, Envelope

from .events import (
    ApiError,
    BatchEvent,
    Publication,
    decode_batch,
    decode_event,
    parse_channel,
    publication,
    without_halves,
)
from .routes import Paths, Place, Route

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Coroutine, Mapping, MutableMapping, Sequence

    from legato.broadcaster.node import Node
    from legato.broadcaster.registry.base import Counts
    from legato.protocol.apps import App
    from legato.protocol.channels import Channel

    Scope = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
    Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
    Reply = Callable[[int, bytes], None]
    Handler = Callable[["Request"], Coroutine[Any, Any, "Told"]]

logger: Final = logging.getLogger("legato.api")

PRESENCE: Final = "presence-"
USER_COUNT_NEEDS_PRESENCE: Final = (
    "user_count may only be requested for presence channels - "
    "please supply filter_by_prefix begining with presence-"
)
"""The hosted service's text, its spelling too."""

Told = tuple[int, "Mapping[str, Any]"]
"""Status, and what the body says."""

ACCEPTED: Final[Told] = 200, {}


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


_encoder: Final = msgspec.json.Encoder()
_NOTHING: Final = b"{}"


def _announced(headers: Sequence[tuple[bytes, bytes]]) -> int | None:
    """Bytes of the body; None if it comes in chunks."""
    fields = dict(headers)
    return None if b"transfer-encoding" in fields else int(fields.get(b"content-length", b"0"))


def _allowed(route: Route | None, method: str) -> Route:
    if route is None:
        raise ApiError(404, "No such endpoint")
    if route.method != method:
        raise ApiError(405, f"Expected {route.method}")
    return route


class HttpApi:
    """Answers everything below ``PREFIX/apps/``.

    :ivar max_body: bytes that a request's body may have.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        prefix = node.settings.server.path
        self.max_body = node.settings.server.max_request_bytes
        self._starts = (f"{prefix}/apps/".encode(), f"{prefix}/users/".encode())
        later = self._later
        routes: tuple[tuple[str, str, Callable[[Request], Any]], ...] = (
            ("events", "POST", self._events),
            ("batch_events", "POST", self._batch_events),
            ("channels", "GET", later(self._channels)),
            ("channels/*", "GET", later(self._channel)),
            ("channels/*/users", "GET", later(self._users)),
            ("users/*/terminate_connections", "POST", later(self._terminate)),
            ("users/*/reconnect_connections", "POST", later(self._reconnect)),
            ("connections", "GET", later(self._connections)),
            ("channels/*/events", "POST", self._event_on_channel),
            ("channels/*/stats", "GET", later(self._channel)),
        )
        self._running: set[asyncio.Future[Told]] = set()
        self._paths = Paths(
            prefix, [Route(name, method, handler, name.count("/") + 1) for name, method, handler in routes]
        )

    def serves(self, raw_path: bytes) -> bool:
        """Whether the path is one of the API's."""
        return raw_path.startswith(self._starts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """For a request that did not come the short way (:mod:`.http`): one with an absolute address."""
        target = scope["raw_path"].partition(b"?")[0] + b"?" + scope["query_string"]
        answered: asyncio.Future[tuple[int, bytes]] = self._node.loop.create_future()
        announced = _announced(scope["headers"])
        if announced == 0 or not self.refuses(
            scope["method"], target, announced, lambda *told: _settle(answered, told)
        ):
            try:
                body: bytes | None = await read_body(receive, self.max_body)
            except ApiError as error:
                if error.status != 413:
                    return  # nobody is there any more
                body = None
            self.answer(scope["method"], target, body, lambda *told: _settle(answered, told))
        await send_json(send, *await answered)

    def refuses(self, method: str, target: bytes, length: int | None, reply: Reply) -> bool:
        """Whether a request is answered before its body has come: with the reason why no body can help it.

        Everything is checked but the body itself, and whether it has the MD5 that the signature covers.

        :param length: of the body; None if nobody knows.
        """
        route = None
        try:
            path, _, query = target.partition(b"?")
            params = signatures.parse_text_query(query)
            place = self._paths.find(path)
            route = _allowed(place.route, method)
            if length is not None and length > self.max_body:
                self._whole(None)
            self._authenticate(place, method, params, None)
        except Exception as error:  # noqa: BLE001 - whatever it is, the SDK gets JSON
            self._reply(route, reply, *_failed(error))
            return True
        return False

    def answer(self, method: str, target: bytes, body: bytes | bytearray | None, reply: Reply) -> None:
        """Reply with status and JSON, whatever a client sends: at once if nobody has to be waited for.

        :param target: path and query, as they came.
        :param body: None if it was larger than it may be.
        """
        route = None
        try:
            path, _, query = target.partition(b"?")
            params = signatures.parse_text_query(query)
            place = self._paths.find(path)
            route = _allowed(place.route, method)
            app = self._authenticate(place, method, params, self._whole(body))
            told = route.handler(Request(app, place.names, params, bytes(body or b"")))
        except Exception as error:  # noqa: BLE001 - whatever it is, the SDK gets JSON
            self._reply(route, reply, *_failed(error))
            return
        if isinstance(told, tuple):
            self._reply(route, reply, *told)
        else:
            told.add_done_callback(lambda done: self._follow_up(route, reply, done))

    def _whole(self, body: bytes | bytearray | None) -> bytes | bytearray:
        if body is None:
            raise ApiError(413, f"The body is larger than {self.max_body} bytes")
        return body

    def _follow_up(self, route: Route, reply: Reply, done: asyncio.Future[Told]) -> None:
        if done.cancelled():  # the server stops
            return
        error = done.exception()
        self._reply(route, reply, *(done.result() if error is None else _failed(error)))

    def _reply(self, route: Route | None, reply: Reply, status: int, told: Mapping[str, Any]) -> None:
        self._node.requests["unknown" if route is None else route.name, status] += 1
        reply(status, _encoder.encode(told) if told else _NOTHING)

    def _authenticate(
        self, place: Place, method: str, params: Mapping[str, str], body: bytes | bytearray | None
    ) -> App:
        """The application that the request is for, if it has signed it.

        Only an application, any one, learns that another is not there: to all others an unknown one looks
        like one that they have no key of.
        """
        named = self._node.app_with_key(params.get("auth_key", ""))
        app = named if place.app_id is None else self._node.apps.get(place.app_id)
        signer = app or named
        try:
            keys = {} if signer is None else signer.keys
            signatures.verify_request(keys, method, place.spellings, params, body, time.time())
        except SignatureError as error:
            reason = str(error) if app is not None else UNKNOWN_KEY
            raise ApiError(error.status, reason) from error
        if app is None:
            raise ApiError(404, "No such application")
        if not app.enabled:
            raise ApiError(403, "The application is disabled")
        return app

    # --- publishing

    def _later(self, handler: Handler) -> Callable[[Request], asyncio.Future[Told]]:
        return lambda request: self._task(handler(request))

    def _task(self, work: Coroutine[Any, Any, Told]) -> asyncio.Future[Told]:
        task = self._node.loop.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    def _events(self, request: Request) -> Told | asyncio.Future[Told]:
        event = decode_event(request.params, request.body)
        names = event.channels if event.channels is not None else (event.channel,)
        channels = tuple(dict.fromkeys([name for name in names if name is not None]))
        limit = request.app.max_channels_per_event
        if not 1 <= len(channels) <= limit:
            raise ApiError(400, f"Expected 1 to {limit} channels")
        rows = [publication(request.app, event, channel) for channel in channels]
        if event.info is None:
            return self._published(request.app, rows, ACCEPTED)
        return self._task(self._publish_and_tell(request.app, rows, channels, event.info))

    def _batch_events(self, request: Request) -> Told | asyncio.Future[Told]:
        events = decode_batch(request.body)
        limit = request.app.max_events_per_batch
        if len(events) > limit:
            raise ApiError(400, f"Batch too large (> {limit})")
        if not events:
            raise ApiError(400, f"Expected 1 to {limit} events")
        rows = [publication(request.app, event, event.channel) for event in events]
        if all(event.info is None for event in events):
            return self._published(request.app, rows, ACCEPTED)
        return self._task(self._publish_batch_and_tell(request.app, rows, events))

    def _event_on_channel(self, request: Request) -> Told | asyncio.Future[Told]:
        """The deprecated form: the body is the data itself (section 10.9)."""
        try:
            data = request.body.decode()
        except UnicodeDecodeError as error:
            raise ApiError(400, "The body is not UTF-8") from error
        name = request.params.get("name", "")
        if not name:
            raise ApiError(400, "Expected an event name")
        event = BatchEvent(name, data, request.names[0], request.params.get("socket_id") or None)
        return self._published(request.app, [publication(request.app, event, event.channel)], (202, {}))

    def _published(self, app: App, rows: list[Publication], told: Told) -> Told | asyncio.Future[Told]:
        """Without waiting, where neither a cache channel nor the bus needs it: all are validated by now."""
        if any([row.cached for row in rows]):  # noqa: C419 - a generator costs more than so few rows
            return self._task(self._publish_then(app, rows, told))
        accepted = self._node.bus.post([(row.key, row.envelope) for row in rows])
        if accepted is None:
            return told
        answer: asyncio.Future[Told] = self._node.loop.create_future()
        accepted.add_done_callback(lambda done: _pass_on(done, answer, told))
        return answer

    async def _publish_then(self, app: App, rows: list[Publication], told: Told) -> Told:
        await self._publish(app, rows)
        return told

    async def _publish(self, app: App, rows: list[Publication]) -> None:
        """What cache channels keep is kept first."""
        await self._node.bus.publish(
            [(row.key, await self._kept(app, row) if row.cached else row.envelope) for row in rows]
        )

    async def _kept(self, app: App, row: Publication) -> Envelope:
        version = await self._node.registry.remember(
            row.key, without_halves(row.name), without_halves(row.data), app.cache_seconds
        )
        return row.envelope._replace(command=CACHED, detail=str(version))

    async def _publish_and_tell(
        self, app: App, rows: list[Publication], channels: tuple[str, ...], info: str
    ) -> Told:
        await self._publish(app, rows)
        infos = await self._infos(app, channels, attributes(info))
        return 200, {"channels": dict(zip(channels, infos, strict=True))}

    async def _publish_batch_and_tell(
        self, app: App, rows: list[Publication], events: Sequence[BatchEvent]
    ) -> Told:
        await self._publish(app, rows)
        return 200, {
            "batch": [
                (await self._infos(app, (event.channel,), attributes(event.info)))[0] for event in events
            ]
        }

    # --- questions

    async def _infos(
        self, app: App, channels: tuple[str, ...], wanted: frozenset[str]
    ) -> list[dict[str, Any]]:
        """For each channel those of ``wanted`` that apply to it."""
        keys = [Key(app.id, channel) for channel in channels]
        counts = await self._node.registry.counts(keys)
        return [_counts(key, count, wanted) for key, count in zip(keys, counts, strict=True)]

    async def _channels(self, request: Request) -> Told:
        prefix = request.params.get("filter_by_prefix", "")
        if "user_count" in request.info and not prefix.startswith(PRESENCE):
            raise ApiError(400, USER_COUNT_NEEDS_PRESENCE)
        app_id, info = request.app.id, request.info
        found = await self._node.registry.occupied(app_id, prefix)
        channels: dict[str, Any] = {}
        async for part in slices(list(found.items())):
            channels |= {name: _counts(Key(app_id, name), counts, info) for name, counts in part}
        return 200, {"channels": channels}

    async def _channel(self, request: Request) -> Told:
        channel, wanted = _channel(request), request.info
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

    async def _users(self, request: Request) -> Told:
        channel = _channel(request)
        if not channel.presence:
            raise ApiError(400, "Users may only be requested for presence channels")
        members = await self._node.registry.members(Key(request.app.id, channel.name))
        return 200, {"users": [{"id": user_id} for user_id in members]}

    async def _connections(self, request: Request) -> Told:
        """Reverb's; of all nodes."""
        return 200, {"connections": await self._node.registry.connections(request.app.id)}

    async def _terminate(self, request: Request) -> Told:
        return await self._tell_connections(request, TERMINATE)

    async def _reconnect(self, request: Request) -> Told:
        """Legato's own: the user's connections end, and come back at once."""
        return await self._tell_connections(request, RECONNECT)

    async def _tell_connections(self, request: Request, command: str) -> Told:
        key = Key(request.app.id, users.user_channel(request.names[0]))
        await self._node.bus.publish([(key, Envelope(b"", command=command))])
        return 200, {}


def _channel(request: Request) -> Channel:
    return parse_channel(request.names[0], request.app.max_channel_name_length)


def _counts(key: Key, counts: Counts, wanted: frozenset[str]) -> dict[str, int]:
    answer = {}
    if "user_count" in wanted and key.channel.startswith(PRESENCE):
        answer["user_count"] = counts.users
    if "subscription_count" in wanted:
        answer["subscription_count"] = counts.subscriptions
    return answer


def _failed(error: BaseException) -> Told:
    """What is answered instead."""
    if isinstance(error, (ApiError, SignatureError)):
        return error.status, {"error": str(error), "code": error.status}
    if isinstance(error, BusError):
        logger.warning("a request is answered with 503: %s", error)
        return 503, {"error": str(error), "code": 503}
    logger.error("a request could not be answered", exc_info=error)
    return 500, {"error": "Server error", "code": 500}


def _pass_on(accepted: asyncio.Future[None], answer: asyncio.Future[Told], told: Told) -> None:
    if answer.cancelled() or accepted.cancelled():
        answer.cancel()
    elif (error := accepted.exception()) is not None:
        answer.set_exception(error)
    else:
        answer.set_result(told)


def _settle(answered: asyncio.Future[tuple[int, bytes]], told: tuple[int, bytes]) -> None:
    if not answered.done():
        answered.set_result(told)


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


async def send_json(send: Send, status: int, body: bytes) -> None:
    """Answer with JSON."""
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
