"""What all doors share: they open replies to read, queue messages, and answer."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from starlette.routing import Route

from legato.broadcaster.api.asgi import read_body
from legato.broadcaster.api.refusals import NO_MESSAGE, ChatRefusal, answered
from legato.broadcaster.api.submissions import accept
from legato.broadcaster.bus.base import BusError
from legato.protocol.doors.base import corrected

from .answers import ReplyAnswer, Watched

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Awaitable, Callable, Coroutine, Sequence
    from typing import Any, TypeVar

    from starlette.requests import Request
    from starlette.responses import Response

    from legato.broadcaster.api.refusals import Answer
    from legato.broadcaster.api.submissions import AcceptedRequest, ChatLimits, Submissions
    from legato.broadcaster.replies.store import Replies
    from legato.broadcaster.transport.budget import Budget
    from legato.protocol.doors.base import Translator
    from legato.protocol.jobs import ChatRequest
    from legato.protocol.stream import UserId

    from .access import DoorAccess
    from .answers import Manner, OpenAnswers
    from .reader import LogReader, LogReaders
    from .settings import Door, DoorSettings

    T = TypeVar("T")
    Handler = Callable[[Request], Awaitable[Response]]


class DoorParts(NamedTuple):
    """What the doors use of a node.

    :ivar spawn: runs a coroutine in the background.
    :ivar later: does so after some seconds, unless the node stops before.
    """

    readers: LogReaders
    opened: OpenAnswers
    spawn: Callable[[Coroutine[Any, Any, None]], None]
    later: Callable[[float, Callable[[], Coroutine[Any, Any, None]]], None]


class Intake:
    """Takes requests that start a reply.

    :ivar submit: queues a message.
    :ivar options: of a job that a client may set. The reply always goes to the user's own channel.
    :ivar names: by option, the values that it may have; empty for any.
    """

    def __init__(self, submissions: Submissions, limits: ChatLimits, budget: Budget) -> None:
        self._limits = limits
        self._budget = budget
        self.submit = submissions.submit
        self.options = limits.options.allowed - {"channel"}
        self.names = limits.options.names

    async def read(self, request: Request, parse: Callable[[bytes], T]) -> tuple[T, bytes]:
        """The parsed body, and the body.

        :raises InvalidRequest: ``parse`` does.
        """
        body = await read_body(request.receive, self._limits.body)
        return await self._budget.in_turn(partial(parse, body), len(body)), body

    def accept(self, request: ChatRequest) -> AcceptedRequest:
        """The request within the limits of the chat: a history that is too long is cut.

        :raises InvalidRequest: the message is too long, or an option is not allowed.
        """
        return accept(request, self._limits)


class DoorKit:
    """Opens replies for reading, and answers with them.

    :ivar access: checks who asks.
    :ivar intake: takes requests that start a reply.
    """

    def __init__(
        self,
        replies: Replies,
        parts: DoorParts,
        access: DoorAccess,
        intake: Intake,
        settings: DoorSettings,
        figures: Counter[tuple[str, int]],
    ) -> None:
        self._parts = parts
        self._figures = figures
        self.replies = replies
        self.access = access
        self.intake = intake
        self.settings = settings

    def route(
        self,
        path: str,
        name: str,
        method: str | Sequence[str],
        handler: Handler,
        told: Callable[[Answer], Response] | None = None,
    ) -> Route:
        """A route. ``told`` makes the answer to a refusal."""
        return Route(
            path,
            answered(self._figures, name, handler, told),
            methods=[method] if isinstance(method, str) else method,
        )

    async def watch(self, user_id: UserId, message_id: str, channel: str | None = None) -> Watched:
        """Open a reply of a user for reading. What is returned has to be closed, or answered with.

        :raises ChatRefusal: there is none.
        :raises ExpiredError: its log has expired.
        :raises TooManyReaders: the user, or this process, reads too many.
        """
        opened = self._parts.opened
        opened.take(user_id)
        reader = first = None
        try:
            key = await self.replies.owned(user_id, message_id, channel)
            if key is None:
                raise ChatRefusal(404, NO_MESSAGE)
            reader = self._parts.readers.open(key, message_id, closed=partial(opened.give_back, user_id))
            first = await reader.begin()
        finally:
            if reader is None:
                opened.give_back(user_id)
            elif first is None:
                reader.close()
        if first is None:
            raise ChatRefusal(404, NO_MESSAGE)
        return Watched(reader, first, user_id)

    async def caught_up(self, watched: Watched) -> Watched:
        """Read up to what there is now. The reader is closed if that fails.

        :raises BusError: Redis does not answer.
        :raises ExpiredError: the log has expired.
        """
        found = watched.first
        pieces = list(found.pieces)
        try:
            while found.next < found.entries:
                found = await watched.reader.next()
                pieces += found.pieces
        except BaseException:
            watched.reader.close()
            raise
        return watched._replace(first=found._replace(first=0, pieces=pieces))

    async def ahead(self, watched: Watched) -> Watched:
        """The same up to what the log has now, for who knows more than this node has read.

        :raises BusError: Redis does not answer.
        :raises ExpiredError: the log has expired.
        """
        found = await watched.reader.look()
        pieces = [*watched.first.pieces, *found.pieces]
        return await self.caught_up(watched._replace(first=found._replace(first=0, pieces=pieces)))

    async def corrected(self, watched: Watched) -> Watched:
        """The same, without what is retracted in that: for protocols that cannot take anything back."""
        watched = await self.caught_up(watched)
        pieces = corrected(watched.first.pieces)
        return watched._replace(first=watched.first._replace(pieces=pieces))

    @property
    def opened(self) -> OpenAnswers:
        """The answers that take long."""
        return self._parts.opened

    def answer(
        self,
        watched: Watched,
        translator: Translator,
        manner: Manner,
        door: Door | None = None,
        read: Callable[[], Awaitable[None]] | None = None,
    ) -> ReplyAnswer:
        """Answer with a reply as it comes.

        :param door: whose disconnect may cancel the reply.
        :param read: called when the client has got all.
        """
        reader, _, user_id = watched

        def ended(done: bool) -> None:
            if not done:
                self.left(reader, user_id, door)
            elif read is not None:
                self._parts.spawn(_try(read))

        return ReplyAnswer(watched, translator, manner, self._parts.opened, ended)

    def left(self, reader: LogReader, user_id: UserId, door: Door | None) -> None:
        """A client has left before the end of a reply."""
        if door in self.settings.cancel_on_disconnect:
            self._parts.later(self.settings.disconnect_grace, partial(self._cancel, reader, user_id))

    async def _cancel(self, reader: LogReader, user_id: UserId) -> None:
        """Cancel a reply whose reader has left, unless one has come back to this node."""
        if not self._parts.readers.are_reading(reader.key, reader.message_id):
            await _try(partial(self.replies.cancel, user_id, reader.message_id, reader.key.channel))


async def _try(work: Callable[[], Awaitable[object]]) -> None:
    """Do it, if Redis answers."""
    with suppress(BusError):
        await work()
