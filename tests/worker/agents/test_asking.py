"""What a handler gets of the model, and how the end of an answer becomes that of the reply."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from legato.protocol.jobs import AttachedFile
from legato.protocol.stream import Usage
from legato.worker.agents import Final, HandlerTurn, Text
from legato.worker.agents.answer import StoredAnswer
from legato.worker.agents.handler import HandlerError, HandlerSource, Replay
from legato.worker.providers import base
from legato.worker.providers.scripted import Scripted
from legato.worker.replies.handlers import ContinuingModel
from tests.worker.agents.test_handler import Memory
from tests.worker.support import make_job, model_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from legato.protocol.jobs import Job


class Fake:
    """A model that says ``x`` and ends as it is told, one reason after the other."""

    model = "fake"

    def __init__(self, *reasons: str, content: Any = None) -> None:
        self.reasons = [*reasons]
        self.content = content
        self.requests: list[base.ProviderRequest] = []

    async def stream(self, request: base.ProviderRequest) -> AsyncGenerator[base.Event, None]:
        self.requests.append(request)
        yield base.RequestAccepted("fake")
        yield base.Text("x")
        yield base.Final(self.reasons.pop(0), Usage(output=1), self.content)

    async def aclose(self) -> None:
        pass


def asking(*options: str) -> Callable[[HandlerTurn], AsyncGenerator[Any, None]]:
    async def handler(turn: HandlerTurn) -> AsyncGenerator[Any, None]:
        for _ in options or ("once",):
            async for event in turn.ask():
                yield event

    return handler


async def answer(handler: Any, fake: Any, memory: Memory | None = None, attempt: int = 1) -> list[base.Event]:
    turn = HandlerTurn(make_job("Hi"), 1, memory or Memory(), fake)
    source = HandlerSource(handler, turn, list)
    return [event async for event in source.stream(base.ProviderRequest("Hi", attempt=attempt))]


@pytest.mark.parametrize("reason", ["refusal", "max_tokens", "model_context_window_exceeded"])
async def test_the_reply_ends_as_the_last_answer_did(reason: str) -> None:
    assert (await answer(asking(), Fake(reason)))[-1] == base.Final(reason, Usage(output=1))
    twice = await answer(asking("a", "b"), Fake(reason, "end_turn"))
    assert twice[-1] == base.Final("end_turn", Usage(output=2))


async def test_an_answer_that_is_stored_keeps_its_end() -> None:
    memory = Memory()
    for _ in range(2):
        assert (await answer(asking(), Fake("refusal"), memory))[-1].stop_reason == "refusal"


async def test_a_final_of_the_handler_decides() -> None:
    async def handler(turn: HandlerTurn) -> AsyncGenerator[Any, None]:
        async for event in turn.ask():
            yield event
        assert turn.stop_reason == "refusal"
        yield "Ask me something else."
        yield Final("end_turn", turn.usage)

    assert (await answer(handler, Fake("refusal")))[-1] == base.Final("end_turn", Usage(output=1))


async def test_a_model_that_pauses_is_asked_to_go_on() -> None:
    fake = Fake("pause_turn", "pause_turn", "end_turn", content=["kept"])
    found = await answer(asking(), fake)
    assert [event for event in found if isinstance(event, base.Text)] == [Text("x")] * 3
    assert found[-1] == base.Final("end_turn", Usage(output=3))
    assert [len(request.steps) for request in fake.requests] == [0, 1, 2]
    assert fake.requests[2].steps == (base.Step(["kept"]),) * 2


async def test_a_model_that_pauses_for_ever_is_not_asked_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("legato.worker.agents.handler.HANDLER_MAX_PAUSES", 2)
    fake = Fake(*["pause_turn"] * 9, content=["kept"])
    assert (await answer(asking(), fake))[-1].stop_reason == "pause_turn"
    assert len(fake.requests) == 3


async def test_a_pause_without_content_is_an_end() -> None:
    assert (await answer(asking(), Fake("pause_turn")))[-1].stop_reason == "pause_turn"


async def test_the_model_is_told_which_attempt_it_is() -> None:
    fake = Fake("end_turn")
    await answer(asking(), fake, attempt=3)
    assert fake.requests[0].attempt == 3


async def test_an_answer_that_was_stored_without_its_end_can_still_be_read() -> None:
    said = StoredAnswer.decode(msgspec.json.encode(([("text", "x")], Usage(output=1))))
    assert (said.events, said.end) == ([base.Text("x")], base.Final("end_turn", Usage(output=1)))


def job_with_options() -> Job:
    picture = AttachedFile(type="image", url="https://example.com/a.png")
    job = make_job("Hi")
    return msgspec.structs.replace(job, model="m1", system="Be brief", max_tokens=77, attachments=(picture,))


@pytest.mark.parametrize("message", [None, "Something else"])
async def test_the_options_of_a_job_go_with_each_request_and_attachments_with_its_message(
    message: str | None,
) -> None:
    fake, job = Fake("end_turn"), job_with_options()
    turn = HandlerTurn(job, 1, Memory(), ContinuingModel(model_of(fake), job))
    turn.begin(Replay(()), 1)
    wanted = base.RequestOptions(model="other", extra={"top_k": 5})
    assert [event async for event in turn.ask(message, options=wanted)] == [base.Text("x")]
    (request,) = fake.requests
    assert (request.options.model, request.options.system, request.options.max_tokens) == (
        "m1",
        "Be brief",
        77,
    )
    assert request.options.extra == {"top_k": 5}
    assert [one.url for one in request.attachments] == ([] if message else ["https://example.com/a.png"])


async def test_a_fault_of_the_first_attempt_is_over_in_the_second() -> None:
    async def handler(turn: HandlerTurn) -> AsyncGenerator[Any, None]:
        async for event in turn.ask("#script rate=0 tokens=3 fail=disconnect@1"):
            yield event

    with pytest.raises(base.ProviderError):
        await answer(handler, Scripted())
    assert (await answer(handler, Scripted(), attempt=2))[-1].stop_reason == "end_turn"


@pytest.mark.parametrize("option", ["server_tools", "mcp_servers"])
async def test_tools_that_the_provider_would_ignore_are_refused(option: str) -> None:
    fake = Fake("end_turn")
    turn = HandlerTurn(make_job("Hi"), 1, Memory(), ContinuingModel(model_of(fake)))
    options = msgspec.structs.replace(base.PLAIN, **{option: ({"type": "web_search_20250305"},)})
    with pytest.raises(HandlerError, match="asks for server tools; this provider takes none"):
        [event async for event in turn.ask(options=options)]
    assert fake.requests == []
