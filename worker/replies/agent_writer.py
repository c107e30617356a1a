"""Writes the reply of an agent: requests to the model, and between them the calls of its tools."""

from __future__ import annotations

import functools
import logging
import time
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from legato.worker.agents import calling
from legato.worker.limits import APPROVAL_MAX_INPUT_BYTES, TOOL_MAX_CALLS

from . import log_repair
from .steps import ApprovalDecision, OpenStep, decisions_of, retraction
from .stop import StopReason
from .tool_runs import ToolRuns
from .writer import ReplyWriter, decide_stopped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from legato.protocol.redis.retry import Backend
    from legato.worker.agents.calling import CallResult
    from legato.worker.agents.tools import Tool
    from legato.worker.observability.counters import Counters
    from legato.worker.providers import base

    from .log import LogRecord, MessageLog
    from .model import Model
    from .reply import Reply
    from .steps import Steps
    from .stop import Control
    from .transcript import NewPart

log: Final = logging.getLogger("legato.worker")

_INTERRUPTED: Final = (
    "The call was interrupted by a technical fault. It may or may not have taken effect; "
    "it was not made again."
)
_NOT_ASKED: Final = (
    "Not called: the call needs the approval of a person, who was not asked. "
    f"Its input must be JSON of at most {APPROVAL_MAX_INPUT_BYTES} bytes, its id visible ASCII without '/'."
)
_TOO_MANY: Final = f"Not called: at most {TOOL_MAX_CALLS} calls are made at once."


class Parking(Protocol):
    """Sets a job aside while its reply waits for an approval.

    :ivar queue: the job's queue.
    """

    queue: str

    async def begin(self, deadline_ms: int) -> None:
        """Set the job aside until it is resumed, at the latest at ``deadline_ms`` (Unix time)."""

    async def end(self) -> None:
        """The reply has ended: what is left of the job that was set aside is not needed."""


class AgentWriter(ReplyWriter):
    """One agent's reply under one claim, until it is decided how it ends or it waits for an approval."""

    def __init__(  # noqa: PLR0913 - what a writer has, and two more
        self,
        model: Model,
        answer: Reply,
        message: MessageLog,
        redis: Backend,
        counters: Counters,
        *,
        steps: Steps,
        parking: Parking,
    ) -> None:
        super().__init__(model, answer, message, redis, counters)
        self._steps = steps
        self._parking = parking

    async def run(self, control: Control, deadline: float) -> None:
        """See :meth:`.writer.ReplyWriter.run`. Sets ``parked`` of the steps if the reply waits."""
        answer, steps = self._answer, self._steps
        if steps.over:  # an earlier claim got so far
            answer.end(steps.over)
        while answer.decision is None and control.reason is None and not steps.parked:
            if steps.open is not None:
                await self._work_on(steps.open, control)
            elif steps.count >= steps.agent.max_steps:
                answer.end("max_steps")
            else:
                await self._request(control, deadline)
        if answer.decision is None and not steps.parked:
            decide_stopped(answer, control.reason)

    async def _ask(self, control: Control, deadline: float, delay: float) -> base.ProviderError | None:
        written = self._answer.written
        if void := retraction(written.entries, self._steps.text_from):
            await self._append_parts(void, control)
        error = await super()._ask(control, deadline, delay)
        written.truncate(self._message.next)  # what came together with a call that is refused
        return error

    def _end(self, event: base.Final) -> Sequence[LogRecord]:
        answer, steps = self._answer, self._steps
        goes_on = steps.goes_on(event)
        records = answer.add(steps.complete(event, time.time()))
        steps.text_from = answer.next
        if goes_on:
            answer.step_ended(event)
            self._attempt.has_text = False
        else:
            answer.final(event)
        return records

    # --- calls

    async def _work_on(self, step: OpenStep, control: Control) -> None:
        """Run what can be run of a step, and wait for approvals only if nothing else is left."""
        if new := [*self._without_running(step), *await self._decisions(step)]:
            await self._append_parts(new, control)
        if self._steps.open is not step or control.reason is not None:
            return
        if ready := step.ready:
            await self._run_calls(ready, control)
        elif step.undecided:
            await self._park(step)

    def _without_running(self, step: OpenStep) -> list[NewPart]:
        """Results of calls that are not made: too many, interrupted when an earlier worker died, or without
        the approval that they need, for which nobody is asked if the arguments do not fit.
        """
        too_many = step.record.calls[TOOL_MAX_CALLS:]
        not_made = {call.call: calling.failed(call, _TOO_MANY) for call in too_many}
        for call in step.ready:
            tool = self._steps.agent.tool(call.name)
            if tool is None or call.call in not_made:
                continue
            if call.call in step.begun and tool.on_interrupted == "tell":
                not_made[call.call] = calling.failed(call, _INTERRUPTED)
            elif tool.needs_approval and call.call not in step.deadlines:
                not_made[call.call] = _not_asked(tool, call)
        results = [not_made[call.call] for call in step.left if call.call in not_made]
        return [part for result in results for part in self._ended(result)]

    async def _decisions(self, step: OpenStep) -> list[NewPart]:
        """What has been decided on calls that need an approval, and the results of refused ones."""
        if not step.undecided:
            return []
        known = decisions_of(await self._redis.insist(self._message.approvals))
        new: list[NewPart] = []
        for call in step.undecided:
            decision = known.get(call.call)
            if decision is None and time.time() >= step.deadlines[call.call]:
                decision = await self._expired(call.call)
            if decision is not None:
                new.append(self._steps.decided(call, decision))
                if not decision.approve:
                    result = calling.failed(call, _refusal(decision))
                    new += self._steps.ended(result, denied=True)
        self._steps.settle()
        return new

    async def _expired(self, call: str) -> ApprovalDecision:
        """The decision on a call whose deadline is over: a refusal, unless somebody has just decided."""
        refusal = msgspec.json.encode(ApprovalDecision(approve=False, at=int(time.time()), expired=True))
        expire = functools.partial(self._message.expire, call, refusal)
        return msgspec.json.decode(await self._redis.insist(expire), type=ApprovalDecision)

    async def _run_calls(self, calls: Sequence[base.ToolCall], control: Control) -> None:
        runs = ToolRuns(self._steps.agent, self._answer.job, calls)
        control.attach(runs)
        try:
            while results := await runs.take():
                new = [part for result in results for part in self._ended(result)]
                await self._append_parts(new, control)
        finally:
            runs.stop()

    def _ended(self, result: CallResult) -> list[NewPart]:
        self._counters.tool_calls["failed" if result.output.failed else "ok"] += 1
        new = self._steps.ended(result)
        self._steps.settle()
        return new

    async def _append_parts(self, new: Sequence[NewPart], control: Control) -> None:
        records = self._answer.add(new)
        if await self._append(records, self._clock()):
            control.stop(StopReason.CANCELLED)

    async def _park(self, step: OpenStep) -> None:
        """Set the reply aside until all is decided, unless that has happened meanwhile."""
        deadline = min(step.deadlines[call.call] for call in step.undecided)
        begin = functools.partial(self._parking.begin, int(deadline * 1000))
        await self._redis.insist(begin)
        park = functools.partial(self._message.park, self._parking.queue)
        if await log_repair.insist(self._redis, self._message, self._answer, park):
            self._steps.parked = True
            log.info("reply %s: waits for an approval", self._answer.job.message_id)


def _not_asked(tool: Tool, call: base.ToolCall) -> CallResult:
    """The result of a call for which nobody was asked."""
    given = calling.arguments_of(tool, call)
    return given if isinstance(given, calling.CallResult) else calling.failed(call, _NOT_ASKED)


def _refusal(decision: ApprovalDecision) -> str:
    if decision.expired:
        return "Not called: nobody approved the call in time."
    return f"Not called: the user refused the call{': ' + decision.note if decision.note else '.'}"
