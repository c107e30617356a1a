"""Where the paths of the HTTP API lead (protocol section 10)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import unquote

from legato.broadcaster.transport.memo import remembered

from .events import ApiError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .requests import Endpoint

KNOWN_PATHS: Final = 1024
KNOWN_BYTES: Final = 256
"""Paths that are remembered, and how long they may be: nearly all requests are for a few."""


class Route(NamedTuple):
    """An endpoint below ``/apps/ID/``; ``name`` is its path, where ``*`` stands for one part of any text.

    ``depth`` is how many parts it has.
    """

    name: str
    method: str
    handler: Endpoint
    depth: int


class RouteMatch(NamedTuple):
    """Where a path leads.

    :ivar spellings: of the path, as clients may have signed it.
    :ivar app_id: None if the path does not tell: then the key does.
    :ivar route: None if there is no such endpoint.
    :ivar names: what stands for ``*``, decoded.
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
    """All endpoints.

    :param prefix: of every path.
    :ivar find: where a path leads, by its bytes as they came.
    """

    def __init__(self, prefix: str, routes: Iterable[Route]) -> None:
        self._prefix = prefix
        self._routes = {route.name: route for route in routes}
        self.find = remembered(KNOWN_PATHS, KNOWN_BYTES, self._find)

    def _find(self, path: bytes) -> RouteMatch:
        """By a path as it came, of any bytes; each part decoded once: a name may hold what a path may not.

        :raises ApiError: a part is not UTF-8.

        The official Python SDK leaves ``/apps/ID`` out of one path (section 10.8).
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
        """What stands for ``*`` is in every name of one the second part."""
        route = self._routes.get("/".join((parts[0], "*", *parts[2:])) if len(parts) > 1 else "".join(parts))
        return route if route is not None and route.depth == len(parts) else None  # a part may have a slash

    def _spellings(self, raw: str) -> tuple[str, ...]:
        if "%" not in raw and not self._prefix:
            return (raw,)
        spellings = (raw, unquote(raw))
        return (*spellings, *(path.removeprefix(self._prefix) for path in spellings))
