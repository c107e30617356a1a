"""The UI message stream of the AI SDK, version 1, as ``useChat`` reads it by its default transport."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from legato.protocol.stream import FAILED_TEXT

from . import projection
from .base import Framing, WithText, is_retraction
from .telling import Telling

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from legato.protocol.stream import Decision, Usage
    from legato.protocol.transcript import Piece

    from .base import Opening
    from .telling import Handlers

FRAMING: Final = Framing(tail=b"data: [DONE]\n\n")

RETRACTED: Final = "The response was interrupted and continues elsewhere. Please reload."
"""The text for users when an attempt starts over and the client cannot take anything back."""

NO_INPUT: Final[Mapping[str, Any]] = {}
"""The input of a call that readers may not see."""

NO_OUTPUT: Final = ""
"""The result of one: null would end the stream."""

_BY_WORKER: Final = {"providerExecuted": True, "dynamic": True}
"""On all chunks of tools: otherwise the client runs the tool itself."""

_REASONS: Final[Mapping[str, str]] = {
    "end_turn": "stop",
    "stop": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "length": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content-filter",
    "content_filter": "content-filter",
    "tool_use": "tool-calls",
    "tool_calls": "tool-calls",
}
"""Stop reason -> ``finishReason``, which is ``other`` for the rest: clients refuse unknown ones."""


class UiMessages(Telling):
    """The chunks of one reply, each as JSON. See :class:`.base.Translator`.

    :param reset_step: take back what is retracted with a chunk that only version 7 of the SDK knows.
        Otherwise the stream ends there with an error: the next one has the reply without it.
    """

    def __init__(self, *, reset_step: bool = False) -> None:
        super().__init__()
        self._deltas = WithText({}, "")
        self._reset_step = reset_step
        self._first = 0
        self._step: list[Piece] = []  # of the current step, from offset _first on, if steps can be reset

    def begin(self, opening: Opening) -> list[bytes]:
        """See :class:`.base.Translator`."""
        model = opening.begun.model
        metadata = {"messageMetadata": {"model": model}} if model else {}
        self._put("start", messageId=opening.message_id, **metadata)
        self._put("start-step")
        return self._taken()

    def feed(self, pieces: Sequence[Piece]) -> list[bytes]:
        """See :class:`.base.Translator`."""
        for piece in pieces:
            if self.done:
                break
            self._tell(self._projection.feed((piece,)))
            if self._reset_step:
                self._step.append(None if is_retraction(piece) else piece)
        return self._taken()

    def end(self, decision: Decision) -> list[bytes]:
        """See :class:`.base.Translator`."""
        if self.done:
            return []
        self._tell(self._projection.end())
        self.done = True
        if decision.state == "failed":
            self._put("error", errorText=FAILED_TEXT)
        elif decision.state == "cancelled":
            self._put("abort", reason="cancelled")
        else:
            self._put("finish-step")
            reason = _REASONS.get(decision.stop_reason or "", "other")
            metadata = {"messageMetadata": {"usage": usage_of(decision.usage)}} if decision.usage else {}
            self._put("finish", finishReason=reason, **metadata)
        return self._taken()

    # --- runs and steps

    def _open(self, event: projection.RunOpened) -> None:
        kind, id_ = event.run.kind, _id(event.run)
        self._put(f"{kind}-start", id=id_)
        self._deltas = WithText({"type": f"{kind}-delta", "id": id_}, "delta")

    def _grow(self, event: projection.RunGrew) -> None:
        self._messages.append(self._deltas.of(event.delta))

    def _close(self, event: projection.RunClosed) -> None:
        self._put(f"{event.run.kind}-end", id=_id(event.run))

    def _begin_step(self, event: projection.StepBegun) -> None:  # noqa: ARG002 - its number is told nowhere
        self._put("finish-step")
        self._put("start-step")
        self._first, self._step = self._projection.offset, []

    def _void(self, event: projection.Voided) -> None:
        kept = event.start - self._first
        if not self._reset_step or kept < 0:
            self.done = True
            self._put("error", errorText=RETRACTED)
            return
        self._put("reset-step")
        self._step[kept:] = [piece if isinstance(piece, str) else None for piece in self._step[kept:]]
        self._projection.rewind(self._first)
        self._tell(self._projection.feed(self._step))

    # --- calls

    def _begin_call(self, event: projection.CallBegun) -> None:
        self._put("tool-input-start", toolCallId=event.call, toolName=event.name, **_BY_WORKER)

    def _grow_call(self, event: projection.CallGrew) -> None:
        self._put("tool-input-delta", toolCallId=event.call, inputTextDelta=event.delta)

    def _give_call(self, event: projection.CallGiven) -> None:
        given = {"toolCallId": event.call, "toolName": event.name, "input": event.input or NO_INPUT}
        self._put("tool-input-available", **given, **_BY_WORKER)

    def _cut_call(self, event: projection.CallCut) -> None:
        """Nothing: the client shows for ever that the input is being written."""

    def _end_call(self, event: projection.CallEnded) -> None:
        if event.ok:
            output = NO_OUTPUT if event.output is None else event.output
            self._put("tool-output-available", toolCallId=event.call, output=output, **_BY_WORKER)
        else:
            text = projection.error_of(event)
            self._put("tool-output-error", toolCallId=event.call, errorText=text, **_BY_WORKER)

    def _ask(self, event: projection.Asked) -> None:
        self._put("data-approval", id=event.call, data={**_known(event), "state": "requested"})

    def _answer(self, event: projection.Answered) -> None:
        self._put("data-approval", id=event.call, data={**_known(event), "state": "decided"})

    def _cite(self, event: projection.Cited) -> None:
        if event.url:
            title = {"title": event.title} if event.title else {}
            self._put("source-url", sourceId=f"s{event.number}", url=event.url, **title)

    _HANDLERS: ClassVar[Handlers] = {
        projection.RunOpened: _open,
        projection.RunGrew: _grow,
        projection.RunClosed: _close,
        projection.StepBegun: _begin_step,
        projection.Voided: _void,
        projection.CallBegun: _begin_call,
        projection.CallGrew: _grow_call,
        projection.CallGiven: _give_call,
        projection.CallCut: _cut_call,
        projection.CallEnded: _end_call,
        projection.Asked: _ask,
        projection.Answered: _answer,
        projection.Cited: _cite,
    }


def _id(run: projection.Run) -> str:
    return f"{run.kind[0]}{run.number}"


def _known(event: projection.Asked | projection.Answered) -> dict[str, Any]:
    """The data of the part, under the names of this protocol."""
    rest = {name: value for name, value in event.part.data.items() if name != "call"}
    return {"toolCallId": event.call, **rest}


def usage_of(usage: Usage) -> dict[str, int]:
    """The usage as metadata has it."""
    return {
        "inputTokens": usage.input,
        "outputTokens": usage.output,
        "totalTokens": usage.input + usage.output,
        "cachedInputTokens": usage.cache_read,
        "reasoningTokens": 0,
    }
