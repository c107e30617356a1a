"""The steps of an agent's reply: what the log says of them, and what is written next. No I/O and no clock.

A step is one request to the model and the calls that it asks for. It is complete once its ``step`` entry is
in the log, which is written together with its calls. So after a crash the log tells what has to be done: ask
the model, run calls, or wait for approvals.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from legato.protocol import parts
from legato.protocol.approvals import CALL_ID
from legato.protocol.text import Joiner, decode_json
from legato.worker.agents import calling, shown
from legato.worker.limits import APPROVAL_MAX_INPUT_BYTES, MAX_STOP_REASON_CHARACTERS, TOOL_MAX_CALLS
from legato.worker.providers import base

from .transcript import NewPart, new_part

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from legato.worker.agents.agent import Agent
    from legato.worker.agents.calling import CallResult
    from legato.worker.agents.tools import Tool

    from .log import StoredLog

T = TypeVar("T")


class StepRecord(msgspec.Struct, frozen=True):
    """The private data of a ``step`` entry."""

    content: Any
    calls: tuple[base.ToolCall, ...]


class ApprovalDecision(msgspec.Struct, frozen=True):
    """A decision as the broadcaster stores it. ``at``: when, in Unix time."""

    approve: bool
    note: str = ""
    at: float = 0
    expired: bool = False


class RepeatedCallError(base.ProviderError):
    """The model has used the id of a call again: what was approved and done for one is not for the other."""


class OpenStep:
    """The newest step, while not all of its calls have results.

    :ivar outputs: by call.
    :ivar begun: calls that may have been run by an earlier claim.
    :ivar deadlines: call that needs an approval -> until when, in Unix time.
    :ivar decisions: by call, those that are in the log.
    """

    def __init__(self, record: StepRecord) -> None:
        self.record = record
        self.outputs: dict[str, base.ToolOutput] = {}
        self.begun: set[str] = set()
        self.deadlines: dict[str, float] = {}
        self.decisions: dict[str, ApprovalDecision] = {}

    @property
    def left(self) -> list[base.ToolCall]:
        """The calls without a result."""
        return [call for call in self.record.calls if call.call not in self.outputs]

    @property
    def undecided(self) -> list[base.ToolCall]:
        """Of these, those that wait for an approval."""
        return [one for one in self.left if one.call in self.deadlines and one.call not in self.decisions]

    @property
    def ready(self) -> list[base.ToolCall]:
        """Of these, those that can be run now."""
        return [one for one in self.left if one.call not in self.deadlines or one.call in self.decisions]

    def finished(self) -> base.Step:
        """The step with all results."""
        return base.Step(self.record.content, tuple(self.outputs[call.call] for call in self.record.calls))


_RETRACTABLE: Final = frozenset(
    part.kind
    for part in (
        parts.ReasoningReceived,
        parts.ToolStarted,
        parts.ToolInputReceived,
        parts.ToolCalled,
        parts.ToolFinished,
    )
) | {parts.HIDDEN}
"""Kinds of entries that are void if the step breaks off right behind them."""


_VOID_CALLS: Final = frozenset({"refusal", "max_tokens", "model_context_window_exceeded"})
"""Stop reasons with which a call may be cut off, or is void."""


class Steps:
    """All steps of one reply.

    :ivar finished: those with all results.
    :ivar open: the newest, if calls of it have no result yet.
    :ivar count: number of completed requests.
    :ivar text_from: offset behind the newest step; text from there on belongs to the unfinished request.
    :ivar parked: the reply waits for an approval, and nothing more is written.
    :ivar over: the stop reason with which the model has ended the reply, by the log; empty if it has not.
    """

    def __init__(self, agent: Agent, log: StoredLog | None = None) -> None:
        self.agent = agent
        self.finished: list[base.Step] = []
        self.open: OpenStep | None = None
        self.count = 0
        self.text_from = 0
        self.parked = False
        self.over = ""
        self._known: set[str] = set()
        self._view = shown.view_of(agent)
        if log is not None:
            for offset, entry in enumerate(log.entries):
                self._replay(offset, entry, log.private.get(offset, b""))
            self._find_begun()
        self.begin_request()

    # --- from the log

    def _replay(self, offset: int, entry: parts.LogEntry, private: bytes) -> None:
        if entry.kind == parts.StepCompleted.kind:
            self._complete(_decoded(private, StepRecord))
            self.text_from = offset + 1
            told = _decoded(entry.data, parts.StepCompleted)
            self.over = "" if self.open or _pauses(told.stop_reason) else told.stop_reason
        elif self.open is not None:
            self._replay_call(entry, private)
            self.settle()

    def _replay_call(self, entry: parts.LogEntry, private: bytes) -> None:
        assert self.open is not None  # noqa: S101 - the caller's promise
        if entry.kind == parts.ApprovalRequested.kind:
            requested = _decoded(entry.data, parts.ApprovalRequested)
            self.open.deadlines[requested.call] = requested.expires_at
        elif entry.kind == parts.ApprovalDecided.kind:
            told = _decoded(entry.data, parts.ApprovalDecided)
            self.open.decisions[told.call] = ApprovalDecision(told.approve, told.note, 0, told.expired)
        elif private:
            output = _decoded(private, base.ToolOutput)
            self.open.outputs[output.call] = output

    def _find_begun(self) -> None:
        if self.open is not None:  # what was ready to run may have begun
            self.open.begun = {one.call for one in self.open.ready}

    @property
    def tools(self) -> tuple[base.ToolSpec, ...]:
        """What the model may call."""
        return tuple(tool.spec for tool in self.agent.tools)

    # --- a request

    def begin_request(self) -> None:
        """Another request begins: nothing of the one before counts."""
        self.calls: list[base.ToolCall] = []
        self._names: dict[str, str] = {}
        self._reasoning = Joiner()

    def take(self, event: base.Event) -> parts.Part | None:
        """The part that readers get of an event; None for none. Calls are kept for the end of the step."""
        if isinstance(event, base.ToolCall):
            if event.call in self._known or any(event.call == one.call for one in self.calls):
                raise RepeatedCallError(f"the model has used the id {event.call!r} for two calls")
            self.calls.append(event)
            return None
        if isinstance(event, base.Reasoning):
            text = self._reasoning.feed(event.text)
            return parts.ReasoningReceived(text) if text and self._view.reasoning else None
        return shown.part_of(event, self._view, self._names)

    def goes_on(self, event: base.Final) -> bool:
        """Whether the model is asked again behind this end. Forgets calls that are not to be made."""
        if event.stop_reason in _VOID_CALLS:
            self.calls.clear()
        return bool(self.calls) or _pauses(event.stop_reason)

    def complete(self, event: base.Final, now: float) -> list[NewPart]:
        """The request has ended: the entries that say so, to be appended in one call. Then set ``text_from``.

        :param now: Unix time, from which approvals have their deadline.
        """
        calls = tuple(self.calls)
        record = StepRecord(event.content, calls)
        new = [self._shown(shown.called(one.call, one.name, _given(one), self._view)) for one in calls]
        new = [part for part in new if part.kind != parts.HIDDEN]
        reason = base.short_name(event.stop_reason, MAX_STOP_REASON_CHARACTERS)
        step = parts.StepCompleted(self.count + 1, reason, base.bounded(event.usage))
        new.append(new_part(step, msgspec.json.encode(record)))
        self._complete(record)
        if self.open is not None:
            for one in calls[:TOOL_MAX_CALLS]:  # the others are not made
                tool = self.agent.tool(one.name)
                if tool is not None and tool.needs_approval and _can_be_approved(tool, one):
                    expires = int(now + tool.approval_seconds)
                    self.open.deadlines[one.call] = expires
                    asked = parts.ApprovalRequested(one.call, one.name, expires, _given(one))
                    new.append(new_part(asked, call=one.call))
        return new

    def _complete(self, record: StepRecord) -> None:
        self.count += 1
        self._known.update(call.call for call in record.calls)
        self.open = OpenStep(record)
        self.settle()

    def settle(self) -> None:
        """Finish the open step if all of its calls have results."""
        if self.open is not None and not self.open.left:
            self.finished.append(self.open.finished())
            self.open = None

    # --- calls

    def decided(self, call: base.ToolCall, decision: ApprovalDecision) -> NewPart:
        """A person has decided on a call, or nobody has in time."""
        assert self.open is not None  # noqa: S101 - the caller's promise
        self.open.decisions[call.call] = decision
        return new_part(parts.ApprovalDecided(call.call, decision.approve, decision.note, decision.expired))

    def ended(self, result: CallResult, *, denied: bool = False) -> list[NewPart]:
        """A call has its result."""
        assert self.open is not None  # noqa: S101 - the caller's promise
        output = result.output
        self.open.outputs[output.call] = output
        error = output.text if output.failed else ""
        told = parts.ToolFinished(output.call, output.name, not output.failed, result.value, error, denied)
        part = self._shown(shown.finished(told, self._view))
        sources = [new_part(shown.cited(one)) for one in result.citations]
        return [part._replace(private=msgspec.json.encode(output)), *sources]

    @staticmethod
    def _shown(part: parts.Part | None) -> NewPart:
        return NewPart(parts.HIDDEN, b"") if part is None else new_part(part)


def retraction(entries: Sequence[str | NewPart], first: int) -> list[NewPart]:
    """The entry that makes void what a request has left that broke off; none if it has left nothing visible.

    Text stays: the next request goes on behind it.

    :param first: where the request began.
    """
    start: int | None = None
    for offset in range(len(entries) - 1, first - 1, -1):
        entry = entries[offset]
        if isinstance(entry, str) or entry.private or entry.kind not in _RETRACTABLE:
            break
        if entry.kind != parts.HIDDEN:
            start = offset
    return [] if start is None else [new_part(parts.Retracted(start))]


def _given(call: base.ToolCall) -> Any:
    """The input as readers get it; UNSET if it is no JSON, of which the model will be told."""
    try:
        return decode_json(_json, call.arguments.strip() or "{}")
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return msgspec.UNSET


_json: Final = msgspec.json.Decoder()


def _can_be_approved(tool: Tool, call: base.ToolCall) -> bool:
    """Whether a person can be shown the whole input, and name the call: nobody approves what nobody sees.

    Nor is anybody asked for a call whose arguments do not fit: it could not be made.
    """
    if not CALL_ID.fullmatch(call.call) or not shown.is_shown(_given(call), APPROVAL_MAX_INPUT_BYTES):
        return False
    return not isinstance(calling.arguments_of(tool, call), calling.CallResult)


def _pauses(stop_reason: str) -> bool:
    return stop_reason in base.PAUSES


def _decoded(data: bytes, kind: type[T]) -> T:
    return msgspec.json.decode(data, type=kind)


def decisions_of(approvals: Mapping[str, bytes]) -> dict[str, ApprovalDecision]:
    """The decisions among the approvals of :meth:`.log.MessageLog.approvals`."""
    return {call: _decoded(value, ApprovalDecision) for call, value in approvals.items() if value}
