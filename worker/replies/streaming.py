"""One reply on its way from the model to the log, and on again where it was cut off."""

from __future__ import annotations

import asyncio
import functools
import logging
import secrets
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from legato.worker.providers import base
from legato.worker.providers.circuit_breaker import OPEN

from . import log_repair as whole
from . import pump
from .attempts import Waits, attempt
from .stop import Stop

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from legato.protocol.redis.retry import Backend
    from legato.worker.observability.counters import Figures
    from legato.worker.providers.circuit_breaker import Gate

    from .attempts import Policy
    from .log import MessageLog, Token
    from .reply import Reply
    from .stop import Control

log: Final = logging.getLogger("legato.worker")


@dataclass(frozen=True, kw_only=True)
class Model:
    """Who is asked, and how. One per process.

    :param tries: attempts at one reply, those of other workers included.
    :param goes_on: whether a reply that was cut off goes on; else it fails.
    """

    provider: base.Provider
    policy: Policy
    tries: int
    goes_on: bool = True
    gate: Gate = OPEN


class Streaming:
    """One reply under one claim, until it is decided how it ends."""

    def __init__(
        self, model: Model, answer: Reply, message: MessageLog, redis: Backend, figures: Figures
    ) -> None:
        self._model = model
        self._answer = answer
        self._message = message
        self._redis = redis
        self._figures = figures
        self._clock = asyncio.get_running_loop().time
        self._waits = Waits()
        self._begun = self._clock()
        self._last_text: float | None = None

    async def run(self, control: Control, deadline: float) -> None:
        """Ask the model and write what it says, in as many attempts as it takes.

        Leaves ``decision`` of the reply None only when drained.

        :param deadline: time of the running loop by which a further attempt must have begun.
        :raises FencedError: somebody else has the message.
        """
        wait = 0.0
        while error := await self._attempt(control, deadline, wait):
            if control.reason is not None:
                break
            wait = self._waits.after(error)
            if not self._may_go_on(error) or self._clock() + wait >= deadline:
                self._answer.fail(error.code)
                return
            await self._begin_again()
        if self._answer.decision is None:
            _decide_stopped(self._answer, control.reason)

    def _may_go_on(self, error: base.ProviderError) -> bool:
        """Whether there is something to go on from, and a try left."""
        answer, model = self._answer, self._model
        lasting = error.retry is base.Retry.NEVER
        return model.goes_on and not lasting and answer.next > 0 and answer.attempt < model.tries

    async def _begin_again(self) -> None:
        """Claim anew: that counts the attempt, and makes sure that the message is still ours."""
        token = secrets.token_hex(8)
        claim = await self._redis.insist(lambda: self._message.claim_again(token))
        if claim.next < self._answer.next:
            await whole.write_again(self._redis, self._message, self._answer, claim.next)
        self._answer.begin_again(claim.attempt)
        self._figures.continued += 1
        log.info("reply %s: goes on from token %d", self._answer.job.message_id, self._answer.next)

    async def _attempt(self, control: Control, deadline: float, wait: float) -> base.ProviderError | None:
        """Ask once. Answers what cut the answer off."""
        self._figures.attempts += 1
        self._last_text = None
        source = pump.Pump(self._events(deadline, wait))
        control.asks(source)
        try:
            while self._answer.decision is None and (arrivals := await source.take()):
                if await self._write(arrivals):
                    control.stop(Stop.CANCELLED)
        except base.ProviderError as error:
            self._figures.provider_errors[error.code] += 1
            log.warning("reply %s: %s: %s", self._answer.job.message_id, error.code, error)
            return error
        finally:
            source.stop()  # the end is told whether it closes or not: whoever has the control waits for that
        return None

    async def _events(self, deadline: float, wait: float) -> AsyncGenerator[base.Event, None]:
        await asyncio.sleep(wait)
        model, request = self._model, self._answer.request()
        events = attempt(model.provider, request, model.policy, deadline, model.gate)
        async with aclosing(events):
            async for event in events:
                yield event

    async def _write(self, arrivals: Sequence[pump.Arrival]) -> bool:
        """Take what the model has said over into the log. Answers whether somebody asked to cancel."""
        answer, frame, used = self._answer, b"", False
        tokens: list[Token] = []
        for at, event in arrivals:
            match event:
                case base.Text():
                    self._count_gap(at)
                    tokens += answer.tokens(event)
                case base.Started():
                    frame = answer.started(event)
                case base.Used():
                    answer.used(event)
                    used = True
                case base.Final():
                    tokens += answer.rest()
                    answer.final(event)
                    break  # what comes behind the end is not of the reply
        if frame or used:
            usage = answer.encoded_usage() if used else b""
            await self._redis.insist(lambda: self._message.tell(frame, usage))
        return bool(tokens) and await self._append(tokens, arrivals[0].at)

    async def _append(self, tokens: list[Token], oldest: float) -> bool:
        append = functools.partial(self._message.append, tokens)
        cancel = await whole.insist(self._redis, self._message, self._answer, append)
        now = self._clock()
        self._figures.tokens += len(tokens)
        self._figures.publish_delay.observe(now - oldest)
        if tokens[0].index == 0:
            self._figures.first_token.observe(now - self._begun)
        return cancel

    def _count_gap(self, at: float) -> None:
        if self._last_text is not None:
            self._figures.token_gap.observe(at - self._last_text)
        self._last_text = at


def _decide_stopped(answer: Reply, reason: Stop | None) -> None:
    if reason is Stop.CANCELLED:
        answer.cancel()
    elif reason is Stop.TIMEOUT:
        answer.fail("timeout")
