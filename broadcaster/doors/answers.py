"""Streamed answers: a reply in the words of a door, as it comes."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from contextlib import suppress
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from starlette.responses import StreamingResponse

from legato.broadcaster.api.asgi import disconnected
from legato.broadcaster.api.refusals import TooManyReaders
from legato.broadcaster.bus.base import BusError
from legato.broadcaster.door_limits import BREAK_PAUSE_SECONDS, KEEP_ALIVE_SECONDS, LOG_READ_ENTRIES
from legato.broadcaster.replies.logs import ExpiredError
from legato.broadcaster.transport.asgi import BrokenOffError
from legato.protocol.doors.base import Opening
from legato.protocol.stream import decode_begun

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from legato.broadcaster.api.asgi import Receive, Scope, Send
    from legato.broadcaster.replies.logs import LogRange
    from legato.protocol.doors.base import Framing, Translator
    from legato.protocol.stream import UserId

    from .reader import LogReader
    from .settings import DoorSettings

logger: Final = logging.getLogger("legato.doors")

HEADERS: Final = {"cache-control": "no-cache, no-transform", "x-accel-buffering": "no"}
"""Of every streamed answer: nobody on the way may keep it, or hold it back."""


class OpenAnswer(Protocol):
    """An answer that takes long. Hashable by identity.

    :ivar comes_back: its client comes back by itself after a clean end.
    """

    @property
    def comes_back(self) -> bool:
        """Whether its client comes back by itself after a clean end."""

    def stop(self) -> None:
        """End the answer."""


class OpenAnswers:
    """The streamed answers of this process, and their limits."""

    def __init__(self, settings: DoorSettings) -> None:
        self._most = settings.max_readers
        self._most_per_user = settings.max_readers_per_user
        self._open: set[OpenAnswer] = set()
        self._taken = 0
        self._places: Counter[str] = Counter()
        self._draining = False
        self._none = asyncio.Event()

    def __len__(self) -> int:
        return len(self._open)

    def take(self, user_id: UserId) -> None:
        """Take a place for a reader, before anything is awaited for it; :meth:`give_back` has to follow.

        :raises TooManyReaders: there is none.
        """
        if 0 < self._most <= self._taken or 0 < self._most_per_user <= self._places[str(user_id)]:
            raise TooManyReaders
        self._taken += 1
        self._places[str(user_id)] += 1

    def give_back(self, user_id: UserId) -> None:
        """Undo :meth:`take`."""
        self._taken -= 1
        self._places[str(user_id)] -= 1
        if not self._places[str(user_id)]:
            del self._places[str(user_id)]

    def add(self, answer: OpenAnswer) -> None:
        """Note an answer that begins."""
        self._open.add(answer)
        self._none.clear()
        if self._draining and answer.comes_back:
            answer.stop()

    def remove(self, answer: OpenAnswer) -> None:
        """Forget an answer. Idempotent."""
        self._open.discard(answer)
        if not self._open:
            self._none.set()

    async def drain(self, seconds: float) -> None:
        """End those whose clients come back by themselves now, and the others after so many seconds."""
        self._draining = True
        for answer in list(self._open):
            if answer.comes_back:
                answer.stop()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds if self._open else 0):
                await self._none.wait()
        for answer in list(self._open):
            answer.stop()


class Manner(NamedTuple):
    """How a door answers.

    :ivar framing: of its messages.
    :ivar comes_back: its client comes back by itself after a clean end, and loses nothing.
    :ivar breaks_on_failure: the protocol has no word for a failure: break the connection, so that it is seen.
    :ivar most_seconds: how long an answer lasts at most; 0: until the end of the reply.
    :ivar headers: besides those of all streamed answers.
    """

    framing: Framing
    comes_back: bool = False
    breaks_on_failure: bool = False
    most_seconds: float = 0
    headers: Mapping[str, str] = MappingProxyType({})


class Watched(NamedTuple):
    """The reply of an answer.

    :ivar first: the first reading of the reader.
    :ivar user_id: the owner of the reply.
    """

    reader: LogReader
    first: LogRange
    user_id: UserId


class Translation:
    """Translates the readings of one reply."""

    def __init__(self, message_id: str, user_id: UserId, translator: Translator) -> None:
        self._message_id = message_id
        self._user_id = user_id
        self._translator = translator
        self._begun = False

    @property
    def done(self) -> bool:
        """Whether no message follows any more."""
        return self._translator.done

    def take(self, found: LogRange) -> list[bytes]:
        """The messages of the next reading. There are none before the reply begins."""
        translator = self._translator
        messages: list[bytes] = []
        if not self._begun:
            if found.begun is None and not found.entries and found.decision is None:
                return []
            self._begun = True
            opening = Opening(self._message_id, self._user_id, decode_begun(found.begun))
            messages = translator.begin(opening)
        messages += translator.feed(found.pieces)
        if found.decision is not None and not translator.done:
            messages += translator.end(found.decision)
        return messages


def parts_of(found: LogRange) -> Iterator[LogRange]:
    """A reading in parts that are not long: each is written when the peer has read most of the one before."""
    most, pieces = LOG_READ_ENTRIES, found.pieces
    last = max(0, len(pieces) - 1) // most * most
    for at in range(0, last, most):
        yield found._replace(first=found.first + at, pieces=pieces[at : at + most], decision=None)
    yield found._replace(first=found.first + last, pieces=pieces[last:])


class ReplyAnswer(StreamingResponse):
    """An answer that is written as its reply is. Nothing is read of the reply while the peer does not read.

    :param watched: its reader is closed at the end.
    :param ended: called with whether all is written, if it is or if the peer has left before.
    """

    def __init__(
        self,
        watched: Watched,
        translator: Translator,
        manner: Manner,
        opened: OpenAnswers,
        ended: Callable[[bool], None],
    ) -> None:
        headers = {"content-type": manner.framing.content_type, **HEADERS, **manner.headers}
        super().__init__((), headers=headers)
        self._reader = watched.reader
        self._unwritten = deque(parts_of(watched.first))
        self._translation = Translation(watched.reader.message_id, watched.user_id, translator)
        self._manner = manner
        self._opened = opened
        self._ended = ended
        self._stopped = False
        self._complete = False
        self._waiting: asyncio.Timeout | None = None

    @property
    def comes_back(self) -> bool:
        """Whether its client comes back by itself after a clean end."""
        return self._manner.comes_back

    def stop(self) -> None:
        """Write nothing more: the peer has left, or the node is stopping."""
        self._stopped = True
        if self._waiting is not None:
            self._waiting.reschedule(0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See Starlette.

        :raises BrokenOffError: the answer cannot be completed, and the peer has to see that.
        """
        gone = asyncio.ensure_future(disconnected(receive))
        gone.add_done_callback(lambda _: self.stop())
        most = self._manner.most_seconds
        timer = asyncio.get_running_loop().call_later(most, self.stop) if most else None
        self._opened.add(self)
        try:
            head = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            await send(head)
            if scope["method"] == "HEAD":
                await send(_body(b"", more=False))
            else:
                await self._write(send)
        finally:
            left = gone.done()
            gone.cancel()
            if timer is not None:
                timer.cancel()
            self._opened.remove(self)
            self._reader.close()
            if left or self._translation.done:
                self._ended(self._complete)

    async def _write(self, send: Send) -> None:
        framing = self._manner.framing
        if framing.head:
            await send(_body(framing.head))
        found: LogRange | None = self._unwritten.popleft()
        while not self._stopped:
            data = framing.keep_alive if found is None else framing.join(self._translation.take(found))
            if self._translation.done:
                await self._close(send, data, found)
                return
            if data:
                await send(_body(data))
            found = self._unwritten.popleft() if self._unwritten else await self._next()
        if framing.on_loss == "break":
            raise BrokenOffError
        await send(_body(b"", more=False))

    async def _close(self, send: Send, data: bytes, found: LogRange | None) -> None:
        decision = None if found is None else found.decision
        if decision is not None and decision.state == "failed" and self._manner.breaks_on_failure:
            self._complete = not self._stopped
            await send(_body(data))
            await asyncio.sleep(BREAK_PAUSE_SECONDS)
            raise BrokenOffError
        self._complete = not self._stopped
        await send(_body(data + self._manner.framing.tail, more=False))

    async def _next(self) -> LogRange | None:
        """Read on; None after a silence, or if there is nothing to read any more."""
        try:
            async with asyncio.timeout(KEEP_ALIVE_SECONDS) as self._waiting:
                return await self._reader.next()
        except TimeoutError:
            return None
        except (BusError, ExpiredError) as error:
            logger.warning("a reader of reply %s is given up: %s", self._reader.message_id, error)
            self._stopped = True
            return None
        finally:
            self._waiting = None


def _body(data: bytes, *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}
