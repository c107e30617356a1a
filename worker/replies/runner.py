"""Runs one job: claim, stream, persist, finish."""

from __future__ import annotations

import asyncio
import enum
import functools
import logging
import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from legato.worker.agents.agent import Agent
from legato.worker.observability.counters import Counters
from legato.worker.store.conversations import (
    ConversationDeniedError,
    DatabaseRefusedError,
    UnknownParentError,
)

from . import log_repair, reply
from .agent_writer import AgentWriter
from .dialect import begun_in_dialect
from .handlers import UnknownAgentError, answerer_of, handler_model
from .log import FencedError
from .steps import Steps
from .stop import Control, StopReason
from .writer import ReplyWriter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from legato.protocol.jobs import Job
    from legato.protocol.redis.retry import Backend
    from legato.worker.agents.loading import Answerer
    from legato.worker.jobs.cancel import CancelFlags
    from legato.worker.store.conversations import NewTitle, Store

    from .agent_writer import Parking
    from .batch import SharedCall
    from .log import Claim, MessageLog, StoredLog, TokenLog
    from .model import Model
    from .titles import Titles

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
    WAITING = "waiting"
    """Parked: it is queued again when an approval is decided."""


class NotParking:
    """Where no job can be parked: an agent's reply that needs an approval is not for here."""

    queue = ""

    async def begin(self, _deadline_ms: int) -> None:
        """Fails."""
        raise NotImplementedError("no queue to park the job in")

    async def end(self) -> None:
        """Does nothing."""


NOT_PARKING: Final = NotParking()


class _Run(NamedTuple):
    """One job under one claim.

    :ivar deadline: loop time at which it times out.
    :ivar asked: whether its cancel flags are set, asked in the round trip of the claim.
    """

    job: Job
    message: MessageLog
    control: Control
    deadline: float
    parking: Parking
    asked: Sequence[SharedCall]


@dataclass(frozen=True, kw_only=True)
class Runner:
    """Runs jobs. One per process.

    :param timeout: seconds that one claim may stream.
    :param titles: hears of conversations that have got a title.
    :param agents: by name; ``default`` is for jobs that name none. Without it, those get the plain model.
    """

    messages: TokenLog
    flags: CancelFlags
    store: Store
    model: Model
    redis: Backend
    database: Backend
    timeout: float
    agents: Mapping[str, Answerer] = field(default_factory=dict)
    counters: Counters = field(default_factory=Counters)
    titles: Titles | None = None

    async def aclose(self) -> None:
        """End what runs beside the replies."""
        if self.titles is not None:
            await self.titles.aclose()

    async def run(
        self, job: Job, control: Control, ticket: str = "", parking: Parking = NOT_PARKING
    ) -> Outcome:
        """Claim the job's message and finish it, or leave it so that another worker can continue.

        May be cancelled at any point: the request to the model is closed, and nothing more is written.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.timeout
        timer = loop.call_at(deadline, control.stop, StopReason.TIMEOUT)
        message = self.messages.open(job, secrets.token_hex(8), ticket)
        try:
            asked = self.flags.ask(job.message_id)
            return await self._run(_Run(job, message, control, deadline, parking, asked))
        except FencedError:
            self.counters.handovers.fenced += 1
            log.warning("reply %s: stopped, another worker has it", job.message_id)
            return Outcome.FENCED
        finally:
            timer.cancel()

    async def _run(self, run: _Run) -> Outcome:
        message = run.message
        claim = await self.redis.insist(message.claim)
        if claim.verdict == "finished":
            return Outcome.DONE
        stored = await self.redis.insist(message.read) if claim.next else None
        model, begun = self.model.provider.model, b""
        if run.job.dialect:
            now = begun_in_dialect(run.job, model, self.model.provider_name, time.time())
            begun = await self.redis.insist(lambda: message.begin(now))
        answer = reply.Reply(run.job, claim, model=model, log=stored, begun=begun)
        if claim.decision:  # an earlier claim decided: finish without asking the model
            answer.decision = reply.decode_decision(claim.decision)
            if answer.decision is None:
                answer.fail("internal")
        else:
            await self._decide(claim, answer, run, stored)
        if answer.decision is None:
            return await self._leave(answer, message)
        saved = await self._finish(answer, answer.decision, run)
        if answer.written.asks:  # not before the end: another claim might have parked it by then
            await self.redis.insist(run.parking.end)
        if not saved:
            return Outcome.UNSAVED
        exhausted = claim.verdict == "exhausted" and not claim.decision
        return Outcome.EXHAUSTED if exhausted else Outcome.DONE

    async def _decide(self, claim: Claim, answer: reply.Reply, run: _Run, stored: StoredLog | None) -> None:
        """Decide how the reply ends, with the model if needed.

        ``decision`` stays None only when the reply is drained or parked.
        """
        interrupted = claim.next and not claim.resumed
        if claim.verdict == "cancelled" or await self._is_flagged(run):
            answer.cancel()
        elif claim.verdict == "exhausted" or (interrupted and not self.model.continues):
            answer.fail("interrupted")
        else:
            await self._stream(answer, run, stored)

    async def _is_flagged(self, run: _Run) -> bool:
        """Whether a cancel was requested by now."""
        message_id = run.job.message_id
        try:
            return await self.flags.is_set(message_id, run.asked)
        except self.redis.down:
            return await self.redis.insist(lambda: self.flags.is_set(message_id))

    async def _stream(self, answer: reply.Reply, run: _Run, stored: StoredLog | None) -> None:
        try:
            job = answer.job
            answer.job = await self.database.insist(lambda: self.store.with_history(job))
            writer = await self._writer(answer, run, stored)
            await writer.run(run.control, run.deadline)
        except ConversationDeniedError:
            answer.fail("conversation_denied")
        except UnknownParentError:
            answer.fail("unknown_parent")
        except UnknownAgentError as error:
            log.warning("reply %s: %s", answer.job.message_id, error)
            answer.fail("unknown_agent")
        except FencedError:
            raise
        except Exception:  # a fault of ours or of an agent: readers must get a terminal event all the same
            log.exception("reply %s: failed by an internal error", answer.job.message_id)
            answer.written.truncate(run.message.next)
            answer.fail("internal")

    async def _writer(self, answer: reply.Reply, run: _Run, stored: StoredLog | None) -> ReplyWriter:
        """What writes the reply: for an agent, for a handler, or for the plain model.

        :raises UnknownAgentError: the job names an agent that this worker does not have.
        """
        agent = answerer_of(answer.job, self.agents)
        common = (answer, run.message, self.redis, self.counters)
        if isinstance(agent, Agent):
            steps = Steps(agent, stored)
            answer.use(steps, await agent.options(answer.job))
            return AgentWriter(self.model, *common, steps=steps, parking=run.parking)
        if agent is None:
            if not answer.written.plain:
                raise UnknownAgentError("the agent that has begun the reply is gone")
            return ReplyWriter(self.model, *common)
        return ReplyWriter(handler_model(agent, self.model, answer, run.message, self.redis), *common)

    async def _leave(self, answer: reply.Reply, message: MessageLog) -> Outcome:
        """Leave a reply that has not ended."""
        if answer.steps is not None and answer.steps.parked:
            self.counters.parked += 1
            return Outcome.WAITING
        released = await log_repair.insist(self.redis, message, answer, message.release)
        return Outcome.REQUEUED if released else Outcome.RELEASED

    async def _finish(self, answer: reply.Reply, decision: reply.Decision, run: _Run) -> bool:
        """Write the decision, persist, publish. After a crash in between, the next claim completes it.

        The terminal event is published even if persisting fails. Answers whether the turns are persisted.
        """
        message, marker = run.message, reply.encode_decision(decision)
        await log_repair.insist(self.redis, message, answer, lambda: message.decide(marker))
        saved, title = await self._save(answer, decision)
        decision = decision if saved else decision.unsaved()
        frame, error = answer.terminal(decision)
        finish = functools.partial(message.finish, decision.state, frame, error)
        await log_repair.insist(self.redis, message, answer, finish, marker)
        self.counters.end(decision)
        if title is not None and self.titles is not None:
            self.titles.made(answer.job, answer.text, title)
        self._tell_end(answer, decision, run)
        return saved

    def _tell_end(self, answer: reply.Reply, decision: reply.Decision, run: _Run) -> None:
        """Log how the reply has ended. The seconds are those of this claim."""
        fields = {
            "reply": answer.job.message_id,
            "state": decision.state,
            "code": decision.code or decision.stop_reason if decision.state != "cancelled" else "",
            "tokens": answer.written.tokens,
            "seconds": round(asyncio.get_running_loop().time() - run.deadline + self.timeout, 3),
        }
        log.info("reply ended", extra={"fields": fields})

    async def _save(self, answer: reply.Reply, decision: reply.Decision) -> tuple[bool, NewTitle | None]:
        """Persist, however long it takes; False if it can never succeed. And the title that came of it."""
        job = answer.job
        try:
            title = await self.database.insist(lambda: self.store.save(job, answer.text, decision))
        except DatabaseRefusedError as error:
            log.error("reply %s: refused by the database: %s", job.message_id, error)  # noqa: TRY400
        except Exception:  # a fault of ours: a retry would end the same way
            log.exception("reply %s: cannot be persisted", job.message_id)
        else:
            return True, title
        return False, None
