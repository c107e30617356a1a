"""The door of AG-UI: runs of an agent, as ``HttpAgent`` and CopilotKit ask for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from legato.broadcaster.api.approvals import decide
from legato.broadcaster.api.refusals import ChatRefusal
from legato.protocol.approvals import Approval
from legato.protocol.doors import ag_ui, requests
from legato.protocol.doors.ag_ui_request import parse_run

from .answers import Manner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

    from legato.broadcaster.api.submissions import MessageSender
    from legato.protocol.doors.ag_ui_request import RunInput
    from legato.protocol.doors.base import Opening
    from legato.protocol.jobs import ChatRequest, InvalidRequest
    from legato.protocol.stream import Decision, UserId
    from legato.protocol.transcript import Piece

    from .kit import DoorKit

MANNER: Final = Manner(ag_ui.FRAMING)


class AgUiDoor:
    """``POST /api/ag-ui``: starts a run, comes back to one, or goes on after an interrupt."""

    def __init__(self, kit: DoorKit) -> None:
        self._kit = kit
        self._chats = kit.replies.door_chats

    def routes(self) -> Sequence[BaseRoute]:
        """The route."""
        return [self._kit.route("/api/ag-ui", "door_ag_ui", "POST", self._run)]

    async def _run(self, request: Request) -> Response:
        caller = await self._kit.access.caller(request)
        run, _ = await self._kit.intake.read(request, parse_run)
        if run.refusal is not None:
            message_id, known = await self._known(caller.user_id, run, run.refusal), True
        elif run.request is None:
            message_id, known = await self._answer(caller.user_id, run), True
        else:
            sender = caller.sends(request)
            message_id, known = await self._start(run, run.request, sender)
        watched = await self._kit.caught_up(await self._kit.watch(caller.user_id, message_id))
        translator = ag_ui.AgUi(run)
        return self._kit.answer(watched, _Attached(translator) if known else translator, MANNER, "ag-ui")

    async def _start(self, run: RunInput, asked: ChatRequest, sender: MessageSender) -> tuple[str, bool]:
        """The reply of a run, and whether the run was known before."""
        job, queued = await self._kit.intake.submit(self._kit.intake.accept(asked), sender, run.key)
        await self._chats.remember(sender.user_id, _thread(run), job.message_id)
        return job.message_id, not queued

    async def _known(self, user_id: UserId, run: RunInput, refusal: InvalidRequest) -> str:
        """The reply of a run that the client comes back to.

        :raises InvalidRequest: it is no such run.
        """
        message_id = await self._kit.replies.known(user_id, run.key)
        if message_id is None:
            raise refusal
        return message_id

    async def _answer(self, user_id: UserId, run: RunInput) -> str:
        """Decide what the run before has asked. Answers its reply, which goes on."""
        message_id = await self._chats.newest(user_id, _thread(run))
        key = None if message_id is None else await self._kit.replies.owned(user_id, message_id)
        if key is None or message_id is None:
            raise ChatRefusal(404, "No run of this thread waits for an answer.")
        for answer in run.answers:
            approval = Approval(answer.approve, answer.note)
            await decide(self._kit.replies, key, message_id, answer.call, approval)
        return message_id


class _Attached:
    """A run that the client has seen a part of: what there is comes as a snapshot."""

    def __init__(self, run: ag_ui.AgUi) -> None:
        self._run = run
        self._attached = False
        self.done = False

    def begin(self, opening: Opening) -> list[bytes]:
        return self._run.begin(opening)

    def feed(self, pieces: Sequence[Piece]) -> list[bytes]:
        tell = self._run.feed if self._attached else self._run.attach
        self._attached = True
        messages = tell(pieces)
        self.done = self._run.done
        return messages

    def end(self, decision: Decision) -> list[bytes]:
        self.done = True
        return self._run.end(decision)


def _thread(run: RunInput) -> str:
    """The name of a thread in a key."""
    return requests.key_of("ag-ui", run.thread_id)
