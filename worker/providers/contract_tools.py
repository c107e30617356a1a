"""The checks of :mod:`.contract` for providers that take tools, each a coroutine function."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from . import base
from .contract_stage import REQUEST, fail, name_of

if TYPE_CHECKING:
    from .contract_stage import CheckRun

TOOL: Final = base.ToolSpec(
    "look",
    "The weather of a city.",
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)
INPUTS: Final = ({"city": "Oslo"}, {"city": "Rome"})
RESULTS: Final = ("It snows there.", "It is sunny there.")

TOOL_REQUEST: Final = REQUEST._replace(tools=(TOOL,), message_id="contract")


async def takes_tools(run: CheckRun) -> None:
    """The attribute, without which a provider is given no tools."""
    if not base.takes_tools(run.provider):
        fail("takes_tools is not True")


async def calls_tools(run: CheckRun) -> None:
    """Both calls, with what the model wrote."""
    events = await run.answer(TOOL_REQUEST)
    found = _calls(events)
    names = [call.name for call in found]
    if names != [TOOL.name] * len(INPUTS):
        fail(f"the model calls {TOOL.name!r} twice, but ToolCall comes for {names}")
    for call, expected in zip(found, INPUTS, strict=True):
        if _parsed(call.arguments) != expected:
            fail(f"arguments of a ToolCall are {call.arguments!r}; expected JSON of {expected}")
    if _final(events).stop_reason != "tool_use":
        fail(f"the stop_reason with calls is {_final(events).stop_reason!r}; expected 'tool_use'")


async def tells_calls_apart(run: CheckRun) -> None:
    """By an id that each has for itself."""
    ids: list[Any] = [call.call for call in _calls(await run.answer(TOOL_REQUEST))]
    if not all(isinstance(each, str) and each for each in ids):
        fail(f"the ids of the calls are {ids}; expected texts that are not empty")
    if len(set(ids)) != len(ids):
        fail(f"the ids of the calls are {ids}; expected different ones")


async def announces_calls(run: CheckRun) -> None:
    """ToolStart, the pieces of the input, ToolCall."""
    events = await run.answer(TOOL_REQUEST)
    for call in _calls(events):
        told = [event for event in events if getattr(event, "call", None) == call.call]
        if told[0] != base.ToolStart(call.call, call.name) or told[-1] != call:
            fail(f"the events of a call are {list(map(name_of, told))}; expected ToolStart to ToolCall")
        pieces = [event.delta for event in told if isinstance(event, base.ToolInput)]
        if not all(pieces):
            fail("a ToolInput is empty")
        if "".join(pieces) != call.arguments:
            fail(f"the pieces of an input are {pieces}; expected those of {call.arguments!r}")


async def sends_results_back(run: CheckRun) -> None:
    """In the next request, with the content of the step as any store gives it back."""
    answer = await run.answer(await _next_request(run))
    _texts(answer)
    _final(answer)
    received = run.stage.received()
    for result in RESULTS:
        if received and result not in received:
            fail(f"the result {result!r} is not in the next request")


async def continues_a_step(run: CheckRun) -> None:
    """Accepts a request for the rest of a step behind another one."""
    request = await _next_request(run)
    first, *_ = _texts(await run.answer(request))
    rest = request._replace(so_far=first, continuation="Go on from where it ends.", attempt=2)
    _final(await run.answer(rest))


async def keeps_reasoning_out_of_the_text(run: CheckRun) -> None:
    events = await run.answer(TOOL_REQUEST)
    thoughts: list[Any] = [event.text for event in events if isinstance(event, base.Reasoning)]
    if not all(isinstance(each, str) and each for each in thoughts):
        fail(f"{thoughts} are the texts of Reasoning; expected texts that are not empty")
    if "".join(thoughts) != run.stage.thought:
        fail(f"the model thinks {run.stage.thought!r}, but Reasoning says {''.join(thoughts)!r}")
    text = "".join(event.text for event in events if isinstance(event, base.Text))
    if not text or run.stage.thought in text:
        fail(f"the text of a model that thinks first is {text!r}")


async def _next_request(run: CheckRun) -> base.ProviderRequest:
    """The request behind a step with calls."""
    events = await run.answer(TOOL_REQUEST)
    found = _calls(events)
    if len(found) != len(RESULTS):
        fail(f"the model calls {len(RESULTS)} tools, but ToolCall comes {len(found)} times")
    try:
        content = msgspec.json.decode(msgspec.json.encode(_final(events).content))
    except (TypeError, ValueError, RecursionError) as error:
        fail(f"Final.content is no JSON: {error}")
    outputs = [base.ToolOutput(call.call, call.name, text) for call, text in zip(found, RESULTS, strict=True)]
    return TOOL_REQUEST._replace(steps=(base.Step(content, tuple(outputs)),))


def _texts(events: list[base.Event]) -> list[str]:
    texts = [event.text for event in events if isinstance(event, base.Text)]
    if not texts:
        fail("no text comes of a model that has the results of its calls")
    return texts


def _calls(events: list[base.Event]) -> list[base.ToolCall]:
    return [event for event in events if isinstance(event, base.ToolCall)]


def _final(events: list[base.Event]) -> base.Final:
    if not events or not isinstance(events[-1], base.Final):
        fail("the stream of a request with tools ends without Final")
    return events[-1]


def _parsed(arguments: Any) -> Any:
    try:
        return msgspec.json.decode(arguments)
    except (msgspec.DecodeError, TypeError, UnicodeError):
        return None
