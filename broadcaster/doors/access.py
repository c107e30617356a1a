"""Who may read which reply: by the header that all endpoints take, or by a token in the URL."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

from starlette.responses import JSONResponse

from legato.broadcaster.api.chat import channel_of, message_id_of
from legato.broadcaster.api.live import socket_id_of
from legato.broadcaster.api.refusals import NO_MESSAGE, NO_REDIS, ChatRefusal
from legato.broadcaster.api.submissions import MessageSender
from legato.broadcaster.auth.errors import AuthError
from legato.broadcaster.auth.rules import user_of
from legato.protocol import refusals
from legato.protocol.reading_tokens import ReadingToken, unseal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from starlette.requests import Request
    from starlette.responses import Response

    from legato.broadcaster.apps.directory import Directory
    from legato.broadcaster.auth.verifier import Verifier
    from legato.broadcaster.replies.store import Replies
    from legato.protocol.stream import UserId


class Caller(NamedTuple):
    """Who asks, by the token in the header."""

    user_id: UserId
    claims: Mapping[str, Any]

    def sends(self, request: Request) -> MessageSender:
        """The sender of the message in a request.

        :raises InvalidRequest: ``X-Socket-ID`` is no socket id.
        """
        return MessageSender(self.user_id, self.claims, socket_id_of(request))


class DoorAccess:
    """Checks who asks.

    :param replies: None when chat is off.
    :param token_seconds: lifetime of the tokens for URLs.
    """

    def __init__(
        self,
        replies: Replies | None,
        tokens: Verifier,
        apps: Directory,
        token_seconds: int,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._replies = replies
        self._tokens = tokens
        self._apps = apps
        self._token_seconds = token_seconds
        self._now = now

    @property
    def replies(self) -> Replies:
        """The chat's state in Redis.

        :raises ChatRefusal: there is none.
        """
        if self._replies is None:
            raise ChatRefusal(503, NO_REDIS)
        return self._replies

    async def caller(self, request: Request) -> Caller:
        """Who asks.

        :raises AuthError: no valid token.
        """
        claims = await self._tokens.verify(request.headers.get("authorization", ""))
        return Caller(user_of(claims), claims)

    async def reading(self, request: Request) -> UserId:
        """Who asks to read the message in the path. A token in the URL is enough for that.

        :raises AuthError: no valid token.
        """
        text = request.query_params.get("token")
        if text is None:
            return (await self.caller(request)).user_id
        token = unseal(self._secret, text, message_id_of(request), self._now())
        if token is None:
            text = "The token in the URL has expired, or is not for this message."
            raise AuthError(text, refusals.READING_TOKEN)
        return token.user_id

    async def grant(self, request: Request) -> Response:
        """``POST /api/chat/{id}/token``: a token for the URL of this message."""
        user_id, message_id = (await self.caller(request)).user_id, message_id_of(request)
        key = await self.replies.owned(user_id, message_id, channel_of(request))
        if key is None or not await self.replies.exists(key, message_id):
            raise ChatRefusal(404, NO_MESSAGE)
        token, until = self.token(user_id, message_id)
        return JSONResponse({"token": token, "expires_at": until})

    def token(self, user_id: UserId, message_id: str) -> tuple[str, int]:
        """A token for the URL of a message of the user, and when it expires."""
        until = int(self._now()) + self._token_seconds
        return ReadingToken(user_id, message_id, until).seal(self._secret), until

    @property
    def _secret(self) -> str:
        app = self._apps.by_id.get(self.replies.app_id)
        if app is None:
            raise ChatRefusal(503, "Chat is off: its application does not exist.")
        return app.secret
