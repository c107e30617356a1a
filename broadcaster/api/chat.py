"""The chat endpoints: send a message, cancel or read its reply. Sending waits only for the job queue."""

from __future__ import annotations

import logging
import time
import uuid
from contextlib import suppress
from functools import partial
from math import ceil
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
from starlette.responses import JSONResponse
from starlette.routing import Route

from legato.broadcaster.auth.errors import AuthError, KeysUnavailable
from legato.broadcaster.auth.rules import user_of
from legato.broadcaster.bus.base import BusError, RefusedError
from legato.broadcaster.limits import MAX_IDEMPOTENCY_KEY_CHARACTERS
from legato.broadcaster.replies.store import Conflict, ExpiredError, Full, Replies, TooMany, is_refusal
from legato.protocol import history, stream
from legato.protocol.stream import InvalidRequest, Job

from .asgi import read_body
from .events import ApiError

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Awaitable, Callable, Sequence

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

    from legato.broadcaster.auth.verifier import Verifier
    from legato.broadcaster.config import Settings
    from legato.broadcaster.transport.budget import Budget
    from legato.protocol.stream import ChatRequest, UserId

logger: Final = logging.getLogger("legato.chat")


class ChatRefusal(Exception):  # noqa: N818 - an answer to the client, not an internal error
    """A JSON answer ``{"message", ...}`` with a status, as Laravel front ends read it."""

    def __init__(self, status: int, message: str, **more: Any) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"message": message, **more}


class Answer(NamedTuple):
    """The answer to a refused request. ``wait``: seconds for ``Retry-After``, 0 for none."""

    status: int
    body: dict[str, Any]
    wait: int = 0


class ChatLimits(NamedTuple):
    """Limits on what people send.

    :ivar body: bytes of a request.
    :ivar message: characters of a message; a longer one is refused.
    :ivar turns: turns of a history, and
    :ivar characters: their characters together; a longer history is cut.
    """

    body: int
    message: int
    turns: int
    characters: int

    @classmethod
    def of(cls, settings: Settings) -> ChatLimits:
        """The limits in the settings; the body is bounded absolutely too, since it is parsed as a whole."""
        chat, body = settings.chat, settings.server.max_request_bytes
        return cls(
            min(body, stream.MAX_REQUEST_BYTES),
            chat.max_message_characters,
            chat.max_history_turns,
            chat.max_history_characters,
        )


class AcceptedRequest(NamedTuple):
    """A request within the limits, and how many turns of its history were dropped for that."""

    request: ChatRequest
    dropped: int


class ChatEndpoints:
    """The endpoints below ``/api/chat``."""

    def __init__(
        self,
        replies: Replies | None,
        tokens: Verifier,
        limits: ChatLimits,
        figures: Counter[tuple[str, int]],
        budget: Budget,
    ) -> None:
        self._replies = replies
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
        user_id = user_of(await self._tokens.verify(request.headers.get("authorization", "")))
        if self._replies is None:
            raise ChatRefusal(503, "Chat is off: this server has no Redis.")
        return user_id, self._replies

    async def _send(self, request: Request) -> Response:
        user_id, replies = await self._enter(request)
        body = await read_body(request.receive, self._limits.body)
        asked = await self._budget.in_turn(partial(_decode, body, self._limits), len(body))
        job = _job(user_id, replies.app_id, str(uuid.uuid4()), asked.request)
        key = request.headers.get("idempotency-key")
        if key is None:
            await replies.submit(job)
        else:
            job = await _submit_once(replies, job, key, body)
        dropped = {"history_dropped": asked.dropped} if asked.dropped else {}
        return JSONResponse({"message_id": job.message_id, **dropped})

    async def _cancel(self, request: Request) -> Response:
        user_id, replies = await self._enter(request)
        if not await replies.cancel(user_id, _message_id(request)):
            raise ChatRefusal(404, "No such message.")
        return JSONResponse({"cancelled": True})

    async def _read(self, request: Request) -> Response:
        user_id, replies = await self._enter(request)
        reply = await replies.read(user_id, _message_id(request), _after(request))
        if reply is None:
            raise ChatRefusal(404, "No such message.")
        answer = {
            "text": reply.text,
            "tokens": reply.tokens,
            "nextIndex": reply.next_index,
            "attempt": reply.attempt,
            "status": reply.status,
        }
        if reply.error is not None:
            answer["error"] = reply.error
        return JSONResponse(answer)


def _decode(body: bytes, limits: ChatLimits) -> AcceptedRequest:
    """Parse a request: refuse a message that is too long, cut a history that is too long.

    :raises InvalidRequest: as :func:`legato.protocol.stream.decode_chat_request`, or for the message.
    """
    request = stream.decode_chat_request(body)
    length = len(request.message)
    if length > limits.message:
        raise InvalidRequest("message", f"Expected at most {limits.message} characters, not {length}")
    kept = history.cut(request.history, turns=limits.turns, characters=limits.characters)
    dropped = len(request.history) - len(kept)
    return AcceptedRequest(msgspec.structs.replace(request, history=kept) if dropped else request, dropped)


async def _submit_once(replies: Replies, job: Job, key: str, body: bytes) -> Job:
    """Queue the job of an idempotent request. Answers the job, with the id that the first request got."""
    if not 1 <= len(key) <= MAX_IDEMPOTENCY_KEY_CHARACTERS:
        raise InvalidRequest("Idempotency-Key", f"Expected 1 to {MAX_IDEMPOTENCY_KEY_CHARACTERS} characters")
    known = await replies.remember(job.user_id, key, body, job.message_id)
    job = msgspec.structs.replace(job, message_id=known or job.message_id)
    try:
        await replies.submit_once(job, again=known is not None)
    except (Full, TooMany, BusError) as error:
        if is_refusal(error):  # the client comes again with this key, and then it counts
            with suppress(BusError):  # what the client is told stays the same
                await replies.forget(job.user_id, key)
        raise
    return job


def _job(user_id: UserId, app_id: str, message_id: str, request: ChatRequest) -> Job:
    return Job(
        message_id=message_id,
        app_id=app_id,
        user_id=user_id,
        message=request.message,
        queued_at=time.time_ns() // 1_000_000,
        history=request.history,
        session_id=request.session_id,
        conversation_id=request.conversation_id,
    )


def _message_id(request: Request) -> str:
    message_id: str = request.path_params["id"]
    if not stream.MESSAGE_ID.fullmatch(message_id):
        raise ChatRefusal(404, "No such message.")
    return message_id


def _after(request: Request) -> int:
    text = request.query_params.get("after", "-1")
    if text == "-1" or (text.isascii() and text.isdigit() and len(text) <= 9):
        return int(text)
    raise InvalidRequest("after", "Expected an index from -1 on")


def answered(
    figures: Counter[tuple[str, int]], route: str, handler: Callable[[Request], Awaitable[Response]]
) -> Callable[[Request], Awaitable[Response]]:
    """Wrap an endpoint: every refusal becomes a JSON answer, every answer is counted."""

    async def endpoint(request: Request) -> Response:
        try:
            response = await handler(request)
        except tuple(_ANSWERS) as error:
            if isinstance(error, BusError):
                logger.warning("%s is answered with 503: %s", route, error)
            answer = _ANSWERS[type(error)](error)
            response = JSONResponse(answer.body, answer.status)
            if answer.wait:
                response.headers["retry-after"] = str(answer.wait)
        figures[route, response.status_code] += 1
        return response

    return endpoint


def _invalid(error: InvalidRequest) -> Answer:
    return Answer(422, {"message": error.reason, "errors": {error.field: [error.reason]}})


def _saying(status: int, message: str = "", wait: int = 0) -> Callable[[Exception], Answer]:
    return lambda error: Answer(status, {"message": message or str(error)}, wait)


_ANSWERS: Final[dict[type[Exception], Callable[[Any], Answer]]] = {
    AuthError: _saying(401),
    KeysUnavailable: lambda error: Answer(503, {"message": str(error)}, ceil(error.wait)),
    InvalidRequest: _invalid,
    ChatRefusal: lambda error: Answer(error.status, error.body),
    ApiError: lambda error: Answer(error.status, {"message": str(error)}),
    BusError: _saying(503, "Redis does not answer"),  # the reason is for the log only
    RefusedError: _saying(503, "Redis does not accept it"),
    Conflict: _saying(409, "This Idempotency-Key came with another request before."),
    ExpiredError: _saying(410, "The log of this message has expired."),
    TooMany: _saying(429, "Too many of your messages wait for their reply.", 5),
    Full: _saying(503, "Too many messages wait for a reply.", 10),
}
