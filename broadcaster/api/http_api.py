"""The Pusher HTTP API (protocol section 10), optimised for publishing."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import msgspec

from legato.broadcaster.bus.base import BusError
from legato.broadcaster.observability.refusals import key_hint
from legato.broadcaster.transport.peer import address_of
from legato.protocol import refusals, signatures
from legato.protocol.signatures import UNKNOWN_KEY, SignatureError

from .asgi import read_body, send_json
from .events import ApiError, TooManyFailures
from .publishing import Publishing
from .queries import Queries
from .requests import Accepted, ApiRequest
from .routes import Paths, Route, RouteMatch
from .running import RequestTasks

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Mapping, Sequence

    from legato.broadcaster.addresses.opening import AddressLimits
    from legato.broadcaster.apps.directory import Directory
    from legato.broadcaster.bus.base import Bus
    from legato.broadcaster.config import Server
    from legato.broadcaster.observability.refusals import Refused
    from legato.broadcaster.registry.base import Registry
    from legato.protocol.apps import App

    from .asgi import Receive, Scope, Send
    from .requests import Endpoint, Told

    class Reply(Protocol):
        """Takes status, JSON, and the seconds of ``Retry-After`` if there are any."""

        def __call__(self, status: int, answer: bytes, wait: int = 0, /) -> None: ...


logger: Final = logging.getLogger("legato.api")

_encoder: Final = msgspec.json.Encoder()
_NOTHING: Final = b"{}"


def _body_length(headers: Sequence[tuple[bytes, bytes]]) -> int | None:
    """Return the length of the body; None if it is chunked."""
    fields = dict(headers)
    return None if b"transfer-encoding" in fields else int(fields.get(b"content-length", b"0"))


def _allowed(route: Route | None, method: str) -> Route:
    if route is None:
        raise ApiError(404, "No such endpoint")
    if route.method != method:
        raise ApiError(405, f"Expected {route.method}")
    return route


class _Asked(NamedTuple):
    """A request whose answer has to be waited for."""

    route: Route
    target: bytes
    reply: Reply
    peer: asyncio.BaseTransport


class HttpApi:
    """Answers everything below ``PREFIX/apps/``.

    :param figures: counts requests by endpoint and status.
    :ivar max_body: maximum size of a body in bytes.
    :ivar callers: finds the address of a request; None if nothing is limited by it.
    :ivar refused: takes note of refused requests.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - wired once
        self,
        server: Server,
        apps: Directory,
        bus: Bus,
        registry: Registry,
        figures: Counter[tuple[str, int]],
        addresses: AddressLimits,
        refused: Refused,
    ) -> None:
        self.max_body = server.max_request_bytes
        self.refused = refused
        self._apps = apps
        self._figures = figures
        addresses.follow(self._use)
        self._starts = (f"{server.path}/apps/".encode(), f"{server.path}/users/".encode())
        self._loop = asyncio.get_running_loop()
        running, queries = RequestTasks(self._loop), Queries(registry)
        publishing = Publishing(bus, registry, queries, running)
        self._paths = Paths(server.path, _routes(publishing, queries, running))

    def _use(self, addresses: AddressLimits) -> None:
        self.callers, self._failures = addresses.callers, addresses.signatures

    def serves(self, raw_path: bytes) -> bool:
        """Whether the path belongs to the API."""
        return raw_path.startswith(self._starts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry point, for the few requests with an absolute URL."""
        target = scope["raw_path"].partition(b"?")[0] + b"?" + scope["query_string"]
        answered: asyncio.Future[tuple[Any, ...]] = self._loop.create_future()
        length = _body_length(scope["headers"])
        caller = scope["client"][0] if scope["client"] else ""
        peer: asyncio.BaseTransport = scope["state"]["peer"]

        def settle(*told: Any) -> None:
            if not answered.done():
                answered.set_result(told)

        if length == 0 or not self.refuses(scope["method"], target, length, settle, peer, caller):
            try:
                body: bytes | None = await read_body(receive, self.max_body)
            except ApiError as error:
                if error.status != 413:
                    return  # the client has disconnected
                body = None
            self.answer(scope["method"], target, body, settle, peer, caller)
        await send_json(send, *await answered)

    def refuses(
        self,
        method: str,
        target: bytes,
        length: int | None,
        reply: Reply,
        peer: asyncio.BaseTransport,
        caller: str = "",
    ) -> bool:
        """Refuse a request before its body arrives, if no body can make it valid. Returns whether it did.

        Checks everything but the body itself and its MD5, which the signature covers.

        :param length: the length of the body; None if unknown.
        :param caller: the client's address; empty if nothing is limited by it.
        """
        route = None
        try:
            path, _, query = target.partition(b"?")
            params = signatures.parse_text_query(query)
            match = self._paths.find(path)
            route = _allowed(match.route, method)
            if length is not None and length > self.max_body:
                self._within_limit(None)
            self._authenticate(match, method, params, None, caller)
        except Exception as error:  # noqa: BLE001 - the SDK gets JSON for any error
            self._fail(route, reply, error, target, peer)
            return True
        return False

    def answer(
        self,
        method: str,
        target: bytes,
        body: bytes | bytearray | None,
        reply: Reply,
        peer: asyncio.BaseTransport,
        caller: str = "",
    ) -> None:
        """Reply with status and JSON to any request; at once if nothing has to be waited for.

        :param target: path and query as received.
        :param body: None if it exceeded the limit.
        :param peer: who asks, for the log.
        :param caller: as in :meth:`refuses`.
        """
        route = None
        try:
            path, _, query = target.partition(b"?")
            params = signatures.parse_text_query(query)
            match = self._paths.find(path)
            route = _allowed(match.route, method)
            app = self._authenticate(match, method, params, self._within_limit(body), caller)
            told = route.handler(ApiRequest(app, match.names, params, bytes(body or b"")))
        except Exception as error:  # noqa: BLE001 - the SDK gets JSON for any error
            self._fail(route, reply, error, target, peer)
            return
        if isinstance(told, tuple):
            self._reply(route, reply, *told)
            return
        asked = _Asked(route, target, reply, peer)
        if isinstance(told, Accepted):
            told.when.add_done_callback(lambda done: self._follow_up(asked, done, told.told))
        else:
            told.add_done_callback(lambda done: self._follow_up(asked, done))

    def _within_limit(self, body: bytes | bytearray | None) -> bytes | bytearray:
        if body is None:
            raise ApiError(413, f"The body is larger than {self.max_body} bytes")
        return body

    def _follow_up(self, asked: _Asked, done: asyncio.Future[Any], told: Told | None = None) -> None:
        """Reply with ``told``, or with the result of ``done`` if that is None."""
        if done.cancelled():  # the server is stopping
            return
        error = done.exception()
        if error is not None:
            told = self._error_answer(error, asked.target, asked.peer)
        self._reply(asked.route, asked.reply, *(done.result() if told is None else told))

    def _reply(self, route: Route | None, reply: Reply, status: int, told: Mapping[str, Any]) -> None:
        self._figures["unknown" if route is None else route.name, status] += 1
        reply(status, _encoder.encode(told) if told else _NOTHING)

    def _fail(
        self,
        route: Route | None,
        reply: Reply,
        error: BaseException,
        target: bytes,
        peer: asyncio.BaseTransport,
    ) -> None:
        if not isinstance(error, TooManyFailures):
            self._reply(route, reply, *self._error_answer(error, target, peer))
            return
        self._figures["unknown" if route is None else route.name, 429] += 1
        reply(429, _encoder.encode({"error": str(error), "code": 429}), error.wait)

    def _error_answer(self, error: BaseException, target: bytes, peer: asyncio.BaseTransport) -> Told:
        """Log an error, and return the answer for it."""
        if isinstance(error, (ApiError, SignatureError)):
            status, detail = error.status, str(error)
            facts = _facts(target)
            self.refused(error.refusal, **facts, status=status, detail=detail, address=address_of(peer))
            return status, {"error": detail, "code": status}
        if isinstance(error, BusError):
            logger.warning("answering a request with 503: %s", error)
            return 503, {"error": str(error), "code": 503}
        logger.error("a request could not be answered", exc_info=error)
        return 500, {"error": "Server error", "code": 500}

    def _authenticate(
        self,
        match: RouteMatch,
        method: str,
        params: Mapping[str, str],
        body: bytes | bytearray | None,
        caller: str,
    ) -> App:
        """Verify the signature, and return the application of the request.

        Only a caller with a valid key of any application learns that an application does not exist. For all
        others an unknown application looks like one with another key.
        """
        limit = self._failures if caller else None
        if limit is not None and (wait := limit.refuses(caller)):
            raise TooManyFailures(wait)
        named = self._apps.with_key(params.get("auth_key", ""))
        app = named if match.app_id is None else self._apps.by_id.get(match.app_id)
        signer = app or named
        try:
            keys = {} if signer is None else signer.keys
            signatures.verify_request(keys, method, match.spellings, params, body, time.time())
        except SignatureError as error:
            if limit is not None:
                limit.failed(caller)
            if app is None and match.app_id is not None:
                raise ApiError(error.status, UNKNOWN_KEY, refusals.UNKNOWN_APP) from error
            raise ApiError(error.status, str(error), error.refusal) from error
        if app is None:
            raise ApiError(404, "No such application", refusals.UNKNOWN_APP)
        if not app.enabled:
            raise ApiError(403, "The application is disabled")
        return app


def _routes(publishing: Publishing, queries: Queries, running: RequestTasks) -> list[Route]:
    rows: tuple[tuple[str, str, Endpoint], ...] = (
        ("events", "POST", publishing.events),
        ("batch_events", "POST", publishing.batch_events),
        ("channels", "GET", running.wrap(queries.channels)),
        ("channels/*", "GET", running.wrap(queries.channel)),
        ("channels/*/users", "GET", running.wrap(queries.users)),
        ("users/*/terminate_connections", "POST", running.wrap(publishing.terminate)),
        ("users/*/reconnect_connections", "POST", running.wrap(publishing.reconnect)),
        ("connections", "GET", running.wrap(queries.connections)),
        ("channels/*/events", "POST", publishing.event_on_channel),
        ("channels/*/stats", "GET", running.wrap(queries.channel)),
    )
    return [Route(name, method, handler, name.count("/") + 1) for name, method, handler in rows]


def _facts(target: bytes) -> dict[str, str]:
    """What to log of a request that is refused: the path without the query, the application and its key."""
    path, _, query = target.partition(b"?")
    text = path.decode("latin-1")
    _, _, rest = text.partition("/apps/")
    key = key_hint(signatures.parse_query(query).get("auth_key", ""))
    return {"app": rest.partition("/")[0], "path": text, "key": key}
