"""CORS with the origin patterns of :mod:`legato.protocol.origins`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request

from legato.broadcaster.transport.peer import header_of
from legato.protocol import refusals
from legato.protocol.origins import Origins

from .refusals import tell

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

EXPOSED: Final = (
    *("ETag", "Location", "Retry-After", "X-Message-Id", "Stream-Next-Offset", "Stream-Up-To-Date"),
    *("Stream-Closed", "Stream-Cursor"),
)
"""Headers of answers that pages of other origins may read."""


class Cors(CORSMiddleware):
    """Starlette's middleware, with ``allow_origins`` as patterns with a scheme, or ``*``."""

    def __init__(
        self,
        app: ASGIApp,
        allow_origins: tuple[str, ...],
        allow_methods: tuple[str, ...] = ("GET", "HEAD", "POST", "PATCH", "DELETE"),
        allow_headers: tuple[str, ...] = ("*",),
    ) -> None:
        credentials = "*" not in allow_origins  # with *, any page could use its visitor's cookies
        super().__init__(
            app,
            allow_origins,
            allow_methods,
            allow_headers,
            allow_credentials=credentials,
            expose_headers=EXPOSED,
        )
        self._origins = Origins(allow_origins, scheme=True)

    def is_allowed_origin(self, origin: str) -> bool:
        """Whether a page of this origin may read the answer."""
        return self._origins.allow(origin)


class CorsLog:
    """ASGI middleware that logs requests whose answers a browser keeps from the page."""

    def __init__(self, app: ASGIApp, allow_origins: tuple[str, ...]) -> None:
        self._app = app
        self._origins = Origins(allow_origins, scheme=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry point."""
        origin = header_of(scope["headers"], b"origin")
        if origin and not self._origins.allow(origin):
            request = Request(scope)
            if not _is_own(request, origin):
                tell(request, refusals.CORS_ORIGIN)
        await self._app(scope, receive, send)


def _is_own(request: Request, origin: str) -> bool:
    """Whether the page is of this server. Proxies change the scheme, and may change the host."""
    own = request.headers.get("sec-fetch-site") == "same-origin"
    return own or origin.partition("://")[2] == request.headers.get("host")
