"""Runs one job: claim, stream, persist, finish."""

from __future__ import annotations

import asyncio
import enum
import functools
import logging
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec

from legato.worker.observability.counters import Counters
from legato.worker.store.conversations import ConversationDeniedError, RefusedError

from . import log_repair, reply
from .log import FencedError
from .stop import Control, StopReason
from .writer import ReplyWriter

if TYPE_CHECKING:
    from legato.protocol.redis.retry import Backend
    from legato.protocol.stream import Job
    from legato.worker.jobs.cancel import CancelFlags
    from legato.worker.store.conversations import Store

    from .log import Claim, MessageLog, TokenLog
    from .model import Model

log: Final = logging.getLogger("legato.worker")


class Outcome(enum.Enum):
    """What the consumer does with the job."""

    DONE = "done"
    EXHAUSTED = "exhausted"
    """Claimed too often."""
    UNSAVED = "unsaved"
    """Finished, but the database refuses its turns."""
    REQUEUED = "requeued"
    """Nothing was written: requeued as if new."""
    RELEASED = "released"
    """Tokens were written: another worker takes it over."""
    FENCED = "fenced"
    """Another worker has claimed it."""


@dataclass(frozen=True, kw_only=True)
class Runner:
    """Runs jobs. One per process.

    :param timeout: seconds that one claim may stream.
    """

    messages: TokenLog
    flags: CancelFlags
    store: Store
    model: Model
    redis: Backend
    database: Backend
    timeout: float
    counters: Counters = field(default_factory=Counters)

    async def run(self, job: Job, control: Control, ticket: str = "") -> Outcome:
        """Claim the job's message and finish it, or leave it so that another worker can continue.

        May be cancelled at any point: the request to the model is closed, and nothing more is written.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.timeout
        timer = loop.call_at(deadline, control.stop, StopReason.TIMEOUT)
        message = self.messages.open(job, secrets.token_hex(8), ticket)
        try:
            return await self._run(job, message, control, deadline)
        except FencedError:
            self.counters.fenced += 1
            log.warning("reply %s: stopped, another worker has it", job.message_id)
            return Outcome.FENCED
        finally:
            timer.cancel()

    async def _run(self, job: Job, message: MessageLog, control: Control, deadline: float) -> Outcome:
        claim = await self.redis.insist(message.claim)
        if claim.verdict == "finished":
            return Outcome.DONE
        texts = await self.redis.insist(message.texts) if claim.next else ()
        answer = reply.Reply(job, claim, model=self.model.provider.model, texts=texts)
        if claim.decision:  # an earlier claim decided: finish without asking the model
            answer.decision = reply.decode_decision(claim.decision)
            if answer.decision is None:
                answer.fail("internal")
        else:
            await self._decide(claim, answer, message, control, deadline)
        if answer.decision is None:
            return await self._release(answer, message)
        if not await self._finish(answer, answer.decision, message):
            return Outcome.UNSAVED
        exhausted = claim.verdict == "exhausted" and not claim.decision
        return Outcome.EXHAUSTED if exhausted else Outcome.DONE

    async def _decide(
        self, claim: Claim, answer: reply.Reply, message: MessageLog, control: Control, deadline: float
    ) -> None:
        """Decide how the reply ends, with the model if needed. ``decision`` stays None only when drained."""
        message_id = answer.job.message_id
        flagged = await self.redis.insist(lambda: self.flags.is_set(message_id))
        if claim.verdict == "cancelled" or flagged:
            answer.cancel()
        elif claim.verdict == "exhausted" or (claim.next and not self.model.continues):
            answer.fail("interrupted")
        else:
            await self._stream(answer, message, control, deadline)

    async def _stream(
        self, answer: reply.Reply, message: MessageLog, control: Control, deadline: float
    ) -> None:
        try:
            answer.job = await self._with_history(answer.job)
            await ReplyWriter(self.model, answer, message, self.redis, self.counters).run(control, deadline)
        except ConversationDeniedError:
            answer.fail("conversation_denied")
        except FencedError:
            raise
        except Exception:  # a fault of ours: readers must get a terminal event all the same
            log.exception("reply %s: failed by an internal error", answer.job.message_id)
            answer.truncate(message.next)
            answer.fail("internal")

    async def _with_history(self, job: Job) -> Job:
        """The job with the history of its conversation.

        :raises ConversationDeniedError: it is another user's.
        """
        history = await self.database.insist(lambda: self.store.history(job))
        return msgspec.structs.replace(job, history=history)

    async def _release(self, answer: reply.Reply, message: MessageLog) -> Outcome:
        released = await log_repair.insist(self.redis, message, answer, message.release)
        return Outcome.REQUEUED if released else Outcome.RELEASED

    async def _finish(self, answer: reply.Reply, decision: reply.Decision, message: MessageLog) -> bool:
        """Write the decision, persist, publish. After a crash in between, the next claim completes it.

        The terminal event is published even if persisting fails. Answers whether the turns are persisted.
        """
        marker = reply.encode_decision(decision)
        await log_repair.insist(self.redis, message, answer, lambda: message.decide(marker))
        saved = await self._save(answer, decision)
        decision = decision if saved else decision.unsaved()
        frame, error = answer.terminal(decision)
        finish = functools.partial(message.finish, decision.state, frame, error)
        await log_repair.insist(self.redis, message, answer, finish, marker)
        self.counters.end(decision)
        detail = f" ({decision.code or decision.stop_reason})" if decision.state != "cancelled" else ""
        log.info("reply %s: %s%s, %d tokens", answer.job.message_id, decision.state, detail, answer.next)
        return saved

    async def _save(self, answer: reply.Reply, decision: reply.Decision) -> bool:
        """Persist, however long it takes; False if it can never succeed."""
        job = answer.job
        try:
            await self.database.insist(lambda: self.store.save(job, answer.text, decision))
        except RefusedError as error:
            log.error("reply %s: refused by the database: %s", job.message_id, error)  # noqa: TRY400
        except Exception:  # a fault of ours: a retry would end the same way
            log.exception("reply %s: cannot be persisted", job.message_id)
        else:
            return True
        return False
