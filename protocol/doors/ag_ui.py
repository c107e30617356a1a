"""The events of AG-UI, as ``HttpAgent`` reads them, for one run of an agent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

from legato.protocol.stream import FAILED_TEXT, Begun

from . import projection
from .base import Framing, WithText, corrected, number_of, text_of, text_of_json
from .telling import Telling

if TYPE_CHECKING:
    from collections.abc import Sequence

    import msgspec

    from legato.protocol.stream import Decision, Usage
    from legato.protocol.transcript import Piece

    from .ag_ui_request import RunInput
    from .base import Opening
    from .telling import Handlers

FRAMING: Final = Framing()

APPROVAL: Final = "tool_approval"
"""The ``reason`` of an interrupt."""

_RESPONSE_SCHEMA: Final = {
    "type": "object",
    "properties": {"approve": {"type": "boolean"}, "note": {"type": "string"}},
    "required": ["approve"],
}
_NO_INPUT: Final = "{}"


class _Writing(NamedTuple):
    """A call whose input is being written."""

    begun: projection.CallBegun
    input: list[str]


class AgUi(Telling):
    """The events of one run, each as JSON. See :class:`.base.Translator`.

    It keeps the reply, which a client that comes back gets as a whole, and one that has to forget something.
    """

    def __init__(self, run: RunInput) -> None:
        super().__init__()
        self._run = run
        self._message_id = ""
        self._begun = Begun()
        self._pieces: list[Piece] = []
        self._deltas = WithText({}, "")
        self._writing: dict[str, _Writing] = {}

    def begin(self, opening: Opening) -> list[bytes]:
        """See :class:`.base.Translator`."""
        self._message_id, self._begun = opening.message_id, opening.begun
        self._put("RUN_STARTED", **self._ids)
        return self._taken()

    def attach(self, pieces: Sequence[Piece]) -> list[bytes]:
        """Instead of the first :meth:`feed`: a client comes back to a reply that has so many pieces already.

        It gets them in a snapshot, since it would append what is told once more.
        """
        self._projection = projection.Projection()
        self._tell(self._projection.feed(corrected(pieces)))
        self._projection.reopen()
        self._messages.clear()
        self._pieces += pieces
        self._snapshot()
        self._interrupt()
        return self._taken()

    def feed(self, pieces: Sequence[Piece]) -> list[bytes]:
        """See :class:`.base.Translator`."""
        for piece in pieces:
            if self.done:
                break
            self._pieces.append(piece)
            self._tell(self._projection.feed((piece,)))
            if self._projection.waiting:
                self._interrupt()
        return self._taken()

    def end(self, decision: Decision) -> list[bytes]:
        """See :class:`.base.Translator`."""
        if self.done:
            return []
        self._tell(self._projection.end())
        self.done = True
        if decision.state == "failed":
            self._put("RUN_ERROR", message=FAILED_TEXT, code=decision.code or "internal")
        elif decision.state == "complete":
            usage = {"usage": [_usage(self._begun, decision.usage)]} if decision.usage else {}
            self._put("RUN_FINISHED", **self._ids, outcome={"type": "success"}, **usage)
        else:
            outcome = {"outcome": {"type": "cancelled"}} if self._run.knows_outcomes else {}
            self._put("RUN_FINISHED", **self._ids, **outcome)
        return self._taken()

    @property
    def _ids(self) -> dict[str, str]:
        return {"threadId": self._run.thread_id, "runId": self._run.run_id}

    # --- runs of text and of reasoning

    def _open(self, event: projection.RunOpened) -> None:
        id_ = _run_id(self._message_id, event.run)
        if event.run.kind == "text":
            self._put("TEXT_MESSAGE_START", messageId=id_, role="assistant")
            kind = "TEXT_MESSAGE_CONTENT"
        else:
            self._put("REASONING_START", messageId=id_)
            self._put("REASONING_MESSAGE_START", messageId=id_, role="reasoning")
            kind = "REASONING_MESSAGE_CONTENT"
        self._deltas = WithText({"type": kind, "messageId": id_}, "delta")

    def _grow(self, event: projection.RunGrew) -> None:
        self._messages.append(self._deltas.of(event.delta))

    def _close(self, event: projection.RunClosed) -> None:
        id_ = _run_id(self._message_id, event.run)
        if event.run.kind == "text":
            self._put("TEXT_MESSAGE_END", messageId=id_)
        else:
            self._put("REASONING_MESSAGE_END", messageId=id_)
            self._put("REASONING_END", messageId=id_)

    # --- calls

    def _begin_call(self, event: projection.CallBegun) -> None:
        self._writing[event.call] = _Writing(event, [])
        parent = _text_id(self._message_id, event.step)
        self._put("TOOL_CALL_START", toolCallId=event.call, toolCallName=event.name, parentMessageId=parent)

    def _grow_call(self, event: projection.CallGrew) -> None:
        self._writing[event.call].input.append(event.delta)
        self._put("TOOL_CALL_ARGS", toolCallId=event.call, delta=event.delta)

    def _give_call(self, event: projection.CallGiven) -> None:
        if not self._writing.pop(event.call).input:
            self._put("TOOL_CALL_ARGS", toolCallId=event.call, delta=_NO_INPUT)
        self._put("TOOL_CALL_END", toolCallId=event.call)

    def _cut_call(self, event: projection.CallCut) -> None:
        del self._writing[event.call]
        self._put("TOOL_CALL_END", toolCallId=event.call)

    def _end_call(self, event: projection.CallEnded) -> None:
        self._put("TOOL_CALL_RESULT", **_result(self._message_id, event))

    def _cite(self, event: projection.Cited) -> None:
        self._put("CUSTOM", name="citation", value={"url": event.url, "title": event.title})

    def _nothing(self, event: projection.ProjectedEvent) -> None:
        """Steps have no events. Of approvals tells :meth:`_interrupt`."""

    # --- snapshots and interrupts

    def _void(self, _: projection.Voided) -> None:
        for call in self._writing:
            self._put("TOOL_CALL_END", toolCallId=call)
        self._snapshot()

    def _snapshot(self) -> None:
        """The messages of the request and of the reply so far; then what is being written begins anew."""
        mine = reply_messages(self._message_id, self._pieces)
        before = [message.raw for message in self._run.messages if not self._is_mine(message.id)]
        self._put("MESSAGES_SNAPSHOT", messages=[*before, *mine])
        for writing in list(self._writing.values()):
            self._begin_call(writing.begun)
            for delta in writing.input:
                self._grow_call(projection.CallGrew(writing.begun.call, delta))

    def _is_mine(self, id_: str) -> bool:
        return id_ == self._message_id or id_.startswith(f"{self._message_id}-")

    def _interrupt(self) -> None:
        """End the run once nothing is left but calls that wait for an approval."""
        answered = {answer.call for answer in self._run.answers}
        waiting = {call: part for call, part in self._projection.waiting.items() if call not in answered}
        if not waiting or not self._run.knows_outcomes or self._projection.unfinished - waiting.keys():
            return
        self.done = True
        interrupts = [
            {
                "id": call,
                "reason": APPROVAL,
                "message": f"Approve the call of {text_of(part, 'name')}?",
                "toolCallId": call,
                "responseSchema": _RESPONSE_SCHEMA,
                "expiresAt": _iso(number_of(part, "expiresAt")),
            }
            for call, part in waiting.items()
        ]
        outcome = {"type": "interrupt", "interrupts": interrupts}
        self._put("RUN_FINISHED", **self._ids, outcome=outcome)

    _HANDLERS: ClassVar[Handlers] = {
        projection.RunOpened: _open,
        projection.RunGrew: _grow,
        projection.RunClosed: _close,
        projection.StepBegun: _nothing,
        projection.Voided: _void,
        projection.CallBegun: _begin_call,
        projection.CallGrew: _grow_call,
        projection.CallGiven: _give_call,
        projection.CallCut: _cut_call,
        projection.CallEnded: _end_call,
        projection.Asked: _nothing,
        projection.Answered: _nothing,
        projection.Cited: _cite,
    }


def reply_messages(message_id: str, pieces: Sequence[Piece]) -> list[dict[str, Any]]:
    """A reply as messages of this protocol, without what is retracted, and calls that are being written."""
    messages: dict[str, dict[str, Any]] = {}
    texts: dict[str, list[str]] = {}
    inputs: dict[str, list[str]] = {}
    begun: dict[str, projection.CallBegun] = {}
    for event in projection.Projection().feed(corrected(pieces)):
        if isinstance(event, projection.RunOpened):
            id_ = _run_id(message_id, event.run)
            role = "assistant" if event.run.kind == "text" else "reasoning"
            messages.setdefault(id_, {"id": id_, "role": role, "content": ""})
        elif isinstance(event, projection.RunGrew):
            texts.setdefault(_run_id(message_id, event.run), []).append(event.delta)
        elif isinstance(event, projection.CallBegun):
            begun[event.call] = event
        elif isinstance(event, projection.CallGrew):
            inputs.setdefault(event.call, []).append(event.delta)
        elif isinstance(event, projection.CallGiven):
            id_ = _text_id(message_id, begun[event.call].step)
            message = messages.setdefault(id_, {"id": id_, "role": "assistant", "content": ""})
            given = "".join(inputs.get(event.call, ())) or _NO_INPUT
            function = {"name": event.name, "arguments": given}
            call = {"id": event.call, "type": "function", "function": function}
            message.setdefault("toolCalls", []).append(call)
        elif isinstance(event, projection.CallEnded):
            fields = _result(message_id, event)
            messages[fields["messageId"]] = {
                "id": fields["messageId"],
                "role": "tool",
                "content": fields["content"],
                "toolCallId": event.call,
            }
    for id_, deltas in texts.items():
        messages[id_]["content"] = "".join(deltas)
    return list(messages.values())


def _text_id(message_id: str, step: int) -> str:
    return message_id if step == 1 else f"{message_id}-s{step}"


def _run_id(message_id: str, run: projection.Run) -> str:
    return _text_id(message_id, run.step) if run.kind == "text" else f"{message_id}-r{run.number}"


def _result(message_id: str, event: projection.CallEnded) -> dict[str, str]:
    return {
        "messageId": f"{message_id}-{event.call}",
        "toolCallId": event.call,
        "content": _content(event.output) if event.ok else projection.error_of(event),
        "role": "tool",
    }


def _content(output: msgspec.Raw | None) -> str:
    """The output as a text: compact JSON, if it is none."""
    return "" if output is None else text_of_json(bytes(output))


def _usage(begun: Begun, usage: Usage) -> dict[str, Any]:
    known = {"provider": begun.provider, "model": begun.model}
    rest = {"cachedInputTokens": usage.cache_read, "cacheWriteInputTokens": usage.cache_write}
    return {
        **{name: value for name, value in known.items() if value},
        "inputTokens": usage.input,
        "outputTokens": usage.output,
        "totalTokens": usage.input + usage.output,
        **{name: value for name, value in rest.items() if value},
    }


def _iso(unix: int) -> str:
    """A time as ISO 8601, in UTC. Years begin in March here, so that a leap day comes last."""
    days, seconds = divmod(unix, 86_400)
    days += 719_468  # from 0000-03-01 to 1970-01-01
    eras, days = divmod(days, 146_097)  # of 400 years
    years = (days - days // 1460 + days // 36_524 - days // 146_096) // 365
    days -= 365 * years + years // 4 - years // 100
    months = (5 * days + 2) // 153
    day = days - (153 * months + 2) // 5 + 1
    month = months + 3 if months < 10 else months - 9
    year = 400 * eras + years + (month <= 2)
    return f"{year:04}-{month:02}-{day:02}T{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}Z"
