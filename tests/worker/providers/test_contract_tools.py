"""The contract of providers that take tools: kept by ours, and told apart from each way to break it."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from msgspec.structs import replace

from legato.protocol.stream import Usage
from legato.worker.providers import base, contract
from legato.worker.providers.contract_tools import INPUTS
from legato.worker.providers.openai_compatible import ModelServer, OpenAiCompatible
from legato.worker.providers.scripted import Scripted
from tests.waiting import WAIT
from tests.worker.providers import anthropic_streams as claude
from tests.worker.providers import chat_completions as chat
from tests.worker.providers import sse_server as sse
from tests.worker.providers.claude import anthropic_provider
from tests.worker.providers.sse_server import SseServer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

    from legato.worker.providers.contract_stage import Opened

T = TypeVar("T", bound=base.Event)


class ToolServerStage(contract.Stage):
    """A provider in front of a server with answers for each situation; the last one is repeated."""

    def __init__(self, make: Callable[[str], base.Provider], **scripts: list[list[sse.Step]]) -> None:
        self._make = make
        self._scripts = scripts
        self._server: SseServer | None = None

    thought = "Hm, let me see."

    @asynccontextmanager
    async def _open(self, situation: str) -> AsyncIterator[base.Provider]:
        *first, last = self._scripts[situation]
        async with SseServer(*first, last, last) as self._server:
            yield self._make(self._server.url)

    def calling(self) -> Opened:
        return self._open("calling")

    def thinking(self) -> Opened:
        return self._open("thinking")

    def received(self) -> str:
        assert self._server is not None
        return self._server.bodies[-1].decode()


def anthropic() -> contract.Stage:
    looks = (
        claude.call(
            index, '{"city":', f'"{given["city"]}"}}', type="tool_use", id=f"toolu_{index}", name="look"
        )
        for index, given in enumerate(INPUTS, 1)
    )
    return ToolServerStage(
        lambda url: anthropic_provider(api_key="key", model="m", max_tokens=9, base_url=url),
        calling=[
            sse.answer(*claude.text(0, "a"), *(step for look in looks for step in look), reason="tool_use"),
            sse.whole("a", "b"),
        ],
        thinking=[sse.answer(*claude.thinking(0, "Hm, ", "let me see."), *claude.text(1, "a"))],
    )


def openai_compatible() -> contract.Stage:
    pieces = [
        chat.data(chat.piece({"tool_calls": [{"index": index, **fields}]}))
        for index, given in enumerate(INPUTS)
        for fields in (
            {"id": f"call_{index}", "type": "function", "function": {"name": "look", "arguments": ""}},
            {"function": {"arguments": json.dumps(given)[:5]}},
            {"function": {"arguments": json.dumps(given)[5:]}},
        )
    ]
    thoughts = [chat.data(chat.piece({"reasoning": piece})) for piece in ("Hm, ", "let me see.")]
    return ToolServerStage(
        lambda url: OpenAiCompatible(ModelServer(f"{url}/v1"), model="m", max_tokens=9),
        calling=[
            [sse.STREAM, chat.ROLE, *pieces, chat.finished("tool_calls"), chat.DONE, sse.EOF_],
            chat.whole("a", "b"),
        ],
        thinking=[[sse.STREAM, *thoughts, chat.text("a"), chat.finished(), chat.DONE, sse.EOF_]],
    )


class ScriptFollower(Scripted):
    """Follows a script whatever the message is."""

    def __init__(self, script: str) -> None:
        self._script = script

    def stream(self, request: base.ProviderRequest) -> AsyncGenerator[base.Event, None]:
        return super().stream(request._replace(message=f"#script rate=0 {self._script}"))


class ScriptedToolStage(contract.Stage):
    thought = "r0 r1 "

    @asynccontextmanager
    async def calling(self) -> AsyncIterator[base.Provider]:
        yield ScriptFollower('tokens=2 tool=look:{"city": "Oslo"} tool=look:{"city": "Rome"} tokens=2 echo')

    @asynccontextmanager
    async def thinking(self) -> AsyncIterator[base.Provider]:
        yield ScriptFollower("reason=2 tokens=2")


@pytest.mark.parametrize("check", contract.TOOL_CHECKS, ids=str)
@pytest.mark.parametrize("stage", [anthropic, openai_compatible, ScriptedToolStage])
async def test_our_providers_keep_the_contract(
    stage: Callable[[], contract.Stage], check: contract.Check
) -> None:
    await check(stage(), seconds=WAIT)


class ToolModel:
    """A provider that keeps the contract, with its model inside."""

    model = "good"
    takes_tools: bool = True

    def __init__(self, situation: str) -> None:
        self.situation = situation
        self.received = ""

    async def stream(self, request: base.ProviderRequest) -> AsyncGenerator[base.Event, None]:
        self.received = " ".join(output.text for step in request.steps for output in step.outputs)
        yield base.RequestAccepted("good-1")
        if self.situation == "thinking":
            yield base.Reasoning("Hm, ")
            yield base.Reasoning("so.")
        yield base.Text("a")
        if self.situation == "calling" and not request.steps:
            for call, given in zip("12", INPUTS, strict=True):
                yield base.ToolStart(call, "look")
                yield base.ToolInput(call, json.dumps(given)[:5])
                yield base.ToolInput(call, json.dumps(given)[5:])
                yield base.ToolCall(call, "look", json.dumps(given))
            yield base.Final("tool_use", Usage(), {"calls": ["1", "2"]})
        else:
            yield base.Final("end_turn", Usage(), [])

    async def aclose(self) -> None:
        pass


class ToolModelStage(contract.Stage):
    thought = "Hm, so."

    def __init__(self, make: type[ToolModel]) -> None:
        self._make = make
        self._model: ToolModel | None = None

    @asynccontextmanager
    async def _open(self, situation: str) -> AsyncIterator[base.Provider]:
        self._model = self._make(situation)
        yield self._model

    def calling(self) -> Opened:
        return self._open("calling")

    def thinking(self) -> Opened:
        return self._open("thinking")

    def received(self) -> str:
        return self._model.received if self._model else ""


@pytest.mark.parametrize("check", contract.TOOL_CHECKS, ids=str)
async def test_good_model_keeps_the_contract(check: contract.Check) -> None:
    await check(ToolModelStage(ToolModel), seconds=WAIT)


def saying(change: Callable[[list[base.Event]], list[Any]], *, later: bool = False) -> type[ToolModel]:
    """A model whose events are changed: of each request, or only of ``later`` ones, which have steps."""

    class Changed(ToolModel):
        async def stream(self, request: base.ProviderRequest) -> AsyncGenerator[base.Event, None]:
            events = [event async for event in super().stream(request)]
            for event in change(events) if request.steps or not later else events:
                yield event

    return Changed


def with_each(kind: type[T], change: Callable[[T], Any]) -> Callable[[list[base.Event]], list[Any]]:
    """Events in which those of a kind are replaced, or left out where the change is None."""

    def changed(events: list[base.Event]) -> list[Any]:
        found = [change(event) if isinstance(event, kind) else event for event in events]
        return [event for event in found if event is not None]

    return changed


class TextOnly(ToolModel):
    takes_tools = False


class ForgetsResults(ToolModel):
    async def stream(self, request: base.ProviderRequest) -> AsyncGenerator[base.Event, None]:
        async for event in super().stream(request):
            self.received = "nothing" if request.steps else ""
            yield event


class WantsItsOwnObjects(ToolModel):
    async def stream(self, request: base.ProviderRequest) -> AsyncGenerator[base.Event, None]:
        content = ("a", "tuple")
        if request.steps and request.steps[0].content != content:
            raise base.RequestRefusedError("not what I said")
        async for event in super().stream(request):
            yield event._replace(content=content) if isinstance(event, base.Final) else event


class RefusesToGoOn(ToolModel):
    async def stream(self, request: base.ProviderRequest) -> AsyncGenerator[base.Event, None]:
        if request.so_far:
            raise base.RequestRefusedError("a text behind a result")
        async for event in super().stream(request):
            yield event


FLAWS: list[tuple[str, type[ToolModel], str]] = [
    ("takes tools", TextOnly, "takes_tools is not True"),
    ("calls tools", saying(with_each(base.ToolCall, lambda _: None)), "but ToolCall comes for []"),
    (
        "calls tools",
        saying(with_each(base.ToolCall, lambda call: replace(call, name="other"))),
        "for ['other', 'other']",
    ),
    (
        "calls tools",
        saying(with_each(base.ToolCall, lambda call: replace(call, arguments='{"city": "Os'))),
        "expected JSON of {'city': 'Oslo'}",
    ),
    (
        "calls tools",
        saying(with_each(base.ToolCall, lambda call: replace(call, arguments={"city": "Oslo"}))),
        "expected JSON of {'city': 'Oslo'}",
    ),
    (
        "calls tools",
        saying(with_each(base.Final, lambda final: final._replace(stop_reason="end_turn"))),
        "is 'end_turn'; expected 'tool_use'",
    ),
    ("calls tools", saying(with_each(base.Final, lambda _: None)), "ends without Final"),
    (
        "tells calls apart",
        saying(with_each(base.ToolCall, lambda call: replace(call, call="1"))),
        "['1', '1']; expected different ones",
    ),
    (
        "tells calls apart",
        saying(with_each(base.ToolCall, lambda call: replace(call, call=""))),
        "expected texts that are not empty",
    ),
    (
        "announces calls",
        saying(with_each(base.ToolStart, lambda _: None)),
        "['ToolInput', 'ToolInput', 'ToolCall']; expected ToolStart",
    ),
    (
        "announces calls",
        saying(with_each(base.ToolStart, lambda start: replace(start, name="other"))),
        "expected ToolStart to ToolCall",
    ),
    (
        "announces calls",
        saying(lambda events: [*events[:-1], base.ToolInput("2", "}"), events[-1]]),
        "expected ToolStart to ToolCall",
    ),
    (
        "announces calls",
        saying(with_each(base.ToolInput, lambda piece: replace(piece, delta=""))),
        "a ToolInput is empty",
    ),
    (
        "announces calls",
        saying(with_each(base.ToolInput, lambda piece: replace(piece, delta="{"))),
        "the pieces of an input are ['{', '{']",
    ),
    ("sends results back", ForgetsResults, "'It snows there.' is not in the next request"),
    ("sends results back", WantsItsOwnObjects, "RequestRefusedError is raised: not what I said"),
    (
        "sends results back",
        saying(with_each(base.Final, lambda final: final._replace(content=object()))),
        "Final.content is no JSON",
    ),
    (
        "sends results back",
        saying(with_each(base.ToolCall, lambda _: None)),
        "calls 2 tools, but ToolCall comes 0 times",
    ),
    ("sends results back", saying(with_each(base.Text, lambda _: None), later=True), "no text comes"),
    ("sends results back", saying(with_each(base.Final, lambda _: None), later=True), "ends without Final"),
    ("continues a step", saying(with_each(base.Text, lambda _: None), later=True), "no text comes"),
    ("continues a step", RefusesToGoOn, "RequestRefusedError is raised: a text behind a result"),
    (
        "keeps reasoning out of the text",
        saying(with_each(base.Reasoning, lambda event: base.Text(event.text))),
        "the model thinks 'Hm, so.', but Reasoning says ''",
    ),
    (
        "keeps reasoning out of the text",
        saying(lambda events: [*events[:-1], base.Text("Hm, so."), events[-1]]),
        "is 'aHm, so.'",
    ),
    (
        "keeps reasoning out of the text",
        saying(lambda events: [events[0], base.Reasoning(""), *events[1:]]),
        "expected texts that are not empty",
    ),
    ("keeps reasoning out of the text", saying(with_each(base.Text, lambda _: None)), "thinks first is ''"),
]


@pytest.mark.parametrize(("name", "model", "said"), FLAWS, ids=[f"{name}: {said}" for name, _, said in FLAWS])
async def test_each_flaw_is_seen(name: str, model: type[ToolModel], said: str) -> None:
    (check,) = [check for check in contract.TOOL_CHECKS if check.name == name]
    with pytest.raises(contract.ContractError) as caught:
        await check(ToolModelStage(model), seconds=WAIT)
    assert said in str(caught.value)


def test_each_check_sees_a_flaw() -> None:
    assert {name for name, _, _ in FLAWS} == {check.name for check in contract.TOOL_CHECKS}


def test_checks_are_selected_by_what_they_need() -> None:
    assert contract.checks("calling", "thinking") == contract.TOOL_CHECKS
    assert len({check.name for check in (*contract.CHECKS, *contract.TOOL_CHECKS)}) == len(
        contract.CHECKS + contract.TOOL_CHECKS
    )


@pytest.mark.parametrize("check", contract.TOOL_CHECKS, ids=str)
def test_situation_that_is_not_staged_is_no_success(check: contract.Check) -> None:
    with pytest.raises(NotImplementedError, match=rf"Stage\.{check.situation}\(\) is missing"):
        check.run(contract.Stage())
