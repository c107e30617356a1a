"""The routes of the HTTP API (protocol section 10)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

from legato.broadcaster.limits import CACHED_PATHS, MAX_CACHED_PATH_BYTES
from legato.broadcaster.transport.memo import remembered

from .events import ApiError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .requests import Endpoint


class Route(NamedTuple):
    """An endpoint below ``/apps/ID/``. ``name`` is its path, where ``*`` matches any one segment.

    ``depth`` is its number of segments.
    """

    name: str
    method: str
    handler: Endpoint
    depth: int


class RouteMatch(NamedTuple):
    """The result of routing a path.

    :ivar spellings: the forms of the path that a client may have signed.
    :ivar app_id: None if the path does not name the application; then the key does.
    :ivar route: None if there is no such endpoint.
    :ivar names: the decoded values of ``*``.
    """

    spellings: tuple[str, ...]
    app_id: str | None
    route: Route | None
    names: tuple[str, ...]


def _decoded(part: str) -> str:
    try:
        return unquote(part, errors="strict")
    except UnicodeDecodeError as error:
        raise ApiError(400, "The path is not UTF-8") from error


class Paths:
    """Routes paths to endpoints.

    :param prefix: the path prefix of the server (``server.path``).
    :ivar find: routes a path, given its bytes as received.
    """

    def __init__(self, prefix: str, routes: Iterable[Route]) -> None:
        self._prefix = prefix
        self._routes = {route.name: route for route in routes}
        self.find = remembered(CACHED_PATHS, MAX_CACHED_PATH_BYTES, self._find)

    def _find(self, path: bytes) -> RouteMatch:
        """Route a path as received, of any bytes. Each segment is decoded by itself: a name may have a slash.

        The official Python SDK omits ``/apps/ID`` in one path (section 10.8).

        :raises ApiError: a segment is not UTF-8.
        """
        raw = path.decode("ascii", "replace")
        parts = raw.removeprefix(self._prefix).split("/")[1:]
        if "%" in raw:
            parts = [_decoded(part) for part in parts]
        app_id = None
        if parts[0] == "apps":
            app_id, parts = (parts[1] if len(parts) > 1 else ""), parts[2:]
        return RouteMatch(self._spellings(raw), app_id, self._route(parts), tuple(parts[1:2]))

    def _route(self, parts: list[str]) -> Route | None:
        """Find the route. In every route with ``*``, this is the second segment."""
        route = self._routes.get("/".join((parts[0], "*", *parts[2:])) if len(parts) > 1 else "".join(parts))
        return route if route is not None and route.depth == len(parts) else None  # one may have a slash

    def _spellings(self, raw: str) -> tuple[str, ...]:
        if "%" not in raw and not self._prefix:
            return (raw,)
        spellings = (raw, unquote(raw))
        return (*spellings, *(path.removeprefix(self._prefix) for path in spellings))
