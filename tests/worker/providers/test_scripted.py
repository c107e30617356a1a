"""The scripted provider: the same answer every time, faults where the message says."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from legato.protocol.jobs import Turn
from legato.worker.providers import base
from legato.worker.providers.scripted import Scripted
from tests.worker.support import said

PATIENCE = base.Patience(9, 0.05)


async def play(
    message: str, patience: base.Patience = PATIENCE, **request: Any
) -> tuple[list[base.Event], base.ProviderError | None]:
    return await said(Scripted(), base.ProviderRequest(message, **request), patience)


def texts(seen: list[base.Event]) -> list[str]:
    return [event.text for event in seen if isinstance(event, base.Text)]


async def test_script_gives_numbered_tokens() -> None:
    seen, error = await play("#script tokens=3 rate=0")
    assert error is None
    assert seen[0] == base.RequestAccepted("scripted")
    assert texts(seen) == ["w0 ", "w1 ", "w2 "]
    assert isinstance(seen[-1], base.Final)
    assert (seen[-1].stop_reason, seen[-1].usage.output) == ("end_turn", 3)


async def test_script_may_stand_on_any_line() -> None:
    seen, _ = await play("Please:\n  #script tokens=2 rate=0\nthanks")
    assert texts(seen) == ["w0 ", "w1 "]


@pytest.mark.parametrize("at", [0, 2])
@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("overloaded", base.OverloadedError),
        ("disconnect", base.CutError),
        ("eof", base.CutError),
        ("hang", base.StalledError),
    ],
)
async def test_fault_comes_in_place_of_its_token(fault: str, expected: type, at: int) -> None:
    patience = base.Patience(0.3, 0.05) if fault == "hang" else PATIENCE
    seen, error = await play(f"#script tokens=5 rate=0 fail={fault}@{at}", patience)
    assert texts(seen) == [f"w{index} " for index in range(at)]
    assert type(error) is expected


async def test_refusal_is_a_stop_reason() -> None:
    seen, error = await play("#script tokens=5 rate=0 fail=refusal@1")
    assert error is None
    assert texts(seen) == ["w0 "]
    assert isinstance(seen[-1], base.Final)
    assert seen[-1].stop_reason == "refusal"


async def test_fault_at_the_end_comes_after_all_tokens() -> None:
    seen, error = await play("#script tokens=2 rate=0 fail=eof@2")
    assert (len(texts(seen)), type(error)) == (2, base.CutError)


async def test_rate_is_kept_against_the_start() -> None:
    loop = asyncio.get_running_loop()
    begin = loop.time()
    await play("#script tokens=20 rate=200")
    assert loop.time() - begin >= 20 / 200


def words(first: int, end: int) -> list[str]:
    return [f"w{index} " for index in range(first, end)]


async def test_asked_to_go_on_it_does_from_the_very_token() -> None:
    seen, error = await play("#script tokens=9 rate=0", so_far="w0 w1 w2 ", attempt=2)
    assert (texts(seen), error) == (words(3, 9), None)
    seen, _ = await play("Where do swallows winter?", so_far="You wrote: “Where")
    assert texts(seen)[0] == " do"


@pytest.mark.parametrize(("overlap", "first"), [(1, 4), (4, 1), (99, 0)])
async def test_overlap_repeats_tokens_but_not_at_the_start(overlap: int, first: int) -> None:
    line = f"#script tokens=9 rate=0 overlap={overlap}"
    assert texts((await play(line, so_far="".join(words(0, 5))))[0]) == words(first, 9)
    assert texts((await play(line))[0]) == words(0, 9)


async def test_all_was_said_already() -> None:
    seen, error = await play("#script tokens=3 rate=0", so_far="w0 w1 w2 ")
    assert (texts(seen), error) == ([], None)
    assert isinstance(seen[-1], base.Final)


@pytest.mark.parametrize("text", ["w0 w2 ", "w0 w", "w0 w1 w2 w3 ", " w0 "])
async def test_text_that_it_never_said_is_refused(text: str) -> None:
    """So a fault at a seam cannot go unseen in a test."""
    _, error = await play("#script tokens=3 rate=0", so_far=text)
    assert type(error) is base.RequestRefusedError


@pytest.mark.parametrize(
    ("faults", "attempt", "begin", "end"),
    [
        ("fail=eof@4", 1, 0, 4),
        ("fail=eof@4", 2, 0, 9),
        ("fail=eof@4", 2, 4, 9),
        ("fail=eof@4/2", 1, 0, 9),
        ("fail=eof@4/2", 2, 2, 4),
        ("fail=eof@4/always", 1, 0, 4),
        ("fail=eof@4/always", 3, 2, 4),
        ("fail=eof@4/always", 3, 5, 9),
        ("fail=eof@6 fail=eof@4", 1, 0, 4),
        ("fail=eof@4 fail=eof@6/2", 2, 4, 6),
    ],
)
async def test_fault_comes_at_its_attempt(faults: str, attempt: int, begin: int, end: int) -> None:
    so_far = "".join(words(0, begin))
    seen, error = await play(f"#script tokens=9 rate=0 {faults}", so_far=so_far, attempt=attempt)
    assert texts(seen) == words(begin, end)
    assert (error is None) is (end == 9)


async def test_usage_counts_the_history() -> None:
    request = base.ProviderRequest("#script tokens=1 rate=0", (Turn("user", "a b c"),))
    *_, final = [event async for event in Scripted().stream(request)]
    assert isinstance(final, base.Final)
    assert final.usage.input == 6


# Tools


async def step(
    line: str, *results: list[str], **request: Any
) -> tuple[list[base.Event], base.ProviderError | None]:
    """The events of the last step, after one with these results for each of the steps before it."""
    steps: tuple[base.Step, ...] = ()
    for texts_of_step in results:
        seen, error = await play(line, steps=steps, attempt=9, message_id="m1")
        assert error is None
        assert isinstance(seen[-1], base.Final)
        calls = [event for event in seen if isinstance(event, base.ToolCall)]
        outputs = [
            base.ToolOutput(call.call, call.name, text)
            for call, text in zip(calls, texts_of_step, strict=True)
        ]
        steps += (base.Step(seen[-1].content, tuple(outputs)),)
    return await play(line, **{"steps": steps, "message_id": "m1", **request})


def parts(seen: list[base.Event]) -> list[base.Event]:
    """Without what a request has around its parts."""
    return [event for event in seen if not isinstance(event, base.RequestAccepted | base.Used | base.Final)]


def stop_reason(seen: list[base.Event]) -> str:
    assert isinstance(seen[-1], base.Final)
    return seen[-1].stop_reason


AGENT = '#script rate=0 reason=1 tokens=2 tool=weather:{"city": "Oslo"} tool=now tokens=1 pause echo tokens=1'


async def test_each_request_gets_the_next_step() -> None:
    assert base.takes_tools(Scripted())
    seen, _ = await step(AGENT)
    names = [type(event).__name__ for event in parts(seen)]
    one = ["ToolStart", "ToolInput", "ToolInput", "ToolCall"]
    assert names == ["Reasoning", "Text", "Text", *one, "ToolStart", "ToolInput", "ToolCall"]
    assert stop_reason(seen) == "tool_use"
    seen, _ = await step(AGENT, ["cold", "noon"])
    assert (parts(seen), stop_reason(seen)) == ([base.Text("w2 ")], "pause_turn")
    seen, _ = await step(AGENT, ["very cold", "noon"], [])
    assert (texts(seen), stop_reason(seen)) == (["very", " cold", "\nnoon ", "w3 "], "end_turn")


async def test_echo_of_nothing_is_a_space_and_of_much_is_cut() -> None:
    line = "#script rate=0 tool=a echo"
    assert texts((await step(line, [" "]))[0]) == [" "]
    assert len("".join(texts((await step(line, ["x" * 30_000]))[0]))) == 20_001


def ids(seen: list[base.Event]) -> list[str]:
    return [event.call for event in seen if isinstance(event, base.ToolCall | base.ServerToolCall)]


async def test_calls_have_ids_of_their_own_that_are_the_same_each_time() -> None:
    line = "#script rate=0 tool=a tool=a server=s tool=a"
    first, again = ids((await step(line))[0]), ids((await step(line))[0])
    later, _ = await step(line, ["", ""])
    other, _ = await play(line, message_id="m2")
    assert first == again
    assert len({*first, *ids(later), *ids(other)}) == 2 + 2 + 2
    seen, _ = await step(line)
    assert {event.call for event in seen if isinstance(event, base.ToolStart | base.ToolInput)} == set(first)
    (result,) = [event for event in later if isinstance(event, base.ServerToolResult)]
    assert result.call == ids(later)[0]


async def test_tool_that_is_not_offered_is_called_all_the_same() -> None:
    spec = base.ToolSpec("other", "", {"type": "object"})
    seen, _ = await play("#script rate=0 tool=unknown", tools=(spec,))
    assert [event.name for event in seen if isinstance(event, base.ToolCall)] == ["unknown"]


async def test_steps_that_it_never_said_are_refused() -> None:
    """So a fault at a seam cannot go unseen in a test."""
    seen, _ = await step("#script rate=0 tool=a tokens=1")
    (call,), content = ids(seen), seen[-1].content  # type: ignore[union-attr]
    good = base.Step(content, (base.ToolOutput(call, "a", "x"),))
    for steps, reason in [
        ([base.Step(content)], "needs one result for each call"),
        ([base.Step(content, good.outputs * 2)], "needs one result for each call"),
        ([base.Step(content, (base.ToolOutput("call_x_0", "a", "x"),))], "needs one result for each call"),
        ([base.Step(None, good.outputs)], "is not what the script said"),
        ([good, good], "the script has no step 3"),
    ]:
        _, error = await play("#script rate=0 tool=a tokens=1", steps=tuple(steps), message_id="m1")
        assert type(error) is base.RequestRefusedError
        assert reason in str(error)
    _, error = await play("#script rate=0 tool=a tokens=1", steps=(good,), message_id="m2")
    assert type(error) is base.RequestRefusedError
    assert await step("#script rate=0 tool=a tokens=1", ["x"], steps=(good,)) == await step(
        "#script rate=0 tool=a tokens=1", ["x"]
    )


async def test_interrupted_step_goes_on_behind_its_last_text() -> None:
    line = "#script rate=0 tool=a reason=1 tokens=1 cite=https://h/x reason=1 tokens=1"
    cited, said = base.Citation(url="https://h/x"), base.Text("w1 ")
    seen, _ = await step(line, ["x"])
    assert parts(seen) == [base.Reasoning("r0 "), base.Text("w0 "), cited, base.Reasoning("r1 "), said]
    seen, _ = await step(line, ["x"], so_far="w0 ", attempt=2)
    assert parts(seen) == [cited, base.Reasoning("r1 "), said]
    seen, _ = await step(f"{line} overlap=5", ["x"], so_far="w0 ", attempt=2)
    assert parts(seen) == [base.Text("w0 "), cited, base.Reasoning("r1 "), said]
    seen, _ = await step(line, ["x"], so_far="w0 w1 ", attempt=2)
    assert (parts(seen), stop_reason(seen)) == ([], "end_turn")


FAULTY = "#script rate=0 reason=1 tokens=1 tool=a tokens=2"
"""Its events: reasoning, text, three of the call, the end of the step (5), two of text, the end (8)."""


@pytest.mark.parametrize(
    ("at", "first", "second"),
    [(0, -1, None), (1, 1, None), (3, 3, None), (5, 5, None), (6, None, -1), (7, None, 1), (8, None, 2)],
)
async def test_fault_counts_the_events_of_all_steps(at: int, first: int | None, second: int | None) -> None:
    """How many events come before the fault in each step; -1: the request is not accepted."""
    for results, expected, whole in (((), first, 5), ((["x"],), second, 2)):
        seen, error = await step(f"{FAULTY} fail=overloaded@{at}", *results)
        assert (error is None) is (expected is None)
        assert bool(seen) is (expected != -1)
        assert len(parts(seen)) == (whole if expected is None else max(0, expected))


@pytest.mark.parametrize(("echoed", "said"), [("one two three", 1), ("one two", 2)])
async def test_fault_counts_what_is_echoed(echoed: str, said: int) -> None:
    seen, error = await step("#script rate=0 tool=a echo tool=a tokens=3 fail=eof@12", [echoed], ["x"])
    assert (texts(seen), type(error)) == (words(0, said), base.CutError)


async def test_fault_inside_a_call_cuts_its_input() -> None:
    seen, error = await step('#script rate=0 tool=weather:{"city":"Oslo"} fail=disconnect@2')
    assert [type(event) for event in parts(seen)] == [base.ToolStart, base.ToolInput]
    assert type(error) is base.CutError


async def test_usage_counts_the_results_of_tools() -> None:
    line = "#script rate=0 tool=a tokens=1"
    (before, _), (after, _) = await step(line), await step(line, ["one two three"])
    assert isinstance(before[-1], base.Final)
    assert isinstance(after[-1], base.Final)
    assert (before[-1].usage.output, after[-1].usage.output) == (3, 1)
    assert after[-1].usage.input == before[-1].usage.input + 3
