"""Tells a page what this server's chat can do, so that it offers nothing that would be refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, get_args

import msgspec
from starlette.responses import Response
from starlette.routing import Route

from legato.broadcaster.auth.rules import user_of
from legato.protocol.jobs import MAX_REQUEST_BYTES, MediaType

from .refusals import answered

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Sequence

    from starlette.requests import Request
    from starlette.routing import BaseRoute

    from legato.broadcaster.auth.verifier import Verifier
    from legato.broadcaster.config import Chat, Settings
    from legato.protocol.settings import Price

PATH: Final = "/api/chat/config"
"""Mount it before ``/api/chat/{id}``, which it looks like."""


class ChatConfigEndpoint:
    """``GET /api/chat/config``. The answer is made once: nothing in it changes while the server runs."""

    def __init__(self, settings: Settings, tokens: Verifier, figures: Counter[tuple[str, int]]) -> None:
        self._answer = msgspec.json.encode(_told(settings))
        self._tokens = tokens
        self._figures = figures

    def routes(self) -> Sequence[BaseRoute]:
        """The route, to mount in an application."""
        return [Route(PATH, answered(self._figures, "chat_config", self._read), methods=["GET"])]

    async def _read(self, request: Request) -> Response:
        user_of(await self._tokens.verify(request.headers.get("authorization", "")))
        return Response(self._answer, media_type="application/json")


def _told(settings: Settings) -> dict[str, Any]:
    chat = settings.chat
    return {
        "conversations": bool(chat.database_url),
        "max_message_characters": chat.max_message_characters,
        "max_history_turns": chat.max_history_turns,
        "max_history_characters": chat.max_history_characters,
        "max_request_bytes": min(settings.server.max_request_bytes, MAX_REQUEST_BYTES),
        "allow": chat.allow,
        "agents": chat.agents,
        "models": chat.models,
        "attachments": _attachments(chat) if "attachments" in chat.allow else None,
        "prices": {"currency": chat.currency, "models": _prices(chat)} if chat.prices else None,
    }


def _attachments(chat: Chat) -> dict[str, Any]:
    return {
        "max": chat.max_attachments,
        "max_bytes": chat.max_attachment_bytes,
        "hosts": chat.attachment_hosts,
        "media_types": get_args(MediaType),
    }


def _prices(chat: Chat) -> dict[str, dict[str, float]]:
    return {model: _price(price) for model, price in chat.prices.items()}


def _price(price: Price) -> dict[str, float]:
    """The price by the names of ``usage``."""
    return {
        "input": price.input,
        "output": price.output,
        "cacheRead": price.cache_read,
        "cacheWrite": price.cache_write,
    }
