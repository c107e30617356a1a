"""CORS with the origin patterns of :mod:`legato.protocol.origins`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from starlette.middleware.cors import CORSMiddleware

from legato.protocol.origins import Origins

if TYPE_CHECKING:
    from starlette.types import ASGIApp


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
