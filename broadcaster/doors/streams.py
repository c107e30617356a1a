"""The read side of Durable Streams: a reply as an append-only stream with offsets."""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from starlette.responses import JSONResponse, Response

from legato.broadcaster.api.chat import channel_of, message_id_of
from legato.broadcaster.api.refusals import ChatRefusal
from legato.broadcaster.door_limits import LONG_POLL_SECONDS, STREAM_SECONDS
from legato.protocol.doors import ag_ui, ag_ui_request, durable, ui_messages
from legato.protocol.jobs import InvalidRequest

from .answers import Manner, Translation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from starlette.requests import Request
    from starlette.routing import BaseRoute

    from legato.broadcaster.api.refusals import Answer
    from legato.protocol.doors.base import Opening, Translator
    from legato.protocol.doors.durable import Reached, ReadRequest
    from legato.protocol.stream import Decision
    from legato.protocol.transcript import Piece

    from .answers import Watched
    from .kit import DoorKit

_FORMATS: Final[Mapping[str, Callable[[str], Translator]]] = {
    "": lambda _: durable.Entries(),
    "ui": lambda _: ui_messages.UiMessages(),
    "agui": lambda message_id: ag_ui.AgUi(ag_ui_request.RunInput(message_id, message_id)),
}

_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class _Waiting:
    """A long-poll. Satisfies :class:`.answers.OpenAnswer`."""

    comes_back = True

    def __init__(self) -> None:
        self._timeout = asyncio.timeout(LONG_POLL_SECONDS)

    def stop(self) -> None:
        self._timeout.reschedule(0)

    async def news(self, watched: Watched, translation: Translation) -> list[bytes]:
        """Wait for messages; none if there are none in time."""
        try:
            async with self._timeout:
                while not translation.done:
                    if messages := translation.take(await watched.reader.next()):
                        return messages
        except TimeoutError:
            pass
        return []


class StreamDoor:
    """``GET /api/streams/{id}``."""

    def __init__(self, kit: DoorKit) -> None:
        self._kit = kit

    def routes(self) -> Sequence[BaseRoute]:
        """The route."""
        return [self._kit.route("/api/streams/{id}", "door_stream", _METHODS, self._handle, _told)]

    async def _handle(self, request: Request) -> Response:
        response = await self._read(request)
        response.headers.update(durable.ALWAYS)
        return response

    async def _read(self, request: Request) -> Response:
        if request.method not in ("GET", "HEAD"):
            status = 204 if request.method == "OPTIONS" else 405
            return Response(status_code=status, headers={"allow": "GET, HEAD, OPTIONS"})
        asked, make = _asked(request)
        user_id = await self._kit.access.reading(request)
        message_id = message_id_of(request)
        watched = await self._kit.caught_up(await self._kit.watch(user_id, message_id, channel_of(request)))

        def told() -> tuple[Translation, list[bytes]]:
            translation = Translation(message_id, user_id, make(message_id))
            return translation, translation.take(watched.first)

        streams = request.method == "GET" and asked.mode == "sse"
        try:
            translation, messages = told()
            if asked.is_beyond(len(messages)):  # told by another node, perhaps
                watched = await self._kit.ahead(watched)
                translation, messages = told()
            start = _start(asked, len(messages))
            if not streams:
                stream = _Stream(message_id, translation, start)
                return await self._once(request, watched, asked, stream, messages)
        except BaseException:
            streams = False
            raise
        finally:
            if not streams:
                watched.reader.close()
        return self._events(watched, asked, start, make(message_id))

    async def _once(
        self, request: Request, watched: Watched, asked: ReadRequest, stream: _Stream, messages: list[bytes]
    ) -> Response:
        """What there is, or what comes next."""
        if request.method == "HEAD":
            return _answer(durable.head_headers(stream.reached(messages)))
        if asked.mode and stream.start == len(messages) and not stream.translation.done:
            messages += await self._next(watched, stream.translation)
        place = stream.reached(messages)
        cursor = _cursor(asked) if asked.mode else ""
        if asked.mode and stream.start == len(messages):
            return Response(status_code=204, headers=durable.tail_headers(place, cursor))
        headers = durable.headers(stream.id, asked, place, cursor)
        if durable.is_unchanged(request.headers.get("if-none-match"), headers):
            return Response(status_code=304, headers=headers)
        return _answer(headers, durable.array(messages[stream.start :]))

    async def _next(self, watched: Watched, translation: Translation) -> list[bytes]:
        waiting = _Waiting()
        self._kit.opened.add(waiting)
        try:
            return await waiting.news(watched, translation)
        finally:
            self._kit.opened.remove(waiting)

    def _events(self, watched: Watched, asked: ReadRequest, start: int, translator: Translator) -> Response:
        cursor = _cursor(asked)
        head = durable.sse_control(durable.Reached(start, closed=False), cursor)
        manner = Manner(durable.SSE._replace(head=head), comes_back=True, most_seconds=STREAM_SECONDS)
        return self._kit.answer(watched, _Events(translator, start, cursor), manner)


class _Stream(NamedTuple):
    """A reply as a stream. ``start``: the number of messages that the client has."""

    id: str
    translation: Translation
    start: int

    def reached(self, messages: Sequence[bytes]) -> Reached:
        """Where an answer with all these messages ends."""
        return durable.Reached(len(messages), self.translation.done)


class _Events:
    """Translates to the events of a stream. See :class:`legato.protocol.doors.base.Translator`.

    :param start: the number of messages that the client has.
    """

    def __init__(self, inner: Translator, start: int, cursor: str) -> None:
        self._inner = inner
        self._skipped = start
        self._count = 0
        self._cursor = cursor
        self.done = False

    def begin(self, opening: Opening) -> list[bytes]:
        return self._framed(self._inner.begin(opening))

    def feed(self, pieces: Sequence[Piece]) -> list[bytes]:
        return self._framed(self._inner.feed(pieces))

    def end(self, decision: Decision) -> list[bytes]:
        return self._framed(self._inner.end(decision), end=True)

    def _framed(self, messages: list[bytes], *, end: bool = False) -> list[bytes]:
        """The messages that the client lacks as one event, and where it is then."""
        new = messages[max(0, self._skipped - self._count) :]
        self._count += len(messages)
        self.done = self._inner.done
        if not new and not end:
            return []
        control = durable.sse_control(durable.Reached(self._count, self.done), self._cursor)
        return [durable.sse_data(new), control] if new else [control]


def _asked(request: Request) -> tuple[ReadRequest, Callable[[str], Translator]]:
    """What the query asks for."""
    make = _FORMATS.get(request.query_params.get("format", ""))
    if make is None:
        raise ChatRefusal(400, "Expected ui or agui as format")
    try:
        return durable.parse_read(request.query_params.multi_items()), make
    except InvalidRequest as error:
        raise ChatRefusal(400, f"{error.field}: {error.reason}") from error


def _start(asked: ReadRequest, tail: int) -> int:
    try:
        return asked.start(tail)
    except InvalidRequest as error:
        raise ChatRefusal(400, f"{error.field}: {error.reason}") from error


def _cursor(asked: ReadRequest) -> str:
    step = random.randint(1, durable.MAX_CURSOR_STEP)  # noqa: S311 - no secret
    return durable.cursor(time.time(), asked.cursor, step)


def _answer(headers: Mapping[str, str], body: bytes = b"") -> Response:
    return Response(body, headers=dict(headers), media_type="application/json")


def _told(answer: Answer) -> Response:
    return JSONResponse(answer.body, answer.status, dict(durable.ALWAYS))
