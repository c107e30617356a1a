"""The door of the AI SDK: ``useChat`` with its default transport."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from starlette.responses import JSONResponse, Response

from legato.broadcaster.api.refusals import ChatRefusal
from legato.broadcaster.door_limits import REPLAY_SECONDS
from legato.broadcaster.replies.logs import ExpiredError
from legato.protocol.doors import requests, ui_messages, ui_request

from .answers import Manner
from .events import said

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import Request
    from starlette.routing import BaseRoute

    from legato.protocol.stream import UserId

    from .answers import Watched
    from .kit import DoorKit

MANNER: Final = Manner(ui_messages.FRAMING, headers={"x-vercel-ai-ui-message-stream": "v1"})


class UiDoor:
    """``POST /api/chat``, and for a chat: to go on reading, and to stop."""

    def __init__(self, kit: DoorKit) -> None:
        self._kit = kit
        self._chats = kit.replies.door_chats

    def routes(self) -> Sequence[BaseRoute]:
        """The routes."""
        route = self._kit.route
        return [
            route("/api/chat", "door_ui", "POST", self._submit, said),
            route("/api/chat/{chat:path}/stream", "door_ui_resume", "GET", self._resume, said),
            route("/api/chat/{chat:path}/stop", "door_ui_stop", "POST", self._stop, said),
        ]

    async def _submit(self, request: Request) -> Response:
        """Start a reply. The same message once more gets the same reply, from its beginning."""
        kit = self._kit
        caller = await kit.access.caller(request)
        parse = partial(ui_request.parse_submit, allowed=kit.intake.options)
        asked, _ = await kit.intake.read(request, parse)
        accepted = kit.intake.accept(asked.request)
        if not asked.key:
            await self._cancel(caller.user_id, asked.chat_id)
        sender = caller.sends(request)
        job, _ = await kit.intake.submit(accepted, sender, asked.key or None)
        await self._chats.remember(caller.user_id, _name(asked.chat_id), job.message_id)
        return await self._stream(await kit.watch(caller.user_id, job.message_id))

    async def _resume(self, request: Request) -> Response:
        """The whole of the chat's newest reply, if it runs, or has just ended and was not read to the end.

        Otherwise 204, also for a chat that does not exist: the client takes any other status for an error.
        """
        user_id = (await self._kit.access.caller(request)).user_id
        message_id = await self._chats.newest(user_id, _name(request.path_params["chat"]))
        if message_id is None:
            return Response(status_code=204)
        try:
            watched = await self._kit.watch(user_id, message_id)
        except (ChatRefusal, ExpiredError):
            return Response(status_code=204)
        wanted = False
        try:
            wanted = not watched.first.ended or await self._is_owed(watched)
        finally:
            if not wanted:
                watched.reader.close()
        return await self._stream(watched) if wanted else Response(status_code=204)

    async def _is_owed(self, watched: Watched) -> bool:
        """Whether an ended reply is still to be shown: after a cut, the client has a part of it only."""
        reader = watched.reader
        ((_, ended),) = await self._kit.replies.around([reader.key])
        age = ended.get(reader.message_id)
        if age is None or age > REPLAY_SECONDS:
            return False
        return not await self._chats.is_read(watched.user_id, reader.message_id)

    async def _stream(self, watched: Watched) -> Response:
        settings = self._kit.settings
        translator = ui_messages.UiMessages(reset_step=settings.ui_reset_step)
        read = partial(self._chats.set_read, watched.user_id, watched.reader.message_id)
        return self._kit.answer(await self._kit.corrected(watched), translator, MANNER, "ui", read)

    async def _stop(self, request: Request) -> Response:
        """Cancel the chat's newest reply, unless the client means another one."""
        user_id = (await self._kit.access.caller(request)).user_id
        meant, _ = await self._kit.intake.read(request, ui_request.parse_stop)
        await self._cancel(user_id, request.path_params["chat"], meant)
        return JSONResponse({"success": True})

    async def _cancel(self, user_id: UserId, chat: str, meant: str | None = None) -> None:
        message_id = await self._chats.newest(user_id, _name(chat))
        if message_id is not None and meant in (None, message_id):
            await self._kit.replies.cancel(user_id, message_id)


def _name(chat: str) -> str:
    """The name of a chat in a key: its id may have any characters."""
    return requests.key_of(chat)
