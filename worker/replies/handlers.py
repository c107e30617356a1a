"""Who answers a job: the plain model, an agent, or a handler; and a handler in place of the model."""

from __future__ import annotations

import dataclasses
import math
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

from legato.protocol.text import Joiner
from legato.worker.agents.handler import HandlerError, HandlerSource, HandlerTurn
from legato.worker.agents.loading import DEFAULT
from legato.worker.limits import HANDLER_SILENCE_SECONDS
from legato.worker.providers import base
from legato.worker.providers.circuit_breaker import ALWAYS_CLOSED, admitted

from . import overlap
from .options import overlay, with_options

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from legato.protocol.jobs import Job
    from legato.protocol.redis.retry import Backend
    from legato.worker.agents.handler import Recorded
    from legato.worker.agents.loading import Answerer, HandlerFunction

    from .log import MessageLog
    from .model import Model
    from .reply import Reply


_PATIENT: Final = base.Patience(HANDLER_SILENCE_SECONDS, HANDLER_SILENCE_SECONDS)


class UnknownAgentError(Exception):
    """The job names an agent that this worker does not have."""


def answerer_of(job: Job, agents: Mapping[str, Answerer]) -> Answerer | None:
    """Who answers the job; None for the plain model.

    :raises UnknownAgentError: there is none of that name.
    """
    name = job.agent or DEFAULT
    found = agents.get(name)
    if found is None and name != DEFAULT:
        raise UnknownAgentError(f"there is no agent {name}")
    return found


class ReplyMemory:
    """The durable values of one reply, for :meth:`.HandlerTurn.once`."""

    def __init__(self, message: MessageLog, redis: Backend) -> None:
        self._message = message
        self._redis = redis

    async def recall(self, key: str) -> bytes | None:
        """See :class:`legato.worker.agents.handler.Memory`."""
        return await self._redis.insist(lambda: self._message.recall(key))

    async def remember(self, key: str, value: bytes) -> bytes:
        """See :class:`legato.worker.agents.handler.Memory`."""
        return await self._redis.insist(lambda: self._message.remember(key, value))


class ContinuingModel:
    """The model, asked by a handler: goes on behind the text that it has said before.

    :param job: its options go with each request, its attachments with those that have its message.
    """

    def __init__(self, model: Model, job: Job | None = None) -> None:
        self._model = model
        self._job = job

    async def stream(self, request: base.ProviderRequest) -> AsyncGenerator[base.Event, None]:
        """See :class:`legato.worker.agents.handler.Asker`.

        :raises HandlerError: the request has what the provider would ignore.
        """
        job = self._job
        if job is not None and request.message == job.message:
            request = with_options(request, job)
        elif job is not None:
            request = request._replace(options=overlay(request.options, job))
        options = request.options
        if (options.server_tools or options.mcp_servers) and not base.takes_server_tools(
            self._model.provider
        ):
            raise HandlerError("the handler asks for server tools; this provider takes none")
        request = request._replace(continuation=overlap.continuation(request.so_far))
        async with (
            admitted(self._model.breaker, math.inf) as is_probe,
            aclosing(self._model.provider.stream(request)) as events,
        ):
            probe = is_probe
            async for event in _behind(request.so_far, events):
                if probe:
                    probe = False
                    await self._model.breaker.succeeded()
                yield event


async def _behind(before: str, events: AsyncGenerator[base.Event, None]) -> AsyncGenerator[base.Event, None]:
    """The events, without text that only repeats the end of ``before``.

    :raises CutError: they have no end.
    """
    overlaps, joiner, ended = overlap.OverlapFilter(before), Joiner(), False
    async for event in events:
        if isinstance(event, base.Text):
            if piece := overlaps.feed(joiner.feed(event.text)):
                yield base.Text(piece)
            continue
        if isinstance(event, base.Final):
            ended = True
            if rest := overlaps.feed(joiner.rest()) + overlaps.rest():
                yield base.Text(rest)
        yield event
    if not ended:
        raise base.CutError("the stream ended without an end")


def handler_model(
    handler: HandlerFunction, model: Model, answer: Reply, message: MessageLog, redis: Backend
) -> Model:
    """The handler in place of the model. Makes ``answer`` its reply."""
    answer.follow_exactly()
    memory = ReplyMemory(message, redis)
    turn = HandlerTurn(answer.job, answer.attempt, memory, ContinuingModel(model, answer.job))
    source = HandlerSource(handler, turn, lambda: _recorded(answer))
    policy = model.policy._replace(patience=_PATIENT)
    return dataclasses.replace(model, provider=source, policy=policy, breaker=ALWAYS_CLOSED)


def _recorded(answer: Reply) -> list[Recorded]:
    return [entry if isinstance(entry, str) else (entry.kind, entry.data) for entry in answer.written.entries]
