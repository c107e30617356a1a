"""Writes a reply's events to the log; continues after a failed request."""

from __future__ import annotations

import asyncio
import functools
import logging
import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from legato.worker.providers import base

from . import log_repair
from .log import NOTHING, Beside, GapError, Token
from .model import RetryDelays
from .model_request import ModelRequest
from .reply import encode_decision
from .stop import StopReason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from legato.protocol.redis.retry import Backend
    from legato.worker.observability.counters import Counters

    from .log import LogRecord, MessageLog
    from .model import Model
    from .model_request import Arrival
    from .reply import Reply
    from .stop import Control

log: Final = logging.getLogger("legato.worker")


@dataclass
class _Attempt:
    """What has happened in one attempt, which is one request or, as long as no text comes, several.

    :ivar retries_left: further requests that it may make.
    :ivar started: ``stream.started`` was told.
    :ivar has_text: text has arrived, so that no request is repeated any more.
    """

    retries_left: int
    started: bool = False
    has_text: bool = False
    delays: RetryDelays = field(default_factory=RetryDelays)


class ReplyWriter:
    """One reply under one claim, until it is decided how it ends.

    One append is in flight at a time; events that arrive meanwhile are written together by the next.
    """

    def __init__(
        self, model: Model, answer: Reply, message: MessageLog, redis: Backend, counters: Counters
    ) -> None:
        self._model = model
        self._answer = answer
        self._message = message
        self._redis = redis
        self._repeated: tuple[type[Exception], ...] = (*redis.down, GapError)
        self._counters = counters
        self._clock = asyncio.get_running_loop().time
        self._begun = self._clock()
        self._last_text: float | None = None
        self._delays = RetryDelays()
        self._attempt = self._new_attempt()

    def _new_attempt(self) -> _Attempt:
        self._counters.attempts += 1
        return _Attempt(self._model.policy.retries)

    async def run(self, control: Control, deadline: float) -> None:
        """Ask the model and write what it says, with as many requests as it takes.

        Leaves ``decision`` of the reply None only when drained.

        :param deadline: loop time by which a further request must have been sent.
        :raises FencedError: somebody else has the message.
        """
        await self._request(control, deadline)
        if self._answer.decision is None:
            decide_stopped(self._answer, control.reason)

    async def _request(self, control: Control, deadline: float) -> None:
        """Send a request, again as often as may be when it fails, and write what it brings."""
        delay: float | None = 0.0
        while delay is not None and (error := await self._ask(control, deadline, delay)):
            delay = self._delay_of_retry(error, deadline)
            if delay is None:
                delay = await self._continue_after(error, deadline)

    def _delay_of_retry(self, error: base.ProviderError, deadline: float) -> float | None:
        """Seconds after which to repeat the request; None if it is not to be repeated.

        It is repeated only while nothing of the reply has arrived.
        """
        attempt = self._attempt
        delay = attempt.delays.after(error)
        lasting = error.retry is base.Retry.NEVER
        if attempt.has_text or lasting or not attempt.retries_left or self._clock() + delay >= deadline:
            return None
        log.info("provider: %s (%s); repeating the request in %.1f s", error.code, error, delay)
        attempt.retries_left -= 1
        self._answer.next_request()
        return delay

    async def _continue_after(self, error: base.ProviderError, deadline: float) -> float | None:
        """Begin another attempt, which goes on from the text so far.

        Answers the seconds after which to send its request; None if the reply fails instead.
        """
        answer = self._answer
        self._counters.provider_errors[error.code] += 1
        log.warning("reply %s: %s: %s", answer.job.message_id, error.code, error)
        delay = self._delays.after(error)
        if not self._may_continue(error) or self._clock() + delay >= deadline:
            answer.fail(error.code)
            return None
        await self._claim_again()
        return delay

    def _may_continue(self, error: base.ProviderError) -> bool:
        """Whether there is text to go on from, and an attempt left."""
        answer, model = self._answer, self._model
        lasting = error.retry is base.Retry.NEVER
        return model.continues and not lasting and answer.next > 0 and answer.attempt < model.tries

    async def _claim_again(self) -> None:
        """Claim anew: that counts the attempt, and makes sure that the message is still ours."""
        token = secrets.token_hex(8)
        claim = await self._redis.insist(lambda: self._message.claim_again(token))
        if claim.next < self._answer.next:
            await log_repair.write_again(self._redis, self._message, self._answer, claim.next)
        self._answer.next_attempt(claim.attempt)
        self._attempt = self._new_attempt()
        self._counters.continued += 1
        written = self._answer.written
        log.info("reply %s: continuing from token %d", self._answer.job.message_id, written.tokens)

    async def _ask(self, control: Control, deadline: float, delay: float) -> base.ProviderError | None:
        """Send one request and write what it brings. Answers the error that ended it."""
        answer, self._last_text = self._answer, None
        request = ModelRequest(self._model, answer.request(), deadline=deadline, delay=delay)
        control.attach(request)
        try:
            while answer.decision is None and (arrivals := await request.take()):
                if await self._write(arrivals):
                    control.stop(StopReason.CANCELLED)
        except base.ProviderError as error:
            return error
        finally:
            request.stop()  # whoever has the control waits for it to close; the end of the reply does not
        return None

    async def _write(self, arrivals: Sequence[Arrival]) -> bool:
        """Write what has arrived to the log. Answers whether somebody asked to cancel."""
        answer, frame, begun, used = self._answer, b"", b"", False
        tokens: list[LogRecord] = []
        for at, event in arrivals:
            if isinstance(event, base.Text):
                self._text_arrived(at)
                tokens += answer.tokens(event.text)
            elif isinstance(event, base.RequestAccepted):
                if not self._attempt.started:
                    frame, begun = self._started(event)
            elif isinstance(event, base.Used):
                answer.used(event)
                used = True
            elif isinstance(event, base.Final):
                tokens += answer.rest()
                tokens += self._end(event)
                used = used or answer.decision is None
                break  # what comes after the model's end does not belong to the reply
            else:
                tokens += answer.part(event)
        # The decision has the usage, too.
        usage = answer.encoded_usage() if used and answer.decision is None else b""
        if tokens:
            decision = encode_decision(answer.decision) if answer.decision is not None else b""
            return await self._append(tokens, arrivals[0][0], Beside(frame, usage, decision, begun))
        if frame or usage:
            await self._redis.insist(lambda: self._message.publish(frame, usage, begun))
        return False

    def _end(self, event: base.Final) -> Sequence[LogRecord]:
        """The model has ended its request. Answers what is to be written of that."""
        self._answer.final(event)
        return ()

    def _started(self, event: base.RequestAccepted) -> tuple[bytes, bytes]:
        """The frame of ``stream.started``, and how the reply has begun. Once per attempt."""
        self._attempt.started = True
        frame = self._answer.started(event)
        return frame, self._answer.begun(self._model.provider_name, time.time())

    async def _append(self, tokens: list[LogRecord], oldest: float, beside: Beside = NOTHING) -> bool:
        """Append the tokens, as often as it takes. Answers whether somebody asked to cancel."""
        try:
            cancel = await self._message.append(tokens, beside)
            self._redis.answered()
        except self._repeated as error:
            cancel = await self._append_again(tokens, beside, error)
        counters, now = self._counters, self._clock()
        counters.tokens += len(tokens) if self._answer.written.plain else sum(map(_is_text, tokens))
        counters.latencies.publish_delay.observe(now - oldest)
        if tokens[0].index == 0:
            counters.latencies.first_token.observe(now - self._begun)
        return cancel

    async def _append_again(self, tokens: list[LogRecord], beside: Beside, error: Exception) -> bool:
        if isinstance(error, GapError):
            await log_repair.close_gap(self._redis, self._message, self._answer, error)
        else:
            self._redis.failed(error)
        append = functools.partial(self._message.append, tokens, beside)
        return await log_repair.insist(self._redis, self._message, self._answer, append)

    def _text_arrived(self, at: float) -> None:
        if self._last_text is None:
            self._attempt.has_text = True
        else:
            self._counters.latencies.token_gap.observe(at - self._last_text)
        self._last_text = at


def _is_text(entry: LogRecord) -> bool:
    return isinstance(entry, Token) or not entry.kind


def decide_stopped(answer: Reply, reason: StopReason | None) -> None:
    """Decide how a reply ends that was stopped from outside. Not at all, if it was drained."""
    if reason is StopReason.CANCELLED:
        answer.cancel()
    elif reason is StopReason.TIMEOUT:
        answer.fail("timeout")
