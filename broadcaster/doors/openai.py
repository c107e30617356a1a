"""The door for OpenAI's clients: chat completions and responses."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
from starlette.responses import Response

from legato.broadcaster.api.asgi import disconnected
from legato.broadcaster.api.refusals import ChatRefusal
from legato.protocol.doors import openai_chat, openai_responses
from legato.protocol.doors.base import Opening
from legato.protocol.stream import Decision, decode_begun

from .answers import Manner

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from starlette.requests import Request
    from starlette.routing import BaseRoute

    from legato.broadcaster.api.refusals import Answer
    from legato.broadcaster.replies.logs import LogRange
    from legato.protocol.doors.base import Translator
    from legato.protocol.doors.openai_chat import CompletionRequest
    from legato.protocol.doors.openai_responses import ResponseRequest
    from legato.protocol.jobs import ChatRequest

    from .answers import Watched
    from .kit import DoorKit

    Asked = CompletionRequest | ResponseRequest


class OpenAiApi(NamedTuple):
    """One of the two APIs.

    :ivar parse: the body of a request, and the options of a job that it may have.
    :ivar stream: the translator for a request.
    :ivar whole: the body of an answer, from the model's name, the opening, the pieces and the end.
    """

    manner: Manner
    parse: Callable[..., Asked]
    stream: Callable[[Any], Translator]
    whole: Callable[..., bytes]


COMPLETIONS: Final = OpenAiApi(
    Manner(openai_chat.FRAMING),
    openai_chat.parse_completion,
    lambda asked: openai_chat.Chunks(asked.model, include_usage=asked.include_usage),
    openai_chat.whole,
)
RESPONSES: Final = OpenAiApi(
    Manner(openai_responses.FRAMING),
    openai_responses.parse_response,
    lambda asked: openai_responses.Responses(asked.model),
    openai_responses.whole,
)

DEFAULT: Final = "legato"
"""The model of a client that leaves the choice to the server."""

NO_RETRY: Final = {"x-should-retry": "false"}
"""The SDKs repeat a request after a 500, which would be another message."""

_TYPES: Final = {401: "authentication_error", 429: "rate_limit_error"}


class OpenAiDoor:
    """``POST /v1/chat/completions``, ``POST /v1/responses`` and ``GET /v1/models``."""

    def __init__(self, kit: DoorKit) -> None:
        self._kit = kit

    def routes(self) -> Sequence[BaseRoute]:
        """The routes."""
        route = self._kit.route
        complete, respond = partial(self._complete, COMPLETIONS), partial(self._complete, RESPONSES)
        return [
            route("/v1/chat/completions", "door_openai", "POST", complete, _told),
            route("/v1/responses", "door_openai_responses", "POST", respond, _told),
            route("/v1/models", "door_openai_models", "GET", self._models, _told),
        ]

    async def _models(self, request: Request) -> Response:
        await self._kit.access.caller(request)
        return _json(openai_chat.models([DEFAULT, *self._names("agent"), *self._names("model")]))

    def _names(self, option: str) -> Sequence[str]:
        return self._kit.intake.names[option] if option in self._kit.intake.options else ()

    async def _complete(self, api: OpenAiApi, request: Request) -> Response:
        kit = self._kit
        caller = await kit.access.caller(request)
        parse = partial(api.parse, allowed=kit.intake.options)
        asked, body = await kit.intake.read(request, parse)
        accepted = kit.intake.accept(self._chosen(asked))
        sender = caller.sends(request)
        job, _ = await kit.intake.submit(accepted, sender, request.headers.get("idempotency-key"), body)
        watched = await kit.watch(caller.user_id, job.message_id)
        if asked.stream:
            return kit.answer(watched, api.stream(asked), api.manner, "openai")
        return await self._whole(request, watched, partial(api.whole, asked.model))

    def _chosen(self, asked: Asked) -> ChatRequest:
        """The request for the agent, or for the model, that the client's model names.

        :raises ChatRefusal: there is none.
        """
        if asked.model == DEFAULT:
            return asked.request
        for option in ("agent", "model"):
            if option in self._kit.intake.options:
                names = self._kit.intake.names[option]
                if not names or asked.model in names:
                    return msgspec.structs.replace(asked.request, **{option: asked.model})
        raise ChatRefusal(404, f"The model {asked.model[:100]!r} does not exist. GET /v1/models lists them.")

    async def _whole(self, request: Request, watched: Watched, told: Callable[..., bytes]) -> Response:
        """The reply once it has ended. A client that leaves before cancels it."""
        work = asyncio.ensure_future(self._to_the_end(watched))
        gone = asyncio.ensure_future(disconnected(request.receive))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                self._kit.left(watched.reader, watched.user_id, "openai")
                return Response(status_code=499)  # nobody reads it
            found = work.result()
        finally:
            work.cancel()
            gone.cancel()
            watched.reader.close()
        decision = found.decision or Decision(state="failed")
        if decision.state == "failed":
            return _json(openai_chat.failure(decision), 500, NO_RETRY)
        opening = Opening(watched.reader.message_id, watched.user_id, decode_begun(found.begun))
        return _json(told(opening, found.pieces, decision))

    async def _to_the_end(self, watched: Watched) -> LogRange:
        """Read to the end of the reply."""
        found = watched.first
        pieces = list(found.pieces)
        while found.decision is None:
            found = await watched.reader.next()
            pieces += found.pieces
        return found._replace(pieces=pieces)


def _told(answer: Answer) -> Response:
    """A refusal, in OpenAI's words."""
    status, fields = answer.status, list(answer.body.get("errors", ()))
    type_ = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    code = "model_not_found" if status == 404 else None
    return _json(
        openai_chat.error_body(answer.body["message"], type_, code, fields[0] if fields else None), status
    )


def _json(body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(body, status, headers, media_type="application/json")
