"""Server-sent events: for ``EventSource``, and for the stream hooks of Laravel."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from starlette.responses import PlainTextResponse, Response

from legato.broadcaster.api.chat import channel_of, message_id_of
from legato.broadcaster.auth.errors import KeysUnavailable
from legato.broadcaster.bus.base import BusError
from legato.protocol.doors import laravel_stream, sse
from legato.protocol.jobs import InvalidRequest, decode_chat_request

from .answers import HEADERS, Manner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import Request
    from starlette.routing import BaseRoute

    from legato.broadcaster.api.refusals import Answer

    from .kit import DoorKit

logger: Final = logging.getLogger("legato.doors")

EVENTS: Final = Manner(sse.FRAMING, comes_back=True)
UPDATES: Final = Manner(laravel_stream.UPDATES)
TEXT: Final = Manner(laravel_stream.TEXT, breaks_on_failure=True)

_MODES: Final = {"delta": False, "replace": True}


class EventDoor:
    """``GET /api/chat/{id}/events``."""

    def __init__(self, kit: DoorKit) -> None:
        self._kit = kit

    def routes(self) -> Sequence[BaseRoute]:
        """The route."""
        return [self._kit.route("/api/chat/{id}/events", "door_events", "GET", self._events)]

    async def _events(self, request: Request) -> Response:
        """The events after the last that the client has. 204 stops a client that has them all.

        Any other status stops it too. So while Redis does not answer it gets an empty answer, and comes back.
        """
        try:
            user_id = await self._kit.access.reading(request)
            watched = await self._kit.watch(user_id, message_id_of(request), channel_of(request))
        except (BusError, KeysUnavailable) as error:
            logger.warning("a reader has to come again: %s", error)
            return Response(sse.FRAMING.head, headers={"content-type": sse.FRAMING.content_type, **HEADERS})
        seen = sse.last_seen(request.headers.get("last-event-id"), request.query_params.get("after"))
        first = watched.first
        if first.ended and sse.is_over(seen, first.entries):
            watched.reader.close()
            return Response(status_code=204)
        return self._kit.answer(watched, sse.Events(seen), EVENTS)


class UpdateDoor:
    """``GET /api/chat/{id}/updates``: the text for ``useEventStream``."""

    def __init__(self, kit: DoorKit) -> None:
        self._kit = kit

    def routes(self) -> Sequence[BaseRoute]:
        """The route."""
        return [self._kit.route("/api/chat/{id}/updates", "door_updates", "GET", self._updates)]

    async def _updates(self, request: Request) -> Response:
        mode = request.query_params.get("mode", "delta")
        if mode not in _MODES:
            raise InvalidRequest("mode", "Expected delta or replace")
        user_id = await self._kit.access.reading(request)
        watched = await self._kit.watch(user_id, message_id_of(request), channel_of(request))
        return self._kit.answer(watched, laravel_stream.Updates(replace=_MODES[mode]), UPDATES)


class TextDoor:
    """``POST /api/chat/text``: starts a reply, and answers with its bare text, for ``useStream``."""

    def __init__(self, kit: DoorKit) -> None:
        self._kit = kit

    def routes(self) -> Sequence[BaseRoute]:
        """The route."""
        return [self._kit.route("/api/chat/text", "door_text", "POST", self._text, said)]

    async def _text(self, request: Request) -> Response:
        caller = await self._kit.access.caller(request)
        asked, body = await self._kit.intake.read(request, decode_chat_request)
        sender = caller.sends(request)
        key = request.headers.get("idempotency-key")
        job, _ = await self._kit.intake.submit(self._kit.intake.accept(asked), sender, key, body)
        watched = await self._kit.watch(caller.user_id, job.message_id, asked.reply_channel)
        manner = TEXT._replace(headers={"x-message-id": job.message_id})
        return self._kit.answer(watched, laravel_stream.PlainText(), manner, "text")


def said(answer: Answer) -> Response:
    """A refusal as a sentence, which the client shows to people as it is."""
    return PlainTextResponse(answer.body["message"], answer.status)
