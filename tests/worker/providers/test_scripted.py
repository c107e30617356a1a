"""The scripted provider: the same answer every time, faults where the message says."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.stream import Turn
from worker.providers import base, scripted
from worker.providers.scripted import Scripted, ScriptError


async def play(message: str) -> tuple[list[base.Event], base.ProviderError | None]:
    seen: list[base.Event] = []
    try:
        async for event in base.watched(Scripted().stream(base.Request(message)), base.Patience(9, 0.05)):
            seen.append(event)  # noqa: PERF401 - an error may come in the middle
    except base.ProviderError as error:
        return seen, error
    return seen, None


def texts(seen: list[base.Event]) -> list[str]:
    return [event.text for event in seen if isinstance(event, base.Text)]


async def test_script_gives_numbered_tokens() -> None:
    seen, error = await play("#script tokens=3 rate=0")
    assert error is None
    assert seen[0] == base.Started("scripted")
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
    seen, error = await play(f"#script tokens=5 rate=0 fail={fault}@{at}")
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


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("#script tokens=many", "tokens=many does not end in a number"),
        ("#script tokens=-1", "tokens=-1 does not end in a number"),
        ("#script tokens=100001", "from 0 to 100000"),
        ("#script rate=1e9", "rate=1e9"),
        ("#script fail=flood@3", "fail=flood@3 is not one of overloaded, disconnect"),
        ("#script fail=overloaded", "fail=overloaded does not end in a number from 0 to 50"),
        ("#script tokens=5 fail=eof@6", "from 0 to 5"),
        ("#script colour=blue", "'colour' is unknown; expected tokens="),
    ],
)
async def test_bad_script_is_answered_with_what_is_wrong(line: str, said: str) -> None:
    assert said in "".join(scripted.script_for(line).tokens)


async def test_any_other_message_gets_a_short_answer_made_from_it() -> None:
    answer = scripted.script_for("Where do swallows winter?")
    text = "".join(answer.tokens)
    assert "“Where do swallows winter?” I count 4 words" in text
    assert "“swallows”" in text
    assert 20 < len(answer.tokens) < 120
    assert answer.rate == scripted.RATE


@given(st.text(max_size=300))
def test_no_message_breaks_it_and_the_same_gives_the_same(message: str) -> None:
    first, second = scripted.script_for(message), scripted.script_for(message)
    assert list(first.tokens) == list(second.tokens)
    assert all(first.tokens)


@given(st.lists(st.text(alphabet="tokensraefil=@0123456789", max_size=20), max_size=4))
def test_parser_gives_a_script_within_its_bounds_or_says_no(words: list[str]) -> None:
    try:
        script = scripted.parse(words)
    except ScriptError:
        return
    assert 0 <= script.fail_at <= len(script.tokens) <= scripted.MAX_TOKENS


async def test_usage_counts_the_history() -> None:
    request = base.Request("#script tokens=1 rate=0", (Turn("user", "a b c"),))
    *_, final = [event async for event in Scripted().stream(request)]
    assert isinstance(final, base.Final)
    assert final.usage.input == 6
