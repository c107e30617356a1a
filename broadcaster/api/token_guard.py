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

    from legato.broadcaster.addresses.opening import AddressLimits


class TokenGuard:
    """ASGI middleware around everything that takes tokens.

    A request with a token that is answered with 401 is a failed attempt. One without a token never is, and is
    never refused: it has nothing to try.
    """

    def __init__(self, app: ASGIApp, addresses: AddressLimits) -> None:
        self._app = app
        self._addresses = addresses

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry point."""
        failures = self._addresses.tokens
        address = "" if failures is None else _who_tries(scope)
        if failures is None or not address:
            await self._app(scope, receive, send)
            return
        if wait := failures.refuses(address):
            message = {"message": "Too many wrong tokens from your address."}
            await JSONResponse(message, 429, {"retry-after": str(wait)})(scope, receive, send)
            return

        async def watch(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start" and message["status"] == 401:
                failures.failed(address)
            await send(message)

        await self._app(scope, receive, watch)


def guarded(app: Starlette, addresses: AddressLimits) -> Starlette:
    """The application with the guard inside of all its other middleware: pages may read what it answers."""
    app.user_middleware.append(Middleware(TokenGuard, addresses=addresses))
    return app


def _who_tries(scope: Scope) -> str:
    """The address of a request that has a token; empty without one, or if the address is not known."""
    has_token = b"token=" in scope["query_string"] or any(
        name == b"authorization" for name, _ in scope["headers"]
    )
    return scope["client"][0] if has_token and scope["client"] else ""
