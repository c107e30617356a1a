"""The scripted provider: the same answer every time, faults where the message says."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from legato.protocol.stream import Turn
from legato.worker.providers import base, scripted
from legato.worker.providers.scripted import Scripted, ScriptError
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


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("#script tokens=many", "tokens=many does not end with a number"),
        ("#script tokens=-1", "tokens=-1 does not end with a number"),
        ("#script tokens=100001", "from 0 to 100000"),
        ("#script rate=1e9", "rate=1e9"),
        (
            "#script fail=flood@3",
            "fail=flood@3: expected KIND@TOKEN, where KIND is one of overloaded, disconnect",
        ),
        ("#script fail=overloaded", "fail=overloaded does not end with a number from 0 to 50"),
        ("#script tokens=5 fail=eof@6", "from 0 to 5"),
        (
            "#script fail=eof@3/never",
            "fail=eof@3/never: expected the number of an attempt, or always, after the slash",
        ),
        ("#script fail=eof@3/0", "fail=eof@3/0: expected the number"),
        ("#script" + " fail=eof@3" * 21, "fail= is given more than 20 times"),
        ("#script overlap=x", "overlap=x does not end with a number"),
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
    assert answer.rate == scripted.SCRIPTED_TOKENS_PER_SECOND


@given(st.text(max_size=300))
def test_no_message_breaks_it_and_the_same_gives_the_same(message: str) -> None:
    first, second = scripted.script_for(message), scripted.script_for(message)
    assert list(first.tokens) == list(second.tokens)
    assert all(first.tokens)


@given(st.lists(st.text(alphabet="tokensraefilvp=@/0123456789", max_size=20), max_size=4))
def test_parser_gives_a_script_within_its_bounds_or_says_no(words: list[str]) -> None:
    try:
        script = scripted.parse(words)
    except ScriptError:
        return
    assert all(0 <= fault.at <= len(script.tokens) <= scripted.SCRIPTED_MAX_TOKENS for fault in script.faults)


async def test_usage_counts_the_history() -> None:
    request = base.ProviderRequest("#script tokens=1 rate=0", (Turn("user", "a b c"),))
    *_, final = [event async for event in Scripted().stream(request)]
    assert isinstance(final, base.Final)
    assert final.usage.input == 6
