"""Refused requests, and the answers to them."""

from __future__ import annotations

import logging
from math import ceil
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from starlette.responses import JSONResponse, Response

from legato.broadcaster.auth.errors import AuthError, KeysUnavailable
from legato.broadcaster.bus.base import BusError, RefusedError
from legato.broadcaster.conversations.records import DatabaseDownError
from legato.broadcaster.replies.logs import ExpiredError
from legato.broadcaster.replies.store import Conflict, Full, TooMany
from legato.broadcaster.transport.peer import address_of
from legato.protocol import refusals
from legato.protocol.jobs import InvalidRequest

from .events import ApiError

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

    from legato.broadcaster.observability.refusals import Refused
    from legato.protocol.refusals import Refusal

logger: Final = logging.getLogger("legato.chat")

QUOTE: Final = "'"
NO_MESSAGE: Final = "No such message."
NO_REDIS: Final = "Chat is off: this server has no Redis."


class ChatRefusal(Exception):  # noqa: N818 - an answer to the client, not an internal error
    """A JSON answer ``{"message"}`` with a status, as Laravel front ends read it.

    :param refusal: for the log; by default one for the status.
    """

    channel = ""

    def __init__(self, status: int, message: str, refusal: Refusal | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"message": message}
        self.refusal = refusal or _BY_STATUS[status]


class ChannelRefusal(ChatRefusal):
    """403: the token does not allow this channel."""

    def __init__(self, message: str, channel: str) -> None:
        super().__init__(403, message, refusals.CHANNEL_NOT_ALLOWED)
        self.channel = channel


class TooManyReaders(Exception):  # noqa: N818 - an answer to the client, not an internal error
    """The user, or this process, has the maximum number of readers."""


class Answer(NamedTuple):
    """The answer to a refused request. ``wait``: seconds for ``Retry-After``, 0 for none."""

    status: int
    body: dict[str, Any]
    wait: int = 0


def answered(
    figures: Counter[tuple[str, int]],
    route: str,
    handler: Callable[[Request], Awaitable[Response]],
    told: Callable[[Answer], Response] | None = None,
) -> Callable[[Request], Awaitable[Response]]:
    """Wrap an endpoint: every refusal becomes an answer, every answer is counted.

    :param told: makes the answer to a refusal; a JSON one by default.
    """

    async def endpoint(request: Request) -> Response:
        try:
            response = await handler(request)
        except tuple(_ANSWERS) as error:
            if isinstance(error, BusError):
                logger.warning("%s is answered with 503: %s", route, error)
            answer = _answer(error)
            _tell(request, error, answer)
            response = JSONResponse(answer.body, answer.status) if told is None else told(answer)
            if answer.wait:
                response.headers["retry-after"] = str(answer.wait)
        figures[route, response.status_code] += 1
        return response

    return endpoint


def _answer(error: Exception) -> Answer:
    kind = next(kind for kind in type(error).__mro__ if kind in _ANSWERS)
    return _ANSWERS[kind](error)


def _tell(request: Request, error: Exception, answer: Answer) -> None:
    """Log the refusal."""
    refusal = getattr(error, "refusal", None) or _REFUSALS.get(type(error))
    if isinstance(error, ApiError):  # with the words of the HTTP API
        refusal = refusals.BODY_TOO_LARGE if error.status == 413 else refusals.INVALID_REQUEST
    if refusal is None:
        return
    detail, channel = _detail(error, answer), getattr(error, "channel", "")
    tell(request, refusal, status=answer.status, detail=detail, channel=channel)


def _detail(error: Exception, answer: Answer) -> str:
    if isinstance(error, AuthError):
        return error.detail
    if isinstance(error, InvalidRequest):  # what is quoted may be what somebody has written
        return f"{error.field}: {error.reason.partition(QUOTE)[0].strip()}"
    return str(answer.body["message"])


def tell(request: Request, refusal: Refusal, **fields: str | int) -> None:
    """Log the refusal of a request, without its query, which may have a token."""
    refused: Refused = request.app.state.refused
    headers = request.headers
    refused(
        refusal,
        method=request.method,
        path=request.scope["path"],
        **fields,
        origin=headers.get("origin"),
        address=address_of(request.state.peer),
        forwarded_for=headers.get("x-forwarded-for"),
    )


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
    DatabaseDownError: _saying(503, "The database of conversations does not answer."),
    Conflict: _saying(409, "This Idempotency-Key came with another request before."),
    ExpiredError: _saying(410, "The log of this message has expired."),
    TooMany: _saying(429, "Too many of your messages wait for their reply.", 5),
    TooManyReaders: _saying(429, "Too many replies are read at once.", 5),
    Full: _saying(503, "Too many messages wait for a reply.", 10),
}

_REFUSALS: Final[dict[type[Exception], Refusal]] = {
    KeysUnavailable: refusals.TOKEN_KEYS_UNAVAILABLE,
    InvalidRequest: refusals.INVALID_REQUEST,
    DatabaseDownError: refusals.UNAVAILABLE,
    Conflict: refusals.CONFLICT,
    ExpiredError: refusals.LOG_EXPIRED,
    TooMany: refusals.TOO_MANY_OPEN,
    TooManyReaders: refusals.TOO_MANY_READERS,
    Full: refusals.QUEUE_FULL,
}
"""What to log of refusals that do not say it themselves. A :class:`BusError` has a line already."""

_BY_STATUS: Final = {
    400: refusals.INVALID_REQUEST,
    403: refusals.FORBIDDEN,
    404: refusals.NOT_FOUND,
    409: refusals.CONFLICT,
    503: refusals.UNAVAILABLE,
}
