"""A provider without a model, for demonstrations, tests and load: deterministic events at a steady rate.

It answers a message with a short text about it, unless a line of the message begins with ``#script``. Then
the words on that line determine the answer (:mod:`.script`). Other providers do not interpret such lines.

The step of the script that a request is answered with follows from the number of its finished steps. They
must be what the script said, with one result for each call. A continuation starts exactly where the text
ended; a text that is not the beginning of the step is refused. So mistakes at the seams show.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from itertools import accumulate, chain, islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from legato.protocol.stream import Usage
from legato.worker.limits import SCRIPTED_MAX_ECHO_CHARACTERS

from . import base
from .script import Echo, Fault, TokenRun, script_for, spoken

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Iterator

    from .script import ScriptedReply, ScriptedStep

_RAISED: Final[dict[str, type[base.ProviderError]]] = {
    "overloaded": base.OverloadedError,
    "disconnect": base.CutError,
    "eof": base.CutError,
}
_CALL_EVENTS: Final = (
    base.ToolStart,
    base.ToolInput,
    base.ToolCall,
    base.ServerToolCall,
    base.ServerToolResult,
)


class Scripted:
    """The provider ``scripted``; see the module."""

    model = "scripted"
    takes_tools = True
    takes_server_tools = True

    async def aclose(self) -> None:
        """Does nothing: no connection is open."""

    async def stream(self, request: base.ProviderRequest) -> AsyncGenerator[base.Event, None]:
        """See :class:`.base.Provider`."""
        script = script_for(request.message)
        clock = asyncio.get_running_loop().time
        began = clock()
        answer = _answer_to(script, request)
        fault = answer.fault
        if fault and fault.kind in _RAISED and not answer.length:
            raise _RAISED[fault.kind](fault.kind)  # before RequestAccepted: the request was not accepted
        yield base.RequestAccepted(self.model)
        yield base.Used(_usage(request, 0))
        count = 0
        for count, event in enumerate(answer.events, 1):
            if script.rate:  # relative to the start, so that delays do not add up
                await asyncio.sleep(max(0.0, began + count / script.rate - clock()))
            yield event
        if fault and fault.kind in _RAISED:
            raise _RAISED[fault.kind](fault.kind)
        if fault and fault.kind == "hang":
            await asyncio.Event().wait()
        stop_reason = "refusal" if fault else answer.stop_reason
        yield base.Final(stop_reason, _usage(request, count), answer.content)


class _Answer(NamedTuple):
    """What one request is answered: events up to the fault or the end of the step.

    :ivar length: the number of events, without the tokens that a continuation repeats first.
    """

    events: Iterable[base.Event]
    length: int
    fault: Fault | None
    stop_reason: str
    content: Any


def _answer_to(script: ScriptedReply, request: base.ProviderRequest) -> _Answer:
    """The answer to this request.

    :raises RequestRefusedError: its steps or its text so far are not those of the script.
    """
    number, reply_id = len(request.steps), _reply_id(request)
    if number >= len(script.steps):
        raise base.RequestRefusedError(f"the script has no step {number + 1}")
    begin = 0
    outputs: tuple[base.ToolOutput, ...] = ()
    for index, (step, done) in enumerate(zip(script.steps, request.steps, strict=False)):
        _check(index, step, done, reply_id)
        begin += _count(step, outputs) + 1  # its end counts too
        outputs = done.outputs or outputs
    step = script.steps[number]

    def events(first: int, end: int) -> Iterator[base.Event]:
        return islice(_events(step, reply_id, outputs), first, end)

    end = _count(step, outputs)
    first = _resumed(events(0, end), request.so_far) if request.so_far else 0
    fault = script.fault(request.attempt, begin + first, begin + end)
    end = fault.at - begin if fault else end
    repeated = _last_texts(events(0, first), script.overlap) if script.overlap else ()
    content = _content(number, step, reply_id)
    return _Answer(chain(repeated, events(first, end)), end - first, fault, step.stop_reason, content)


def _reply_id(request: base.ProviderRequest) -> str:
    """Different for each message, short, and of characters that every provider allows in the id of a call."""
    name = (request.message_id or request.message).encode(errors="replace")
    return hashlib.blake2s(name, digest_size=6).hexdigest()


def _call_id(reply_id: str, call: str) -> str:
    return f"call_{reply_id}_{call}"


def _content(number: int, step: ScriptedStep, reply_id: str) -> Any:
    """What the next request must bring back in :attr:`.base.Step.content`."""
    return {"step": number + 1, "calls": [_call_id(reply_id, call) for call in step.calls]}


def _check(number: int, step: ScriptedStep, done: base.Step, reply_id: str) -> None:
    content = _content(number, step, reply_id)
    if done.content != content:
        raise base.RequestRefusedError(f"step {number + 1} of the request is not what the script said")
    if [output.call for output in done.outputs] != content["calls"]:
        raise base.RequestRefusedError(f"step {number + 1} of the request needs one result for each call")


def _count(step: ScriptedStep, outputs: tuple[base.ToolOutput, ...]) -> int:
    """The number of events of a step in this reply."""
    return sum(
        item.end - item.begin
        if isinstance(item, TokenRun)
        else len(_echoed(outputs))
        if isinstance(item, Echo)
        else 1
        for item in step.items
    )


def _events(step: ScriptedStep, reply_id: str, outputs: tuple[base.ToolOutput, ...]) -> Iterator[base.Event]:
    """The events of a step in this reply."""
    for item in step.items:
        if isinstance(item, TokenRun):
            yield from item.events()
        elif isinstance(item, Echo):
            yield from _echoed(outputs)
        elif isinstance(item, _CALL_EVENTS):
            yield msgspec.structs.replace(item, call=_call_id(reply_id, item.call))
        else:
            yield item


def _echoed(outputs: tuple[base.ToolOutput, ...]) -> list[base.Event]:
    """The outputs as text that ends with a space, as every scripted token does."""
    text = "\n".join(output.text for output in outputs)[:SCRIPTED_MAX_ECHO_CHARACTERS]
    words = spoken(text) or [""]
    return [base.Text(word) for word in (*words[:-1], f"{words[-1]} ")]


def _resumed(events: Iterable[base.Event], so_far: str) -> int:
    """The index behind the last event that ``so_far`` contains.

    :raises RequestRefusedError: it does not consist of the first tokens of the step.
    """
    texts = [(index, event.text) for index, event in enumerate(events, 1) if isinstance(event, base.Text)]
    lengths = list(accumulate(len(text) for _, text in texts))
    if len(so_far) not in lengths or not "".join(text for _, text in texts).startswith(so_far):
        raise base.RequestRefusedError("the text to continue is not the beginning of the script")
    return texts[lengths.index(len(so_far))][0]


def _last_texts(events: Iterable[base.Event], count: int) -> Iterable[base.Event]:
    """The last tokens of what was said, which a continuation repeats."""
    return deque((event for event in events if isinstance(event, base.Text)), maxlen=count)


def _usage(request: base.ProviderRequest, output: int) -> Usage:
    """Invented but deterministic usage: words of the request, events of the answer."""
    said = [request.message, *(turn.content for turn in request.history), request.so_far]
    said += [result.text for step in request.steps for result in step.outputs]
    return Usage(input=sum(len(text.split()) for text in said), output=output)
