"""Handlers: what they yield, what is dropped after a crash, and what is refused."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from legato.protocol import parts
from legato.protocol.stream import Usage
from legato.protocol.text import well_formed
from legato.worker.agents import (
    Citation,
    Final,
    HandlerTurn,
    Reasoning,
    ServerToolCall,
    ServerToolResult,
    Text,
    shown,
)
from legato.worker.agents import handler as handler_module
from legato.worker.agents.handler import HandlerError, HandlerSource, Replay, _event
from legato.worker.limits import HANDLER_MAX_ONCE_BYTES
from legato.worker.providers import base
from legato.worker.providers.scripted import Scripted
from tests.waiting import WAIT
from tests.worker.support import make_job

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from legato.worker.agents.handler import Recorded


class Memory:
    """Durable values in a dict."""

    def __init__(self) -> None:
        self.stored: dict[str, bytes] = {}

    async def recall(self, key: str) -> bytes | None:
        return self.stored.get(key)

    async def remember(self, key: str, value: bytes) -> bytes:
        return self.stored.setdefault(key, value)


def turn(attempt: int = 1, memory: Memory | None = None) -> HandlerTurn:
    return HandlerTurn(make_job("Hi"), attempt, memory or Memory(), Scripted())


def yielding(*events: Any) -> Any:
    async def handler(_turn: HandlerTurn) -> AsyncGenerator[Any, None]:
        for event in events:
            yield event

    return handler


async def answered(handler: Any, recorded: Sequence[Recorded] = ()) -> list[base.Event]:
    """What the source says."""
    source = HandlerSource(handler, turn(), lambda: recorded)
    found: list[base.Event] = []
    async with asyncio.timeout(WAIT), aclosing(source.stream(base.ProviderRequest("Hi"))) as events:
        found += [event async for event in events]
    return found


async def refused(handler: Any, recorded: Sequence[Recorded] = ()) -> str:
    with pytest.raises(HandlerError) as caught:
        await answered(handler, recorded)
    return str(caught.value)


# --- what is written of events, as a log has it


def written(events: Sequence[base.Event]) -> list[Recorded]:
    """Successive texts as one text."""
    log: list[Recorded] = []
    text = ""
    for event in events:
        if isinstance(event, base.Text):
            text += event.text
            continue
        part = shown.part_of(event, shown.EVERYTHING, {})
        assert part is not None
        log += [well_formed(text)] if text else []
        text = ""
        log.append((part.kind, parts.encode(part)))
    return [*log, well_formed(text)] if text else log


def cut_after(log: Sequence[Recorded], characters: int, tokens: int) -> list[Recorded]:
    """The beginning of a log: a text is as long as its characters, any other part is 1 long.

    :param tokens: how long its pieces of text are.
    """
    found: list[Recorded] = []
    for entry in log:
        if characters <= 0:
            break
        if isinstance(entry, str):
            kept = entry[:characters]
            found += [kept[at : at + tokens] for at in range(0, len(kept), tokens)]
            characters -= len(entry)
        else:
            found.append(entry)
            characters -= 1
    return found


def flat(log: Sequence[Recorded]) -> list[Recorded]:
    """Character by character."""
    return [one for entry in log for one in ([*entry] if isinstance(entry, str) else [entry])]


_LETTERS = st.sampled_from("ab\ud83d\ude00é😀")
_EVENTS = st.lists(
    st.text(_LETTERS, max_size=4).map(base.Text)
    | st.text(_LETTERS, max_size=2).map(Reasoning)
    | st.builds(Citation, title=st.text(_LETTERS, max_size=2))
    | st.builds(ServerToolCall, st.just("c"), st.just("n"), st.integers())
    | st.builds(ServerToolResult, st.just("c"), st.just("n"), st.booleans(), st.integers()),
    max_size=12,
).map(lambda events: [_event(event) for event in events])


@example([base.Text("a\ud83d"), Reasoning("r"), base.Text("\ude00b")], 0, 1)
@example([base.Text("a\ud83d"), base.Text("\ude00b")], 1, 1)
@given(_EVENTS, st.integers(0, 40), st.integers(1, 5))
def test_wherever_the_log_ends_the_same_handler_goes_on_behind_it(
    events: list[base.Event], characters: int, tokens: int
) -> None:
    whole = written(events)
    log = cut_after(whole, characters, tokens)
    replay = Replay(log)
    new = [one for event in events for one in replay.feed(event)] + replay.end()
    assert all(isinstance(event, base.Text) or event in events for event in new)
    assert flat([*log, *written(new)]) == flat(whole)


@given(_EVENTS, _EVENTS, st.integers(0, 40))
def test_another_handler_is_refused_unless_it_agrees_with_the_log(
    before: list[base.Event], now: list[base.Event], characters: int
) -> None:
    log = cut_after(written(before), characters, 2)
    replay = Replay(log)
    agrees = flat(written(now))[: len(flat(log))] == flat(log)
    try:
        new = [one for event in now for one in replay.feed(event)] + replay.end()
    except HandlerError:
        assert not agrees
    else:
        assert agrees
        assert flat([*log, *written(new)]) == flat(written(now))


@pytest.mark.parametrize(
    ("log", "events", "said"),
    [
        (["ab"], ["a"], "the handler ended before what it had yielded"),
        (["ab"], ["ax"], "the handler yielded another text than before"),
        (["ab"], [Reasoning("r")], "the handler yielded another reasoning than before"),
        ([("reasoning", b'{"delta":"r"}')], ["a"], "the handler yielded text where it had not"),
        ([("reasoning", b'{"delta":"r"}')], [Reasoning("s")], "the handler yielded another reasoning"),
        ([("reasoning", b'{"delta":"r"}')], [], "the handler ended before what it had yielded"),
    ],
)
async def test_a_handler_that_yields_something_else_after_a_crash_is_refused(
    log: list[Recorded], events: list[Any], said: str
) -> None:
    assert said in await refused(yielding(*events), log)


# --- events


async def test_the_events_of_a_handler_and_an_end() -> None:
    citation = Citation(url="https://example.com")
    found = await answered(yielding("a", Text("b"), citation, Final("done", Usage(output=2))))
    assert found == [
        *(base.RequestAccepted("handler"), base.Text("a"), base.Text("b"), citation),
        base.Final("done", Usage(output=2)),
    ]


async def test_a_handler_that_ends_without_a_final_has_ended() -> None:
    assert (await answered(yielding("a")))[-1] == base.Final("end_turn", Usage())


async def test_half_a_character_at_the_end_is_replaced() -> None:
    assert (await answered(yielding("a\ud83d")))[1:-1] == [base.Text("a"), base.Text("\ufffd")]


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (7, "the handler yielded a int; expected a str, Text, Reasoning, "),
        (None, "the handler yielded a NoneType"),
        (b"bytes", "the handler yielded a bytes"),
        (base.Text(7), "the handler yielded a Text"),  # type: ignore[arg-type]
        (Reasoning(7), "the handler yielded an invalid Reasoning: "),  # type: ignore[arg-type]
        (Citation(url=object()), "the handler yielded an invalid Citation: "),  # type: ignore[arg-type]
        (ServerToolCall("c", "n", object()), "the handler yielded an invalid ServerToolCall: "),
        (base.ToolCall("c", "n", "{}"), "the handler yielded a ToolCall"),
        (base.Used(Usage()), "the handler yielded a Used"),
        (Final(7, Usage()), "the handler yielded a Final without"),  # type: ignore[arg-type]
        (Final("x", None), "the handler yielded a Final without"),  # type: ignore[arg-type]
    ],
)
async def test_nonsense_is_refused(event: Any, said: str) -> None:
    assert (await refused(yielding("a", event))).startswith(said)


async def test_nothing_may_follow_the_final() -> None:
    end = Final("end_turn", Usage())
    assert await refused(yielding(end, "a")) == "the handler yielded something after its Final"
    assert await refused(yielding(end, end)) == "the handler yielded something after its Final"


async def test_a_handler_that_hangs_behind_its_final_has_ended(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(handler_module, "HANDLER_END_SECONDS", 0.01)
    closed = asyncio.Event()

    async def handler(_turn: HandlerTurn) -> AsyncGenerator[Any, None]:
        yield "a"
        yield Final("done", Usage(output=2))
        try:
            await asyncio.Event().wait()
        finally:
            closed.set()

    assert (await answered(handler))[-1] == base.Final("done", Usage(output=2))
    assert closed.is_set()
    assert "a handler did not end within 0.01 s of its Final" in caplog.text


async def test_a_time_out_of_the_handler_behind_its_final_is_its_own() -> None:
    async def handler(_turn: HandlerTurn) -> AsyncGenerator[Any, None]:
        yield Final("done", Usage())
        raise TimeoutError

    with pytest.raises(TimeoutError):
        await answered(handler)


@pytest.mark.parametrize("event", ["abcd", Reasoning("abcd"), Citation(title="abcd")])
async def test_all_that_a_handler_yields_is_bounded(monkeypatch: pytest.MonkeyPatch, event: Any) -> None:
    monkeypatch.setattr(handler_module, "HANDLER_MAX_CHARACTERS", 200)

    async def handler(_turn: HandlerTurn) -> AsyncGenerator[Any, None]:
        while True:
            yield event

    assert await refused(handler) == "the handler yielded more than 200 characters"


async def test_what_a_handler_raises_when_it_is_closed_does_not_end_the_process() -> None:
    async def handler(_turn: HandlerTurn) -> AsyncGenerator[Any, None]:
        try:
            yield 7
        finally:
            raise SystemExit(3)

    assert await refused(handler) == "the handler raised SystemExit"


async def test_lone_surrogates_of_any_event_are_replaced() -> None:
    events = [Reasoning("\ud800"), Citation(title="\ud800"), ServerToolCall("c", "n", {"a": "\ud800"})]
    found = (await answered(yielding(*events)))[1:-1]
    assert "\\ud800" not in repr(found)
    msgspec.json.encode(found)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (SystemExit(3), "the handler raised SystemExit"),
        (KeyboardInterrupt(), "the handler raised KeyboardInterrupt"),
        (asyncio.CancelledError(), "the handler raised CancelledError"),
        (GeneratorExit(), "the handler raised GeneratorExit"),
        (BaseException("?"), "the handler raised BaseException"),
    ],
)
async def test_what_would_end_the_process_is_an_error_of_the_handler(error: BaseException, said: str) -> None:
    async def handler(_turn: HandlerTurn) -> AsyncGenerator[str, None]:
        yield "a"
        raise error

    assert await refused(handler) == said


async def test_a_stop_from_outside_cancels_the_handler() -> None:
    started, closed = asyncio.Event(), asyncio.Event()

    async def handler(_turn: HandlerTurn) -> AsyncGenerator[str, None]:
        try:
            yield "a"
            started.set()
            await asyncio.Event().wait()
        finally:
            closed.set()

    task = asyncio.create_task(answered(handler))
    async with asyncio.timeout(WAIT):
        await started.wait()
        task.cancel()
        await asyncio.wait({task})
    assert task.cancelled()
    assert closed.is_set()


# --- once


async def test_a_value_is_computed_once_and_is_json_each_time() -> None:
    memory, calls = Memory(), 0

    async def function() -> Any:
        nonlocal calls
        calls += 1
        return {"n": (calls, "\ud800")}

    assert await turn(1, memory).once("k", function) == {"n": [1, "\ufffd"]}
    assert await turn(2, memory).once("k", function) == {"n": [1, "\ufffd"]}
    assert calls == 1
    assert (await turn(2, memory).once("other", function))["n"][0] == 2


async def test_of_two_at_once_both_get_the_first_stored_value() -> None:
    memory, go_on, answers = Memory(), asyncio.Event(), iter((1, 2))

    async def function() -> int:
        await go_on.wait()
        return next(answers)

    both = [asyncio.create_task(turn(1, memory).once("k", function)) for _ in range(2)]
    go_on.set()
    assert await asyncio.gather(*both) == [1, 1]


async def test_a_failed_function_stores_nothing() -> None:
    memory = Memory()

    async def broken() -> None:
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        await turn(1, memory).once("k", broken)
    assert not memory.stored


@pytest.mark.parametrize("key", ["", "k" * 201])
async def test_a_key_has_bounds(key: str) -> None:
    async def function() -> int:
        pytest.fail("called")

    with pytest.raises(ValueError, match=r"^key: expected 1 to 200 characters"):
        await turn().once(key, function)


@pytest.mark.parametrize(
    ("value", "said"),
    [(object(), "the result is no JSON"), ("x" * HANDLER_MAX_ONCE_BYTES, "the result has 1000002 bytes")],
)
async def test_a_value_that_cannot_be_stored_is_refused(value: Any, said: str) -> None:
    async def function() -> Any:
        return value

    with pytest.raises(ValueError, match=f"^{said}"):
        await turn().once("k", function)
