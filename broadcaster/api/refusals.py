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
from legato.protocol.jobs import InvalidRequest

from .events import ApiError

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

logger: Final = logging.getLogger("legato.chat")

NO_MESSAGE: Final = "No such message."
NO_REDIS: Final = "Chat is off: this server has no Redis."


class ChatRefusal(Exception):  # noqa: N818 - an answer to the client, not an internal error
    """A JSON answer ``{"message", ...}`` with a status, as Laravel front ends read it."""

    def __init__(self, status: int, message: str, **more: Any) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"message": message, **more}


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
            answer = _ANSWERS[type(error)](error)
            response = JSONResponse(answer.body, answer.status) if told is None else told(answer)
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
    DatabaseDownError: _saying(503, "The database of conversations does not answer."),
    Conflict: _saying(409, "This Idempotency-Key came with another request before."),
    ExpiredError: _saying(410, "The log of this message has expired."),
    TooMany: _saying(429, "Too many of your messages wait for their reply.", 5),
    TooManyReaders: _saying(429, "Too many replies are read at once.", 5),
    Full: _saying(503, "Too many messages wait for a reply.", 10),
}
