"""Refuses requests with a token from addresses whose tokens have failed too often."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.middleware import Middleware
from starlette.responses import JSONResponse

if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from typing import Any

    from starlette.applications import Starlette
    from starlette.types import ASGIApp, Receive, Scope, Send

    from legato.broadcaster.addresses.failures import FailureLimit


class TokenGuard:
    """ASGI middleware around everything that takes tokens.

    A request with a token that is answered with 401 is a failed attempt. One without a token never is, and is
    never refused: it has nothing to try.
    """

    def __init__(self, app: ASGIApp, failures: FailureLimit) -> None:
        self._app = app
        self._failures = failures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry point."""
        address = _who_tries(scope)
        if not address:
            await self._app(scope, receive, send)
            return
        if wait := self._failures.refuses(address):
            message = {"message": "Too many wrong tokens from your address."}
            await JSONResponse(message, 429, {"retry-after": str(wait)})(scope, receive, send)
            return

        async def watch(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start" and message["status"] == 401:
                self._failures.failed(address)
            await send(message)

        await self._app(scope, receive, watch)


def guarded(app: Starlette, failures: FailureLimit | None) -> Starlette:
    """The application with the guard inside of all its other middleware: pages may read what it answers.

    :param failures: None for no limit, and no guard.
    """
    if failures is not None:
        app.user_middleware.append(Middleware(TokenGuard, failures=failures))
    return app


def _who_tries(scope: Scope) -> str:
    """The address of a request that has a token; empty without one, or if the address is not known."""
    has_token = b"token=" in scope["query_string"] or any(
        name == b"authorization" for name, _ in scope["headers"]
    )
    return scope["client"][0] if has_token and scope["client"] else ""
