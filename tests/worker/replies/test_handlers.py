"""A handler's reply over real Redis: what is left when a worker dies, and what a handler must not do."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest

from legato.protocol import wire
from legato.protocol.stream import Usage
from legato.worker.agents import Citation, Final, HandlerTurn, Reasoning, ServerToolCall, ServerToolResult
from legato.worker.replies.log import MessageLog
from legato.worker.replies.runner import Outcome
from legato.worker.replies.stop import Control, StopReason
from tests.waiting import until
from tests.worker.replies.test_agent_writer import AgentStage, data_of, names, offsets_are_whole
from tests.worker.support import Ears, make_job

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from redis.asyncio import Redis

    from legato.protocol.jobs import Job
    from legato.worker.store.conversations import Store


@pytest.fixture
def stage(redis: Redis, store: Store) -> AgentStage:
    return AgentStage(redis, store)


def failing(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


class Shop:
    """A handler with every kind of event, and a service that it asks."""

    def __init__(self) -> None:
        self.asked = 0
        self.attempts: list[int] = []

    async def rate(self) -> dict[str, int]:
        self.asked += 1
        return {"rate": self.asked}

    async def reply(self, turn: HandlerTurn) -> AsyncGenerator[Any, None]:
        self.attempts.append(turn.attempt)
        yield Reasoning("let me see")
        yield f"You said {turn.message}. "
        rate = (await turn.once("rate", self.rate))["rate"]
        yield ServerToolCall("c1", "rates", {"currency": "EUR"})
        yield ServerToolResult("c1", "rates", ok=True, output=rate)
        for word in ("It ", "is ", f"{rate}", " 😀"):
            yield word
        yield Citation(url="https://example.com")
        yield Final("end_turn", Usage(input=1, output=2))


WHOLE = "You said Hello. It is 1 😀"


async def test_each_event_of_a_handler_reaches_readers(stage: AgentStage) -> None:
    job, shop = make_job(), Shop()
    async with Ears(stage.redis, job) as ears:
        assert await stage.answer(shop.reply, job) is Outcome.DONE
        await ears.all()
    offsets_are_whole(ears)
    assert "".join(ears.tokens) == WHOLE
    assert names(ears) == [
        *("stream.started", "reasoning.received", "token.received", "tool.called", "tool.finished"),
        *("token.received", "citation.received", "stream.completed"),
    ]
    (end,) = data_of(ears, "stream.completed")
    assert end["usage"]["output"] == 2
    assert not await stage.redis.exists(wire.steps_key(job.app_id, job.channel, job.message_id))


class Deaths:
    """Ends the worker at the n-th write, before or after Redis has it. Each event is written alone."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int, *, after: bool) -> None:
        self.writes = 0
        self.entries = 0
        self.worker: asyncio.Task[Outcome] | None = None
        self.at = at
        self.after = after
        for name in ("append", "remember", "decide"):
            monkeypatch.setattr(MessageLog, name, self._dying(getattr(MessageLog, name)))

    def _dying(self, write: Callable[..., Any]) -> Callable[..., Any]:
        async def call(log: MessageLog, *arguments: Any) -> Any:
            self.writes += 1
            mine = self.writes == self.at + 1
            answer = None if mine and not self.after else await write(log, *arguments)
            if mine:
                assert self.worker is not None
                self.worker.cancel()
                await asyncio.Event().wait()
            self.entries += write.__name__ == "append" and len(arguments[0])
            return answer

        return call

    def slowly(self, handler: Callable[..., Any]) -> Callable[..., Any]:
        async def slow(turn: HandlerTurn) -> AsyncGenerator[Any, None]:
            yielded = 0
            async for event in handler(turn):
                yield event
                yielded += not isinstance(event, Final)
                if turn.attempt == 1:
                    await until(lambda yielded=yielded: self.entries >= yielded)

        return slow

    async def run(self, stage: AgentStage, handler: Callable[..., Any], job: Job) -> None:
        """One worker that dies, and another that finishes."""
        self.worker = asyncio.create_task(stage.answer(self.slowly(handler), job))
        await asyncio.wait({self.worker})
        assert self.worker.cancelled(), "it did not come so far"
        assert await stage.answer(self.slowly(handler), job, ticket="2") is Outcome.DONE


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", range(11))
async def test_wherever_a_worker_dies_the_reply_goes_on_and_nothing_is_twice(
    stage: AgentStage, monkeypatch: pytest.MonkeyPatch, at: int, after: bool
) -> None:
    job, shop = make_job(), Shop()
    async with Ears(stage.redis, job) as ears:
        await Deaths(monkeypatch, at, after=after).run(stage, shop.reply, job)
        await ears.all()
    offsets_are_whole(ears)
    assert "parts.retracted" not in names(ears)
    for name in ("reasoning.received", "tool.called", "tool.finished", "citation.received"):
        assert len(data_of(ears, name)) == 1, name
    assert ears.ends == ["stream.completed"]
    rates = [data["output"] for data in data_of(ears, "tool.finished")]
    assert "".join(ears.tokens) == WHOLE.replace("1", str(rates[0]))
    assert shop.attempts == ([1] if at == 10 and after else [1, 2])


async def interview(turn: HandlerTurn) -> AsyncGenerator[Any, None]:
    """Asks the model twice, which pauses once."""
    yield "Intro: "
    async for event in turn.ask("#script rate=0 reason=2 tokens=2 pause tokens=2"):
        yield event
    yield Citation(url="https://example.com")
    async for event in turn.ask("#script rate=0 tokens=3"):
        yield event


ANSWER = "Intro: w0 w1 w2 w3 w0 w1 w2 "


async def test_a_handler_passes_on_what_the_model_says(stage: AgentStage) -> None:
    job = make_job()
    async with Ears(stage.redis, job) as ears:
        assert await stage.answer(interview, job) is Outcome.DONE
        await ears.all()
    assert "".join(ears.tokens) == ANSWER
    assert [data["delta"] for data in data_of(ears, "reasoning.received")] == ["r0 ", "r1 "]
    (end,) = data_of(ears, "stream.completed")
    assert end["usage"]["output"] == 9, "of both requests"


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", range(14))
async def test_a_model_that_a_handler_asks_goes_on_behind_what_readers_have(
    stage: AgentStage, monkeypatch: pytest.MonkeyPatch, at: int, after: bool
) -> None:
    job = make_job()
    async with Ears(stage.redis, job) as ears:
        await Deaths(monkeypatch, at, after=after).run(stage, interview, job)
        await ears.all()
    offsets_are_whole(ears)
    assert "".join(ears.tokens) == ANSWER
    assert len(data_of(ears, "citation.received")) == 1
    assert ears.ends == ["stream.completed"]


async def test_once_is_not_called_again_by_the_next_worker(stage: AgentStage) -> None:
    job, calls, stored = make_job(), [], asyncio.Event()

    async def function() -> str:
        calls.append(1)
        return f"call {len(calls)}"

    async def reply(turn: HandlerTurn) -> AsyncGenerator[str, None]:
        yield "a "
        value = await turn.once("k", function)
        stored.set()
        if turn.attempt == 1:
            await asyncio.Event().wait()
        yield value

    first = asyncio.create_task(stage.answer(reply, job))
    await stored.wait()
    first.cancel()
    await asyncio.wait({first})
    async with Ears(stage.redis, job) as ears:
        assert await stage.answer(reply, job, ticket="2") is Outcome.DONE
        await ears.all()
    assert len(calls) == 1
    assert [data["token"] for data in data_of(ears, "token.received")][-1] == "call 1"


async def nonsense(_turn: HandlerTurn) -> AsyncGenerator[Any, None]:
    yield "a"
    yield 7


async def after_the_end(_turn: HandlerTurn) -> AsyncGenerator[Any, None]:
    yield Final("end_turn", Usage())
    yield "a"


async def exits(_turn: HandlerTurn) -> AsyncGenerator[Any, None]:
    yield "a"
    raise SystemExit(3)


async def cancels(_turn: HandlerTurn) -> AsyncGenerator[Any, None]:
    yield "a"
    raise asyncio.CancelledError


async def breaks(_turn: HandlerTurn) -> AsyncGenerator[Any, None]:
    raise OSError("no such file")
    yield "a"


@pytest.mark.parametrize("handler", [nonsense, after_the_end, exits, cancels, breaks])
async def test_a_handler_that_does_what_it_must_not_fails_alone(
    stage: AgentStage, handler: Any, caplog: pytest.LogCaptureFixture
) -> None:
    job = make_job()
    async with Ears(stage.redis, job) as ears:
        assert await stage.answer(handler, job) is Outcome.DONE
        await ears.all()
    (end,) = data_of(ears, "stream.failed")
    assert end["code"] == "internal"
    assert failing(caplog) == ["reply m1: failed by an internal error"]
    assert await stage.answer(Shop().reply, make_job(message_id="m2")) is Outcome.DONE


async def test_a_handler_that_says_something_else_after_a_crash_fails(
    stage: AgentStage, caplog: pytest.LogCaptureFixture
) -> None:
    job = make_job()

    async def moody(turn: HandlerTurn) -> AsyncGenerator[str, None]:
        yield f"attempt {turn.attempt}"
        await asyncio.Event().wait()

    async with Ears(stage.redis, job) as ears:
        first = asyncio.create_task(stage.answer(moody, job))
        await ears.until("token.received")
        first.cancel()
        await asyncio.wait({first})
        assert await stage.answer(moody, job, ticket="2") is Outcome.DONE
        await ears.all()
    (end,) = data_of(ears, "stream.failed")
    assert end["code"] == "internal"
    assert ears.tokens == ["attempt 1"], "what readers have is kept"
    assert failing(caplog) == ["reply m1: failed by an internal error"]


async def test_a_cancel_closes_the_handler(stage: AgentStage) -> None:
    job, control, closed = make_job(), Control(), asyncio.Event()

    async def endless(_turn: HandlerTurn) -> AsyncGenerator[str, None]:
        try:
            yield "a"
            await asyncio.Event().wait()
        finally:
            closed.set()

    async with Ears(stage.redis, job) as ears:
        task = asyncio.create_task(stage.answer(endless, job, control))
        await ears.until("token.received")
        control.stop(StopReason.CANCELLED)
        assert await task is Outcome.DONE
        await ears.all()
    assert ears.ends == ["stream.cancelled"]
    async with asyncio.timeout(30):
        await closed.wait()


async def test_an_unknown_agent_fails_the_reply(stage: AgentStage, caplog: pytest.LogCaptureFixture) -> None:
    job = make_job(agent="nobody")
    async with Ears(stage.redis, job) as ears:
        assert await stage.answer(Shop().reply, job) is Outcome.DONE
        await ears.all()
    (end,) = data_of(ears, "stream.failed")
    assert end["code"] == "unknown_agent"
    assert "reply m1: there is no agent nobody" in caplog.text
