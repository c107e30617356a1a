"""One job's way, from the claim to its end."""

from __future__ import annotations

import asyncio
import enum
import logging
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from . import pump, reply
from .attempts import attempts
from .providers import base
from .store import RefusedError
from .token_log import FencedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from protocol.stream import Job

    from .attempts import Policy
    from .backoff import Backend
    from .cancels import CancelFlags
    from .store import Store
    from .token_log import Claim, MessageLog, Token, TokenLog

log: Final = logging.getLogger("legato.worker")


class Stop(enum.Enum):
    """Why a reply is stopped from outside."""

    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    DRAIN = "drain"


class Control:
    """Stops one reply from outside. The first reason stands."""

    def __init__(self) -> None:
        self.reason: Stop | None = None
        self._close: Callable[[], None] | None = None

    def stop(self, reason: Stop) -> None:
        """Close the request to the model now; the reply ends as ``reason`` says."""
        if self.reason is None:
            self.reason = reason
            if self._close is not None:
                self._close()

    def closes(self, close: Callable[[], None]) -> None:
        """From now on, stopping calls ``close``; at once if it has been stopped already."""
        self._close = close
        if self.reason is not None:
            close()


class Outcome(enum.Enum):
    """What is to happen to the job."""

    DONE = "done"
    GIVEN_UP = "given up"
    UNSAVED = "unsaved"
    """Ended, but its turns are not in the database and never will be."""
    HANDED_BACK = "handed back"
    """Untouched: any worker may have it, as if new."""
    LEFT = "left"
    """Begun: another worker shall take it over."""
    FENCED = "fenced"
    """Another worker has it."""


@dataclass(frozen=True, kw_only=True)
class Runner:
    """Answers messages. One per process.

    :param timeout: seconds that one claim may stream.
    """

    messages: TokenLog
    flags: CancelFlags
    store: Store
    provider: base.Provider
    policy: Policy
    redis: Backend
    database: Backend
    timeout: float

    async def run(self, job: Job, control: Control) -> Outcome:
        """Claim the job's message and bring it to an end, or to where another worker can go on.

        May be cancelled at any point: then the request to the model is closed, and nothing more is written.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.timeout
        timer = loop.call_at(deadline, control.stop, Stop.TIMEOUT)
        message = self.messages.open(job, secrets.token_hex(8))
        try:
            return await self._run(job, message, control, deadline)
        except FencedError:
            log.warning("reply %s: another worker has it, stopped", job.message_id)
            return Outcome.FENCED
        finally:
            timer.cancel()

    async def _run(self, job: Job, message: MessageLog, control: Control, deadline: float) -> Outcome:
        claim = await self.redis.insist(message.claim)
        if claim.verdict == "finished":
            return Outcome.DONE
        text = await self.redis.insist(message.text) if claim.next else ""
        answer = reply.Reply(
            job, attempt=claim.attempt, model=self.provider.model, next_=claim.next, text=text
        )
        if claim.decision:  # the one before came this far: carry it out without asking the model
            answer.decision = reply.decode_decision(claim.decision)
        elif not await self._decided_by_claim(claim, answer):
            await self._stream(answer, message, control, deadline)
        if answer.decision is None:
            return await self._hand_over(message)
        if not await self._finish(answer, answer.decision, message):
            return Outcome.UNSAVED
        given_up = claim.verdict == "exhausted" and not claim.decision
        return Outcome.GIVEN_UP if given_up else Outcome.DONE

    async def _decided_by_claim(self, claim: Claim, answer: reply.Reply) -> bool:
        """Whether the reply ends before the model is asked."""
        message_id = answer.job.message_id
        flagged = await self.redis.insist(lambda: self.flags.those_set([message_id]))
        if claim.verdict == "cancelled" or flagged:
            answer.cancel()
        elif claim.verdict == "exhausted":
            answer.fail("interrupted")
        elif claim.next:
            # The seam: here the text so far would go back to the model, to continue at index `next`.
            answer.fail("interrupted")
        return answer.decision is not None

    async def _stream(
        self, answer: reply.Reply, message: MessageLog, control: Control, deadline: float
    ) -> None:
        """Ask the model and write what it says. Leaves ``decision`` None only when drained."""
        request = base.Request(answer.job.message, answer.job.history)
        source = pump.Pump(attempts(self.provider, request, self.policy, deadline))
        control.closes(source.stop)
        try:
            while answer.decision is None and (events := await source.take()):
                await self._write(events, answer, message, control)
        except base.ProviderError as error:
            log.warning("reply %s: %s: %s", answer.job.message_id, error.code, error)
            answer.fail(error.code)
        except FencedError:
            raise
        except Exception:  # a fault of ours: whoever waits for the reply must hear of its end all the same
            log.exception("reply %s: broke off", answer.job.message_id)
            answer.fail("internal")
        finally:
            await source.aclose()
        if answer.decision is None:
            _decide_stopped(answer, control.reason)

    async def _write(
        self, events: Sequence[base.Event], answer: reply.Reply, message: MessageLog, control: Control
    ) -> None:
        tokens: list[Token] = []
        for event in events:
            match event:
                case base.Started():
                    await self._insist(message.publish, answer.started(event))
                case base.Text():
                    tokens += answer.tokens(event)
                case base.Final():
                    answer.final(event)
        if tokens:
            cancel = await self.redis.insist(lambda: message.append(tokens))
            if cancel:
                control.stop(Stop.CANCELLED)

    async def _insist(self, write: Callable[[bytes], Awaitable[None]], value: bytes) -> None:
        await self.redis.insist(lambda: write(value))

    async def _hand_over(self, message: MessageLog) -> Outcome:
        released = await self.redis.insist(message.release)
        return Outcome.HANDED_BACK if released else Outcome.LEFT

    async def _finish(self, answer: reply.Reply, decision: reply.Decision, message: MessageLog) -> bool:
        """Decide, persist, tell: a crash in between leaves what the next claim completes.

        Whatever becomes of persisting, it is told. Answers whether the turns are persisted.
        """
        await self._insist(message.decide, reply.encode_decision(decision))
        saved = await self._save(answer, decision)
        decision = decision if saved else decision.unsaved()
        frame, error = answer.terminal(decision)
        await self.redis.insist(lambda: message.finish(decision.state, frame, error))
        detail = f" ({decision.code or decision.stop_reason})" if decision.state != "cancelled" else ""
        log.info("reply %s: %s%s, %d tokens", answer.job.message_id, decision.state, detail, answer.next)
        return saved

    async def _save(self, answer: reply.Reply, decision: reply.Decision) -> bool:
        """Persist, as long as it takes; False for what can never be persisted."""
        job = answer.job
        try:
            await self.database.insist(lambda: self.store.save(job, answer.text, decision))
        except RefusedError as error:
            log.error("reply %s: the database does not take it: %s", job.message_id, error)  # noqa: TRY400
        except Exception:  # a fault of ours: tried again it would be the same
            log.exception("reply %s: cannot be persisted", job.message_id)
        else:
            return True
        return False


def _decide_stopped(answer: reply.Reply, reason: Stop | None) -> None:
    match reason:
        case Stop.CANCELLED:
            answer.cancel()
        case Stop.TIMEOUT:
            answer.fail("timeout")
        case None:
            answer.fail("interrupted")  # the provider ended without its Final
        case Stop.DRAIN:
            pass
