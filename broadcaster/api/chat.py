"""The chat endpoints: send a message, cancel or read its reply. Sending waits only for the job queue."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from legato.broadcaster.auth.rules import user_of
from legato.protocol import transcript
from legato.protocol.jobs import MESSAGE_ID, InvalidRequest, check_reply_channel

from .asgi import read_body
from .live import socket_id_of
from .refusals import NO_MESSAGE, NO_REDIS, ChatRefusal, answered
from .submissions import MessageSender, decode

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from starlette.requests import Request
    from starlette.routing import BaseRoute

    from legato.broadcaster.auth.verifier import Verifier
    from legato.broadcaster.replies.logs import StoredReply
    from legato.broadcaster.replies.store import Replies
    from legato.broadcaster.transport.budget import Budget
    from legato.protocol.stream import UserId

    from .submissions import ChatLimits, Submissions


class ChatEndpoints:
    """The endpoints below ``/api/chat``."""

    def __init__(
        self,
        replies: Replies | None,
        submissions: Submissions,
        tokens: Verifier,
        limits: ChatLimits,
        figures: Counter[tuple[str, int]],
        budget: Budget,
    ) -> None:
        self._replies = replies
        self._submissions = submissions
        self._tokens = tokens
        self._limits = limits
        self._figures = figures
        self._budget = budget

    def routes(self) -> Sequence[BaseRoute]:
        """The routes, to mount in an application."""
        rows: tuple[tuple[str, str, str, Callable[[Request], Awaitable[Response]]], ...] = (
            ("/api/chat/send", "chat_send", "POST", self._send),
            ("/api/chat/{id}/cancel", "chat_cancel", "POST", self._cancel),
            ("/api/chat/{id}", "chat_read", "GET", self._read),
        )
        return [
            Route(path, answered(self._figures, name, handler), methods=[method])
            for path, name, method, handler in rows
        ]

    async def _enter(self, request: Request) -> tuple[UserId, Replies]:
        _, user_id, replies = await self._enter_with_claims(request)
        return user_id, replies

    async def _enter_with_claims(self, request: Request) -> tuple[Mapping[str, Any], UserId, Replies]:
        claims = await self._tokens.verify(request.headers.get("authorization", ""))
        user_id = user_of(claims)
        if self._replies is None:
            raise ChatRefusal(503, NO_REDIS)
        return claims, user_id, self._replies

    async def _send(self, request: Request) -> Response:
        claims, user_id, _ = await self._enter_with_claims(request)
        body = await read_body(request.receive, self._limits.body)
        asked = await self._budget.in_turn(partial(decode, body, self._limits), len(body))
        key = request.headers.get("idempotency-key")
        sender = MessageSender(user_id, claims, socket_id_of(request))
        job, _ = await self._submissions.submit(asked, sender, key, body)
        dropped = {"history_dropped": asked.dropped} if asked.dropped else {}
        return JSONResponse({"message_id": job.message_id, **dropped})

    async def _cancel(self, request: Request) -> Response:
        user_id, replies = await self._enter(request)
        if not await replies.cancel(user_id, message_id_of(request), channel_of(request)):
            raise ChatRefusal(404, NO_MESSAGE)
        return JSONResponse({"cancelled": True})

    async def _read(self, request: Request) -> Response:
        user_id, replies = await self._enter(request)
        message_id, after = message_id_of(request), _after(request)
        reply = await replies.read(user_id, message_id, channel_of(request))
        if reply is None:
            raise ChatRefusal(404, NO_MESSAGE)
        return _told(reply, after)


def _told(reply: StoredReply, after: int) -> Response:
    """The reply, with the tokens after an index. ``offset`` and ``parts`` if it has others."""
    tokens = transcript.texts(reply.pieces)
    answer: dict[str, Any] = {
        "text": "".join(tokens),
        "tokens": tokens[after + 1 :],
        "nextIndex": len(tokens),
        "attempt": reply.attempt,
        "status": reply.status,
    }
    if reply.error is not None:
        answer["error"] = reply.error
    if reply.offset == len(tokens):
        return JSONResponse(answer)
    answer["offset"] = reply.offset
    if shown := transcript.parts(reply.pieces):
        answer["parts"] = shown
    return Response(msgspec.json.encode(answer), media_type="application/json")


def message_id_of(request: Request) -> str:
    """The message id in the path."""
    message_id: str = request.path_params["id"]
    if not MESSAGE_ID.fullmatch(message_id):
        raise ChatRefusal(404, NO_MESSAGE)
    return message_id


def channel_of(request: Request) -> str | None:
    """The channel of the message; None for the user's own.

    :raises InvalidRequest: it cannot carry replies.
    """
    name = request.query_params.get("channel")
    if name is not None:
        try:
            check_reply_channel(name)
        except ValueError as error:
            raise InvalidRequest("channel", str(error)) from error
    return name


def _after(request: Request) -> int:
    text = request.query_params.get("after", "-1")
    if text == "-1" or (text.isascii() and text.isdigit() and len(text) <= 9):
        return int(text)
    raise InvalidRequest("after", "Expected an index from -1 on")
