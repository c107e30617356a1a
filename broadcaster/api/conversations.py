"""The endpoints of stored conversations: list, read, rename, delete."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from legato.broadcaster.auth.rules import user_of
from legato.broadcaster.bus.base import BusError
from legato.broadcaster.conversations import running
from legato.broadcaster.conversations.cursors import conversation_place, turn_position
from legato.broadcaster.database_limits import (
    CONVERSATIONS_MAX_PAGE,
    CONVERSATIONS_PAGE,
    SEARCH_MAX_CHARACTERS,
    SEARCH_MAX_WORDS,
)
from legato.protocol.conversations import MAX_RENAME_BYTES, ConversationChanged, decode_title
from legato.protocol.jobs import MESSAGE_ID, InvalidRequest

from .asgi import read_body
from .live import socket_id_of
from .refusals import ChatRefusal, answered

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Awaitable, Callable, Sequence

    from starlette.requests import Request
    from starlette.routing import BaseRoute

    from legato.broadcaster.auth.verifier import Verifier
    from legato.broadcaster.conversations.archive import Conversations
    from legato.broadcaster.doors.kit import DoorParts
    from legato.broadcaster.replies.open_messages import OpenMessage
    from legato.broadcaster.replies.store import Replies
    from legato.protocol.stream import UserId

    from .live import UserEvents

logger: Final = logging.getLogger("legato.chat")

NO_DATABASE: Final = "Conversations are off: this server has no database (chat.database_url)."
NO_CONVERSATION: Final = "No such conversation."


class ChatParts(NamedTuple):
    """What the chat's endpoints use. Each may be off.

    :ivar replies: the chat's state in Redis.
    :ivar conversations: the worker's database.
    :ivar events: publishes to a user's pages.
    :ivar doors: read replies over HTTP.
    """

    replies: Replies | None
    conversations: Conversations | None
    events: UserEvents | None
    doors: DoorParts | None = None


class ConversationEndpoints:
    """The endpoints below ``/api/conversations``."""

    def __init__(self, parts: ChatParts, tokens: Verifier, figures: Counter[tuple[str, int]]) -> None:
        self._parts = parts
        self._tokens = tokens
        self._figures = figures

    def routes(self) -> Sequence[BaseRoute]:
        """The routes, to mount in an application."""
        one = "/api/conversations/{id}"
        rows: tuple[tuple[str, str, str, Callable[[Request], Awaitable[Response]]], ...] = (
            ("/api/conversations", "conversations_list", "GET", self._list),
            (one, "conversation_read", "GET", self._read),
            (one, "conversation_rename", "PATCH", self._rename),
            (one, "conversation_delete", "DELETE", self._delete),
        )
        return [
            Route(path, answered(self._figures, name, handler), methods=[method])
            for path, name, method, handler in rows
        ]

    async def _enter(self, request: Request) -> tuple[UserId, Conversations]:
        user_id = user_of(await self._tokens.verify(request.headers.get("authorization", "")))
        if self._parts.conversations is None:
            raise ChatRefusal(503, NO_DATABASE)
        return user_id, self._parts.conversations

    async def _list(self, request: Request) -> Response:
        user_id, conversations = await self._enter(request)
        place, words = conversation_place(request.query_params.get("before")), _words(request)
        found = running.found(await self._open_messages(user_id), words)
        return _json(await conversations.page(user_id, _limit(request), place, words, found))

    async def _read(self, request: Request) -> Response:
        user_id, conversations = await self._enter(request)
        place, name = turn_position(request.query_params.get("before")), _conversation_id(request)
        open_ones = await self._open_messages(user_id, name) if place is None else ()
        return _json(_existing(await conversations.read(user_id, name, _limit(request), place, open_ones)))

    async def _open_messages(self, user_id: UserId, name: str | None = None) -> Sequence[OpenMessage]:
        """What is not stored yet. Where Redis does not answer, nothing runs that could be shown."""
        if self._parts.replies is None:
            return ()
        try:
            return await self._parts.replies.open_messages.read(user_id, name)
        except BusError as error:
            logger.warning("conversations are read without what runs in them: %s", error)
            return ()

    async def _rename(self, request: Request) -> Response:
        user_id, conversations = await self._enter(request)
        name, sender = _conversation_id(request), socket_id_of(request)
        title = decode_title(await read_body(request.receive, MAX_RENAME_BYTES))
        renamed = _existing(await conversations.rename(user_id, name, title))
        self._tell(user_id, ConversationChanged(name, renamed.updated_at, title), sender)
        return _json(renamed)

    async def _delete(self, request: Request) -> Response:
        user_id, conversations = await self._enter(request)
        name, sender = _conversation_id(request), socket_id_of(request)
        at = _existing(await conversations.delete(user_id, name))
        await self._cancel(user_id, name)
        self._tell(user_id, ConversationChanged(name, at, deleted=True), sender)
        return JSONResponse({"deleted": True})

    async def _cancel(self, user_id: UserId, conversation_id: str) -> None:
        """Cancel what still runs. Where that fails, its reply goes on, but is not stored."""
        if self._parts.replies is None:
            return
        try:
            await self._parts.replies.cancel_conversation(user_id, conversation_id)
        except BusError as error:
            logger.warning("replies of a deleted conversation are not cancelled: %s", error)

    def _tell(self, user_id: UserId, event: ConversationChanged, sender: str | None) -> None:
        if self._parts.events is not None:
            self._parts.events.tell(user_id, event, sender)


def _existing(found: Any) -> Any:
    if found is None:
        raise ChatRefusal(404, NO_CONVERSATION)
    return found


def _conversation_id(request: Request) -> str:
    name: str = request.path_params["id"]
    if not MESSAGE_ID.fullmatch(name):
        raise ChatRefusal(404, NO_CONVERSATION)
    return name


def _limit(request: Request) -> int:
    text = request.query_params.get("limit", str(CONVERSATIONS_PAGE))
    if text.isascii() and text.isdigit() and len(text) <= 3 and 1 <= int(text) <= CONVERSATIONS_MAX_PAGE:
        return int(text)
    raise InvalidRequest("limit", f"Expected a number from 1 to {CONVERSATIONS_MAX_PAGE}")


def _words(request: Request) -> list[str]:
    """The words of a search."""
    text = request.query_params.get("q", "").replace("\0", "")
    words = text.split()
    if len(text) > SEARCH_MAX_CHARACTERS or len(words) > SEARCH_MAX_WORDS:
        most = f"{SEARCH_MAX_WORDS} words, of {SEARCH_MAX_CHARACTERS} characters together"
        raise InvalidRequest("q", f"Expected at most {most}")
    return words


def _json(answer: msgspec.Struct) -> Response:
    return Response(msgspec.json.encode(answer), media_type="application/json")
