"""Handlers: replies written by the user's own code, an async generator of events.

After a crash the handler is called again, from its beginning. What it has yielded before is in the log: the
same events are recognised and dropped (:class:`Replay`), and the rest goes on behind them. So a handler must
yield the same again: whatever may differ, such as the answer of a service, goes through
:meth:`HandlerTurn.once`.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from legato.protocol import parts
from legato.protocol.stream import Usage
from legato.protocol.text import Joiner
from legato.worker.limits import (
    HANDLER_END_SECONDS,
    HANDLER_MAX_CHARACTERS,
    HANDLER_MAX_ONCE_BYTES,
    HANDLER_MAX_ONCE_KEY_CHARACTERS,
    HANDLER_MAX_PAUSES,
)
from legato.worker.providers import base

from .answer import StoredAnswer
from .containing import contained
from .shown import EVERYTHING, part_of
from .values import encode_json

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

    from legato.protocol.jobs import Job, Turn

log: Final = logging.getLogger("legato.worker")

Recorded = str | tuple[str, bytes]
"""What the log has: a text, or the kind and the JSON of another part."""


class HandlerError(Exception):
    """The handler has yielded what it must not. The reply fails with the code ``internal``."""


class Memory(Protocol):
    """The durable values of one reply."""

    async def recall(self, key: str) -> bytes | None:
        """The value; None if there is none yet."""

    async def remember(self, key: str, value: bytes) -> bytes:
        """Store the value, unless there is one. Answers the value that is stored."""


class Asker(Protocol):
    """The model of the settings."""

    def stream(self, request: base.ProviderRequest) -> AsyncGenerator[base.Event, None]:
        """The events of one request, with a Final; of text, only what comes behind ``so_far``.

        :raises ProviderError: the request has failed. The handler is called again if that may help.
        """


class HandlerTurn:
    """What a handler is called with.

    :ivar job: the job.
    :ivar message: the user's message.
    :ivar history: the turns before it, oldest first.
    :ivar attempt: counts from 1. More than 1: after a crash.
    :ivar usage: of all requests of :meth:`ask` so far.
    """

    def __init__(self, job: Job, attempt: int, memory: Memory, asker: Asker) -> None:
        self.job = job
        self.message = job.message
        self.history = job.history
        self._memory = memory
        self._asker = asker
        self.begin(Replay(()), attempt)

    def begin(self, replay: Replay, attempt: int) -> None:
        """The handler is called, perhaps again; ``replay`` follows what it yields."""
        self.attempt = attempt
        self.usage = Usage()
        self._replay = replay
        self._asked = 0
        self._end = base.Final("end_turn", self.usage)

    @property
    def stop_reason(self) -> str:
        """Of the last answer of :meth:`ask`: how the reply ends without a Final of the handler."""
        return self._end.stop_reason

    async def once(self, key: str, function: Callable[[], Awaitable[Any]]) -> Any:
        """The result of ``function()``, which is stored: a later call with this key does not call it again.

        After a crash in ``function`` itself it is called again: give services an idempotency key, such as
        ``f"{turn.job.message_id}:{key}"``.

        :param key: unique in the reply.
        :returns: the result as JSON has it: a tuple, for example, comes back as a list.
        :raises ValueError: the key is empty or too long, or the result too big or no JSON.
        """
        if not 1 <= len(key) <= HANDLER_MAX_ONCE_KEY_CHARACTERS:
            raise ValueError(f"key: expected 1 to {HANDLER_MAX_ONCE_KEY_CHARACTERS} characters")
        stored = await self._memory.recall(f"own:{key}")
        if stored is None:
            stored = await self._memory.remember(f"own:{key}", _encoded(await function()))
        return msgspec.json.decode(stored)

    async def ask(
        self,
        message: str | None = None,
        *,
        history: Sequence[Turn] | None = None,
        options: base.RequestOptions = base.PLAIN,
    ) -> AsyncGenerator[base.Event, None]:
        """Ask the model of the settings, and yield its Text, Reasoning and Citation.

        Yield these on as they come, and unchanged: after a crash the model goes on behind the text that
        readers have. An answer that has ended is stored, and the model is not asked for it again. Ask the
        same things in the same order. The options of the job come before ``options``.

        :param message: None: the user's, with its attachments.
        :param history: None: that of the conversation.
        """
        self._asked += 1
        key = f"ask:{self._asked}"
        request = base.ProviderRequest(
            self.message if message is None else message,
            self.history if history is None else tuple(history),
            attempt=self.attempt,
            options=options,
            message_id=self.job.message_id,
        )
        for number in range(HANDLER_MAX_PAUSES + 1):
            async with aclosing(self._answer(f"{key}.{number}" if number else key, request)) as events:
                async for event in events:
                    yield event
            end = self._end
            if end.stop_reason not in base.PAUSES or end.content is None:
                return
            request = request._replace(steps=(*request.steps, base.Step(end.content)))

    async def _answer(self, key: str, request: base.ProviderRequest) -> AsyncGenerator[base.Event, None]:
        """The answer to one request, stored by ``key``. Sets its end."""
        stored = await self._memory.recall(key)
        if stored is None:
            said, before = StoredAnswer(), self._replay.pending()
            for event in before:
                said.add(event)
                yield event
            so_far = "".join(event.text for event in before if isinstance(event, base.Text))
            async with aclosing(self._asker.stream(request._replace(so_far=so_far))) as events:
                async for event in events:
                    if said.add(event):
                        yield event
            await self._memory.remember(key, said.encode())
        else:
            said = StoredAnswer.decode(stored)
            for event in said.events:
                yield event
        assert said.end is not None  # noqa: S101 - the Asker's promise
        self._end = said.end
        self.usage = base.total(self.usage, said.end.usage)


def _encoded(value: Any) -> bytes:
    try:
        encoded = encode_json(value)
    except ValueError as error:
        raise ValueError(f"the result is no JSON: {error}") from None
    if len(encoded) > HANDLER_MAX_ONCE_BYTES:
        raise ValueError(f"the result has {len(encoded)} bytes, more than {HANDLER_MAX_ONCE_BYTES}")
    return encoded


class HandlerSource:
    """A handler as a provider: yields its events, without those that the log has already.

    :param recorded: answers what the log has of the reply.
    """

    model = "handler"

    def __init__(
        self,
        function: Callable[[HandlerTurn], AsyncGenerator[Any, None]],
        turn: HandlerTurn,
        recorded: Callable[[], Sequence[Recorded]],
    ) -> None:
        self._function = function
        self._turn = turn
        self._recorded = recorded

    async def stream(self, request: base.ProviderRequest) -> AsyncGenerator[base.Event, None]:
        """See :class:`legato.worker.providers.base.Provider`.

        :raises HandlerError: it yields what is no event, too much, something after its end, or not what it
            did before; or it raises what would end the process.
        """
        replay = Replay(self._recorded())
        self._turn.begin(replay, request.attempt)
        end: base.Final | None = None
        size = 0
        yield base.RequestAccepted(self.model)
        async with aclosing(_guarded(self._function(self._turn))) as events:
            async for event in events:
                if isinstance(event, base.Final):
                    end = _final(event)
                    await _ended(events)
                    break
                checked = _event(event)
                size += _size(checked)
                if size > HANDLER_MAX_CHARACTERS:
                    raise HandlerError(f"the handler yielded more than {HANDLER_MAX_CHARACTERS} characters")
                for new in replay.feed(checked):
                    yield new
        for new in replay.end():
            yield new
        yield end or base.Final(self._turn.stop_reason, self._turn.usage)

    async def aclose(self) -> None:
        """Does nothing: a handler has no connections of ours."""


async def _guarded(events: AsyncGenerator[Any, None]) -> AsyncGenerator[Any, None]:
    """The events. What would end the process, or look like a stop from outside, becomes a HandlerError."""
    try:
        while True:
            with contained("the handler", HandlerError):
                try:
                    event = await anext(events)
                except StopAsyncIteration:
                    return
            yield event
    finally:
        with contained("the handler", HandlerError):
            await events.aclose()


async def _ended(events: AsyncGenerator[Any, None]) -> None:
    """The handler has yielded its Final: wait until it has ended, not for ever.

    :raises HandlerError: it yields more.
    """
    try:
        async with asyncio.timeout(HANDLER_END_SECONDS) as limit:
            async for _ in events:
                raise HandlerError("the handler yielded something after its Final")
    except TimeoutError:
        if not limit.expired():
            raise
        log.warning("a handler did not end within %g s of its Final", HANDLER_END_SECONDS)


def _final(end: base.Final) -> base.Final:
    given: tuple[object, object] = (end.stop_reason, end.usage)  # users' code is not type-checked
    if isinstance(given[0], str) and isinstance(given[1], Usage):
        return end
    raise HandlerError("the handler yielded a Final without a stop reason and a Usage")


_EVENTS: Final = (base.Text, base.Reasoning, base.Citation, base.ServerToolCall, base.ServerToolResult)


def _event(yielded: object) -> base.Event:
    """The event. A plain string is text."""
    if isinstance(yielded, str):
        return base.Text(yielded)
    if isinstance(yielded, base.Text) and isinstance(yielded.text, str):
        return yielded
    if isinstance(yielded, _EVENTS[1:]):
        try:
            return msgspec.json.decode(encode_json(yielded), type=type(yielded))
        except (ValueError, RecursionError) as error:
            raise HandlerError(f"the handler yielded an invalid {type(yielded).__name__}: {error}") from None
    kinds = ", ".join(kind.__name__ for kind in _EVENTS)
    raise HandlerError(f"the handler yielded a {type(yielded).__name__}; expected a str, {kinds} or Final")


def _size(event: base.Event) -> int:
    return len(event.text) if isinstance(event, base.Text) else len(encode_json(event))


class Replay:
    """Drops the events that the log has already.

    :param recorded: what the log has, in order.
    """

    def __init__(self, recorded: Sequence[Recorded]) -> None:
        self._recorded = [one for one in recorded if one]
        self._next = 0
        self._position = 0
        self._joiner = Joiner()

    def feed(self, event: base.Event) -> list[base.Event]:
        """The part of the event that the log does not have: all, none, or the end of a text.

        :raises HandlerError: the log has something else.
        """
        if isinstance(event, base.Text):
            return self._new(self._joiner.feed(event.text))
        before = self._new(self._joiner.rest())
        part = part_of(event, EVERYTHING, {})
        if part is None or not self._replaying:
            return [*before, event]
        if self._recorded[self._next] != (part.kind, parts.encode(part)):
            raise HandlerError(f"after a crash the handler yielded another {part.kind} than before")
        self._next += 1
        return before

    def end(self) -> list[base.Event]:
        """The handler has ended. Answers what is left of its text.

        :raises HandlerError: the log has more.
        """
        rest = self._new(self._joiner.rest())
        if self._replaying:
            raise HandlerError("after a crash the handler ended before what it had yielded")
        return rest

    def pending(self) -> list[base.Event]:
        """What the log has of the answer that a model was giving when the last attempt broke off."""
        events: list[base.Event] = []
        for index in range(self._next, len(self._recorded)):
            recorded = self._recorded[index]
            if isinstance(recorded, str):
                events.append(base.Text(recorded[self._position :] if index == self._next else recorded))
            elif recorded[0] == parts.ReasoningReceived.kind:
                events.append(base.Reasoning(msgspec.json.decode(recorded[1])["delta"]))
            elif recorded[0] == parts.CitationReceived.kind:
                events.append(base.Citation(**msgspec.json.decode(recorded[1])))
            else:
                break
        return events

    def _new(self, text: str) -> list[base.Event]:
        rest = self._rest(text)
        return [base.Text(rest)] if rest else []

    @property
    def _replaying(self) -> bool:
        return self._next < len(self._recorded)

    def _rest(self, text: str) -> str:
        while text and self._replaying:
            recorded = self._recorded[self._next]
            if not isinstance(recorded, str):
                raise HandlerError("after a crash the handler yielded text where it had not")
            length = min(len(text), len(recorded) - self._position)
            if recorded[self._position : self._position + length] != text[:length]:
                raise HandlerError("after a crash the handler yielded another text than before")
            text = text[length:]
            self._position += length
            if self._position == len(recorded):
                self._next, self._position = self._next + 1, 0
        return text
