"""One job's way, from the claim to its end."""

from __future__ import annotations

import asyncio
import enum
import functools
import logging
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec

from legato.worker.observability.counters import Figures
from legato.worker.store.conversations import ConversationDeniedError, RefusedError

from . import log_repair, reply
from .log import FencedError
from .stop import Control, Stop
from .streaming import Streaming

if TYPE_CHECKING:
    from legato.protocol.stream import Job
    from legato.worker.jobs.cancel import CancelFlags
    from legato.worker.providers.backoff import Backend
    from legato.worker.store.conversations import Store

    from .log import Claim, MessageLog, TokenLog
    from .model import Model

log: Final = logging.getLogger("legato.worker")


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
    model: Model
    redis: Backend
    database: Backend
    timeout: float
    figures: Figures = field(default_factory=Figures)

    async def run(self, job: Job, control: Control, ticket: str = "") -> Outcome:
        """Claim the job's message and bring it to an end, or to where another worker can go on.

        May be cancelled at any point: then the request to the model is closed, and nothing more is written.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.timeout
        timer = loop.call_at(deadline, control.stop, Stop.TIMEOUT)
        message = self.messages.open(job, secrets.token_hex(8), ticket)
        try:
            return await self._run(job, message, control, deadline)
        except FencedError:
            self.figures.fenced += 1
            log.warning("reply %s: another worker has it, stopped", job.message_id)
            return Outcome.FENCED
        finally:
            timer.cancel()

    async def _run(self, job: Job, message: MessageLog, control: Control, deadline: float) -> Outcome:
        claim = await self.redis.insist(message.claim)
        if claim.verdict == "finished":
            return Outcome.DONE
        texts = await self.redis.insist(message.texts) if claim.next else ()
        answer = reply.Reply(job, claim, model=self.model.provider.model, texts=texts)
        if claim.decision:  # the one before came this far: carry it out without asking the model
            answer.decision = reply.decode_decision(claim.decision)
            if answer.decision is None:
                answer.fail("internal")
        else:
            await self._decide(claim, answer, message, control, deadline)
        if answer.decision is None:
            return await self._hand_over(answer, message)
        if not await self._finish(answer, answer.decision, message):
            return Outcome.UNSAVED
        given_up = claim.verdict == "exhausted" and not claim.decision
        return Outcome.GIVEN_UP if given_up else Outcome.DONE

    async def _decide(
        self, claim: Claim, answer: reply.Reply, message: MessageLog, control: Control, deadline: float
    ) -> None:
        """Come to the reply's end, asking the model if need be. ``decision`` stays None only when drained."""
        message_id = answer.job.message_id
        flagged = await self.redis.insist(lambda: self.flags.is_set(message_id))
        if claim.verdict == "cancelled" or flagged:
            answer.cancel()
        elif claim.verdict == "exhausted" or (claim.next and not self.model.goes_on):
            answer.fail("interrupted")
        else:
            await self._stream(answer, message, control, deadline)

    async def _stream(
        self, answer: reply.Reply, message: MessageLog, control: Control, deadline: float
    ) -> None:
        try:
            answer.job = await self._with_history(answer.job)
            await Streaming(self.model, answer, message, self.redis, self.figures).run(control, deadline)
        except ConversationDeniedError:
            answer.fail("conversation_denied")
        except FencedError:
            raise
        except Exception:  # a fault of ours: whoever waits for the reply must hear of its end all the same
            log.exception("reply %s: broke off", answer.job.message_id)
            answer.keep(message.next)
            answer.fail("internal")

    async def _with_history(self, job: Job) -> Job:
        """The job with what the model is told of its conversation.

        :raises ConversationDeniedError: it is another user's.
        """
        history = await self.database.insist(lambda: self.store.history(job))
        return msgspec.structs.replace(job, history=history)

    async def _hand_over(self, answer: reply.Reply, message: MessageLog) -> Outcome:
        released = await log_repair.insist(self.redis, message, answer, message.release)
        return Outcome.HANDED_BACK if released else Outcome.LEFT

    async def _finish(self, answer: reply.Reply, decision: reply.Decision, message: MessageLog) -> bool:
        """Decide, persist, tell: a crash in between leaves what the next claim completes.

        Whatever becomes of persisting, it is told. Answers whether the turns are persisted.
        """
        marker = reply.encode_decision(decision)
        await log_repair.insist(self.redis, message, answer, lambda: message.decide(marker))
        saved = await self._save(answer, decision)
        decision = decision if saved else decision.unsaved()
        frame, error = answer.terminal(decision)
        finish = functools.partial(message.finish, decision.state, frame, error)
        await log_repair.insist(self.redis, message, answer, finish, marker)
        self.figures.end(decision)
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
