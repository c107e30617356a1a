"""The contract: kept by the providers that come with Legato, and told apart from each way to break it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest

from legato.protocol.stream import Usage
from legato.worker.providers import base, contract
from legato.worker.providers.openai_compatible import ModelServer, OpenAiCompatible
from legato.worker.providers.scripted import Scripted
from tests.waiting import WAIT
from tests.worker.providers import chat_completions as chat
from tests.worker.providers import sse_server as sse
from tests.worker.providers.claude import anthropic_provider
from tests.worker.providers.sse_server import SseServer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

    from legato.worker.providers.contract_stage import Opened

KEY = "sk-secret-key"
REQUESTS = 8
"""More than any check sends."""


class ServerStage(contract.Stage):
    """A provider in front of a scripted server."""

    secret = KEY

    def __init__(self, make: Callable[[str], base.Provider], **scripts: list[sse.Step]) -> None:
        self._make = make
        self._scripts = scripts

    @asynccontextmanager
    async def _server(self, situation: str) -> AsyncIterator[base.Provider]:
        async with SseServer(*[self._scripts[situation]] * REQUESTS) as server:
            self.closed = server.closed.wait
            yield self._make(server.url)

    def whole(self) -> Opened:
        return self._server("whole")

    def cut(self) -> Opened:
        return self._server("cut")

    def silent(self) -> Opened:
        return self._server("silent")

    def overloaded(self) -> Opened:
        return self._server("overloaded")

    def refused(self) -> Opened:
        return self._server("refused")


def anthropic() -> contract.Stage:
    begun = [sse.STREAM, sse.START, sse.BLOCK, sse.text("a")]
    return ServerStage(
        lambda url: anthropic_provider(api_key=KEY, model="m", max_tokens=9, base_url=url),
        whole=sse.whole("a", "b"),
        cut=[*begun, sse.ABORT],
        silent=[*begun, sse.HANG],
        overloaded=sse.refused(529, "overloaded_error", message=f"not {KEY}"),
        refused=sse.refused(401, "authentication_error", message=f"bad key {KEY}"),
    )


def openai_compatible() -> contract.Stage:
    begun = [sse.STREAM, chat.ROLE, chat.text("a")]
    return ServerStage(
        lambda url: OpenAiCompatible(ModelServer(f"{url}/v1", KEY), model="m", max_tokens=9),
        whole=chat.whole("a", "b"),
        cut=[*begun, sse.ABORT],
        silent=[*begun, sse.HANG],
        overloaded=chat.refused(429, "retry-after: 1", message=f"not {KEY}"),
        refused=chat.refused(401, message=f"bad key {KEY}"),
    )


class ToldScripted(Scripted):
    """Follows a script whatever the message is."""

    def __init__(self, script: str, **replaced: Any) -> None:
        self._replaced = {"message": f"#script tokens=4 rate=0 {script}", **replaced}

    def stream(self, request: base.ProviderRequest) -> AsyncGenerator[base.Event, None]:
        return super().stream(request._replace(**self._replaced))


class ScriptedStage(contract.Stage):
    @asynccontextmanager
    async def whole(self) -> AsyncIterator[base.Provider]:
        yield ToldScripted("")

    @asynccontextmanager
    async def cut(self) -> AsyncIterator[base.Provider]:
        yield ToldScripted("fail=disconnect@1")

    @asynccontextmanager
    async def silent(self) -> AsyncIterator[base.Provider]:
        yield ToldScripted("fail=hang@1")

    @asynccontextmanager
    async def overloaded(self) -> AsyncIterator[base.Provider]:
        yield ToldScripted("fail=overloaded@0")

    @asynccontextmanager
    async def refused(self) -> AsyncIterator[base.Provider]:
        yield ToldScripted("", so_far="somebody else's text")


@pytest.mark.parametrize("check", contract.CHECKS, ids=str)
@pytest.mark.parametrize("stage", [anthropic, openai_compatible, ScriptedStage])
async def test_our_providers_keep_the_contract(
    stage: Callable[[], contract.Stage], check: contract.Check
) -> None:
    await check(stage(), seconds=WAIT)


class Model:
    """A provider that keeps the contract, with its model inside."""

    model = "good"

    def __init__(self, situation: str) -> None:
        self.situation = situation
        self.closed = asyncio.Event()
        self.asked = 0

    async def connect(self) -> None:
        self.asked += 1
        await asyncio.sleep(0)
        if self.situation == "overloaded":
            raise base.OverloadedError("busy", 1.0)
        if self.situation == "refused":
            raise base.RequestRefusedError("bad key")

    async def wait(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.closed.set()

    async def stream(self, _: base.ProviderRequest) -> AsyncGenerator[base.Event, None]:
        await self.connect()
        yield base.RequestAccepted("good-1")
        yield base.Used(Usage(input=3))
        try:
            yield base.Text("a")
            if self.situation == "cut":
                raise base.CutError("cut")
            if self.situation == "silent":
                await self.wait()
        finally:
            self.closed.set()
        yield base.Text("b")
        yield base.Final("end_turn", Usage(input=3, output=2))

    async def aclose(self) -> None:
        pass


class ModelStage(contract.Stage):
    secret = "hush"

    def __init__(self, make: type[Model]) -> None:
        self._make = make

    @asynccontextmanager
    async def _model(self, situation: str) -> AsyncIterator[base.Provider]:
        model = self._make(situation)
        self.closed = model.closed.wait
        yield model

    def whole(self) -> Opened:
        return self._model("whole")

    def cut(self) -> Opened:
        return self._model("cut")

    def silent(self) -> Opened:
        return self._model("silent")

    def overloaded(self) -> Opened:
        return self._model("overloaded")

    def refused(self) -> Opened:
        return self._model("refused")


@pytest.mark.parametrize("check", contract.CHECKS, ids=str)
async def test_good_model_keeps_the_contract(check: contract.Check) -> None:
    await check(ModelStage(Model), seconds=WAIT)


def saying(change: Callable[[list[base.Event]], list[Any]]) -> type[Model]:
    """A model whose events are changed, where it answers them all."""

    class Changed(Model):
        async def stream(self, request: base.ProviderRequest) -> AsyncGenerator[base.Event, None]:
            if self.situation != "whole":
                raise base.RequestRefusedError("asked for nothing else")
            for event in change([event async for event in super().stream(request)]):
                yield event

    return Changed


class Nameless(Model):
    model = ""


class ForgetsToGoOn(Model):
    async def stream(self, request: base.ProviderRequest) -> AsyncGenerator[base.Event, None]:
        if request.so_far:
            raise ValueError("no such turn")
        async for event in super().stream(request):
            yield event


class WantsTheUserFirst(Model):
    async def stream(self, request: base.ProviderRequest) -> AsyncGenerator[base.Event, None]:
        if request.history and request.history[0].role == "assistant":
            raise base.RequestRefusedError("the first turn must be the user's")
        async for event in super().stream(request):
            yield event


class OneAtATime(Model):
    busy = False

    async def connect(self) -> None:
        if self.busy:
            raise base.ProviderUnavailableError("busy")
        self.busy = True
        await asyncio.sleep(0.01)
        self.busy = False


class SwallowsAndEnds(Model):
    async def wait(self) -> None:
        with suppress(asyncio.CancelledError):
            await super().wait()


class SwallowsAndGoesOn(Model):
    async def wait(self) -> None:
        for _ in range(2):  # the end of the loop is one more cancellation
            with suppress(asyncio.CancelledError):
                await super().wait()
        await asyncio.sleep(0)


class SwallowsAndHangs(Model):
    async def wait(self) -> None:
        try:
            await super().wait()
        except asyncio.CancelledError:
            await asyncio.Event().wait()


class MakesAnErrorOfACancellation(Model):
    async def wait(self) -> None:
        try:
            await super().wait()
        except asyncio.CancelledError:
            raise base.CutError("cancelled") from None


class LeavesTheRequestOpen(Model):
    def __init__(self, situation: str) -> None:
        super().__init__(situation)
        self.closed = type("Never", (), {"wait": asyncio.Event().wait, "set": lambda _: None})()


class SwallowsWhileItConnects(Model):
    async def connect(self) -> None:
        try:
            await super().connect()
        except asyncio.CancelledError:
            raise base.ProviderUnavailableError("cancelled") from None


class YieldsWhenItIsClosed(Model):
    async def stream(self, request: base.ProviderRequest) -> AsyncGenerator[base.Event, None]:
        try:
            async for event in super().stream(request):
                yield event
        finally:
            yield base.Final("closed", Usage())


class HangsWhenItIsClosed(Model):
    async def stream(self, _: base.ProviderRequest) -> AsyncGenerator[base.Event, None]:
        try:
            yield base.Text("a")
        finally:
            await asyncio.Event().wait()


class AnswersOnce(Model):
    async def connect(self) -> None:
        await super().connect()
        if self.asked > 1:
            raise base.ProviderUnavailableError("the connection is in use")


class HangsAtTheSecond(Model):
    async def connect(self) -> None:
        await super().connect()
        if self.asked > 1:
            await asyncio.Event().wait()


class SilentAtOnce(Model):
    async def connect(self) -> None:
        await asyncio.Event().wait()


class EndsAtOnce(Model):
    async def stream(self, _: base.ProviderRequest) -> AsyncGenerator[base.Event, None]:
        await self.connect()
        yield base.RequestAccepted("good-1")


def failing(*events: base.Event, error: Exception | None) -> type[Model]:
    """A model that says this, and then fails."""

    class Failing(Model):
        async def stream(self, _: base.ProviderRequest) -> AsyncGenerator[base.Event, None]:
            for event in events:
                yield event
            if error is not None:
                raise error

    return Failing


class Unclosable(Model):
    async def aclose(self) -> None:
        await asyncio.Event().wait()


STARTED, TEXT, FINAL = base.RequestAccepted("m"), base.Text("a"), base.Final("end_turn", Usage(input=3))
BUSY = base.OverloadedError("busy")


def without(kind: type) -> Callable[[list[base.Event]], list[Any]]:
    return lambda events: [event for event in events if not isinstance(event, kind)]


FLAWS: list[tuple[str, type[Model], str]] = [
    ("names its model", Nameless, "model is ''"),
    ("names its model", Unclosable, "aclose() does not end within"),
    ("yields events", saying(lambda events: [*events[:2], "a", *events[2:]]), "'a' is no event"),
    ("starts once", saying(without(base.RequestAccepted)), "RequestAccepted comes 0 times"),
    ("starts once", saying(lambda events: [events[0], *events]), "RequestAccepted comes 2 times"),
    ("starts once", saying(lambda events: [TEXT, *events]), "before any Text"),
    ("starts once", saying(lambda events: [base.RequestAccepted(""), *events[1:]]), "has no model"),
    ("starts once", saying(lambda _: []), "RequestAccepted comes 0 times"),
    ("ends once", saying(without(base.Final)), "ends without Final"),
    ("ends once", saying(lambda events: [*events, TEXT]), "Text comes after Final"),
    ("ends once", saying(lambda events: [*events, FINAL]), "Final comes after Final"),
    ("ends once", saying(lambda events: [*events[:-1], base.Final("", Usage())]), "has no stop_reason"),
    ("ends once", failing(STARTED, error=base.CutError("x")), "but CutError is raised: x"),
    ("ends once", failing(STARTED, error=ValueError("x")), "but ValueError is raised: x"),
    ("streams text", saying(lambda events: [base.Text(""), *events]), "has no text"),
    ("streams text", saying(lambda events: [base.Text(b"a"), *events]), "has no text"),  # type: ignore[arg-type]
    ("streams text", saying(lambda events: [events[0], TEXT, events[-1]]), "1 Text is yielded"),
    (
        "counts usage cumulatively",
        saying(lambda events: [base.Used(Usage(input=4)), *events]),
        "usage.input is [4, 3, 3]",
    ),
    (
        "counts usage cumulatively",
        saying(lambda _: [base.Used(Usage(output=-1)), FINAL]),
        "usage.output is [-1, 0]",
    ),
    ("continues", ForgetsToGoOn, "but ValueError is raised: no such turn"),
    ("continues", failing(STARTED, error=None), "a continuation ends without Final"),
    ("accepts any history", WantsTheUserFirst, "the first turn must be the user's"),
    ("answers several at once", OneAtATime, "ProviderUnavailableError is raised: busy"),
    ("answers several at once", failing(STARTED, error=None), "several requests ends without Final"),
    ("is cancelled", SwallowsAndEnds, "a cancellation is swallowed: the stream ends"),
    ("is cancelled", SwallowsAndGoesOn, "goes on after its task was cancelled"),
    ("is cancelled", SwallowsAndHangs, "goes on after its task was cancelled"),
    ("is cancelled", MakesAnErrorOfACancellation, "a cancellation is swallowed: CutError"),
    ("is cancelled", LeavesTheRequestOpen, "does not see that the request is closed"),
    ("is cancelled", SilentAtOnce, "no text comes within"),
    ("is cancelled", EndsAtOnce, "no text comes of a silent model: it ends"),
    ("is cancelled", failing(error=BUSY), "no text comes of a silent model: OverloadedError: busy"),
    ("is cancelled before it begins", SwallowsWhileItConnects, "is swallowed: ProviderUnavailableError"),
    ("is closed", YieldsWhenItIsClosed, "the generator goes on when it is closed"),
    ("is closed", HangsWhenItIsClosed, "closing the generator does not end within"),
    ("is closed", LeavesTheRequestOpen, "does not see that the request is closed"),
    ("answers after a cancellation", AnswersOnce, "ProviderUnavailableError: the connection is in use"),
    ("answers after a cancellation", HangsAtTheSecond, "after a cancellation, no text comes"),
    ("reports a cut", failing(STARTED, TEXT, error=None), "ends as if all were well"),
    ("reports a cut", failing(STARTED, TEXT, error=ConnectionError("x")), "ConnectionError is raised"),
    ("reports a cut", failing(STARTED, TEXT, error=base.RequestRefusedError("x")), "expected CutError"),
    ("reports a cut", failing(STARTED, error=base.CutError("x")), "the text before the cut is lost"),
    (
        "reports a cut",
        failing(STARTED, TEXT, FINAL, error=base.CutError("x")),
        "Final comes before the error",
    ),
    ("reports a cut", failing(STARTED, TEXT, error=base.CutError("the key hush")), "holds the secret"),
    ("reports overload", failing(error=base.ProviderUnavailableError("x")), "expected OverloadedError"),
    ("reports overload", failing(STARTED, TEXT, error=BUSY), "text comes from a model that refuses"),
    ("reports overload", failing(error=base.OverloadedError("x", float("nan"))), "retry_after is nan"),
    ("reports overload", failing(error=base.OverloadedError("x", -1)), "retry_after is -1"),
    ("reports a refusal", failing(error=BUSY), "expected RequestRefusedError"),
    ("reports a refusal", failing(error=base.ProviderUnavailableError("x")), "expected RequestRefusedError"),
]


ENDLESS = ("within", "goes on after", "does not see", "no text comes")
"""What a check says when it has waited for something in vain."""


@pytest.mark.parametrize(("name", "model", "said"), FLAWS, ids=[f"{name}: {said}" for name, _, said in FLAWS])
async def test_each_flaw_is_seen(name: str, model: type[Model], said: str) -> None:
    (check,) = [check for check in contract.CHECKS if check.name == name]
    with pytest.raises(contract.ContractError) as caught:
        await check(ModelStage(model), seconds=0.5 if any(word in said for word in ENDLESS) else WAIT)
    assert said in str(caught.value)


def test_each_check_sees_a_flaw() -> None:
    assert {name for name, _, _ in FLAWS} == {check.name for check in contract.CHECKS}


def test_checks_are_selected_by_what_they_need() -> None:
    assert {check.situation for check in contract.checks("whole", "cut")} == {"whole", "cut"}
    assert contract.checks("whole", "cut", "silent", "overloaded", "refused") == contract.CHECKS


@pytest.mark.parametrize("check", contract.CHECKS, ids=str)
def test_situation_that_is_not_staged_is_no_success(check: contract.Check) -> None:
    with pytest.raises(NotImplementedError, match=rf"Stage\.{check.situation}\(\) is missing"):
        check.run(contract.Stage())
