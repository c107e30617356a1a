"""The ASGI application: the Pusher HTTP API, the fallback transports, and Starlette for everything else."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Mount, Route

from legato.broadcaster.auth.endpoints import ChannelAuth, Signer, UserAuth
from legato.broadcaster.auth.rules import ClaimRule
from legato.broadcaster.auth.verifier import verifier
from legato.broadcaster.doors.access import DoorAccess
from legato.broadcaster.doors.kit import DoorKit, Intake
from legato.broadcaster.doors.routes import door_routes
from legato.broadcaster.limits import DEV_TOKEN_SECONDS
from legato.protocol import refusals
from legato.protocol.jobs import InvalidRequest
from legato.protocol.settings import SettingsError
from legato.protocol.stream import parse_user_id

from .approvals import ApprovalEndpoint
from .chat import ChatEndpoints
from .chat_config import ChatConfigEndpoint
from .conversations import ConversationEndpoints
from .cors import Cors, CorsLog
from .dev import Guard
from .page import Page
from .refusals import answered, tell
from .submissions import ChatLimits, Submissions

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Awaitable, Callable, Sequence

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

    from legato.broadcaster.apps.directory import Directory
    from legato.broadcaster.config import Settings
    from legato.broadcaster.transport.budget import Budget
    from legato.broadcaster.transport.polling import Fallback

    from .asgi import Receive, Scope, Send
    from .conversations import ChatParts
    from .http_api import HttpApi


class HttpApp:
    """Routes by path to the API, the fallback transports, or the Starlette application.

    :ivar api: also called directly, without ASGI.
    :param rest: gets what takes note of refused requests as ``state.refused``.
    """

    def __init__(self, api: HttpApi, fallback: Fallback, rest: Starlette) -> None:
        self.api = api
        self._fallback = fallback
        self._rest = rest
        rest.state.refused = api.refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry point. HTTP only: WebSockets are handled elsewhere."""
        if self.api.serves(scope["raw_path"]):
            await self.api(scope, receive, send)
        elif self._fallback.serves(scope["raw_path"]):
            await self._fallback(scope, receive, send)
        else:
            await self._rest(scope, receive, send)


def web(
    settings: Settings,
    apps: Directory,
    parts: ChatParts,
    unready: Callable[[], str | None],
    figures: Counter[tuple[str, int]],
    budget: Budget,
) -> Starlette:
    """Build the Starlette application: everything but the API and the fallback transports.

    :param parts: of the chat.
    :param unready: why this node should get no new clients now; None if it is ready.
    :param figures: counts requests by route and status.
    :param budget: the read budget, for parsing large bodies.
    :raises SettingsError: ``[auth]``, ``[dev]`` or ``chat.approvers`` cannot be used.
    """
    tokens = verifier(settings.auth)
    signer = Signer(settings, apps, tokens)
    channel_auth = ChannelAuth(signer, settings.auth)
    replies = parts.replies
    limits = ChatLimits.of(settings)
    submissions = Submissions(replies, parts.events, limits.options)
    chat = ChatEndpoints(replies, submissions, tokens, limits, figures, budget)
    doors: Sequence[BaseRoute] = ()
    if parts.doors is not None and replies is not None:
        access = DoorAccess(replies, tokens, apps, settings.doors.token_seconds)
        kit = DoorKit(
            replies, parts.doors, access, Intake(submissions, limits, budget), settings.doors, figures
        )
        doors = door_routes(settings.chat.doors, kit)
    approvers = [ClaimRule(text, "chat.approvers") for text in settings.chat.approvers]
    approvals = ApprovalEndpoint(replies, tokens, approvers, settings.server.max_request_bytes, figures)
    routes: list[BaseRoute] = [
        Route("/up", _up(unready), methods=["GET"]),
        Route("/broadcasting/auth", answered(figures, "auth", channel_auth), methods=["POST"]),
        Route("/broadcasting/user-auth", answered(figures, "user_auth", UserAuth(signer)), methods=["POST"]),
        *ChatConfigEndpoint(settings, tokens, figures).routes(),
        *doors,
        *chat.routes(),
        *approvals.routes(),
        *ConversationEndpoints(parts, tokens, figures).routes(),
        *(_dev_routes(settings, figures) if settings.dev.enabled else [Route("/", _root, methods=["GET"])]),
    ]
    prefix, origins = settings.server.path, settings.server.cors_origins
    log = Middleware(CorsLog, allow_origins=origins)
    return Starlette(
        routes=[Mount(prefix, routes=routes)] if prefix else routes,
        middleware=[log, Middleware(Cors, allow_origins=origins)] if origins else [log],
        exception_handlers={HTTPException: _http_error, Exception: _server_error},
    )


def _up(unready: Callable[[], str | None]) -> Callable[[Request], Awaitable[Response]]:
    """Liveness check; with ``?ready``, a readiness check."""

    async def up(request: Request) -> Response:
        reason = unready() if "ready" in request.query_params else None
        if reason is None:
            return JSONResponse({"health": "OK"})
        return JSONResponse({"health": "not ready", "reason": reason}, 503)

    return up


async def _root(_request: Request) -> Response:
    return PlainTextResponse("OK")


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for HTTPException only
    tell(request, refusals.NOT_FOUND, status=error.status_code)
    return JSONResponse({"message": error.detail}, error.status_code, headers=error.headers)


async def _server_error(_request: Request, _error: Exception) -> Response:
    return JSONResponse({"message": "Server error."}, 500)


def _dev_routes(settings: Settings, figures: Counter[tuple[str, int]]) -> Sequence[BaseRoute]:
    """The routes that ``legato up`` adds: tokens for any user, and the chat page."""
    import jwt  # noqa: PLC0415 - only `legato up` makes tokens

    dev, auth = settings.dev, settings.auth
    guard = Guard(settings)
    app = settings.app(auth.app)

    async def token(request: Request) -> Response:
        sub = request.query_params.get("sub", "")
        try:
            parse_user_id(sub)
        except ValueError as error:
            raise InvalidRequest("sub", str(error)) from error
        claims: dict[str, Any] = {"sub": sub, "exp": int(time.time()) + DEV_TOKEN_SECONDS}
        return JSONResponse({"token": jwt.encode(claims, auth.jwt_secret, algorithm="HS256")})

    async def config(_request: Request) -> Response:
        return JSONResponse({"key": app.key, "provider": dev.provider, "model": dev.model or None})

    routes: list[BaseRoute] = [
        Route("/dev/token", answered(figures, "dev_token", guard.wrap(token)), methods=["GET"]),
        Route("/dev/config", answered(figures, "dev_config", guard.wrap(config)), methods=["GET"]),
    ]
    if dev.page and not Path(dev.page).is_dir():
        raise SettingsError(f"dev.page: {dev.page}: no such folder")
    if dev.page:
        routes.append(Mount("/", app=Page(directory=dev.page, html=True)))
    return routes
