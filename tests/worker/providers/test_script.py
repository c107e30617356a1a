"""The parser of ``#script`` lines."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from legato.worker.limits import (
    SCRIPTED_MAX_TOKENS,
    SCRIPTED_MAX_WORD_CHARACTERS,
    SCRIPTED_MAX_WORDS,
    SCRIPTED_TOKENS_PER_SECOND,
)
from legato.worker.providers import base, script
from legato.worker.providers.script import Echo, ScriptedReply, ScriptedStep, ScriptError, TokenRun


def events(step: ScriptedStep) -> list[base.Event | Echo]:
    found: list[base.Event | Echo] = []
    for item in step.items:
        found += item.events() if isinstance(item, TokenRun) else [item]
    return found


def texts(reply: ScriptedReply) -> list[str]:
    return [event.text for step in reply.steps for event in events(step) if isinstance(event, base.Text)]


def called(reply: ScriptedReply) -> list[list[tuple[str, str, str]]]:
    """The calls of each step."""
    return [
        [
            (event.call, event.name, event.arguments)
            for event in events(step)
            if isinstance(event, base.ToolCall)
        ]
        for step in reply.steps
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("#script tokens=many", "tokens=many does not end with a number"),
        ("#script tokens=-1", "tokens=-1 does not end with a number"),
        ("#script tokens=100001", "from 0 to 100000"),
        ("#script tokens=60000 reason=40001", "the reply has more than 100000 events"),
        ("#script tokens", "'tokens' is unknown; expected tokens=, reason=,"),
        ("#script reason=x", "reason=x does not end with a number"),
        ("#script rate=1e9", "rate=1e9"),
        (
            "#script fail=flood@3",
            "fail=flood@3: expected KIND@INDEX, where KIND is one of overloaded, disconnect",
        ),
        ("#script fail=overloaded", "fail=overloaded does not end with a number from 0 to 50"),
        ("#script tokens=5 fail=eof@6", "from 0 to 5"),
        ("#script fail=eof@8 tokens=2 tool=a tokens=1", "from 0 to 7"),
        (
            "#script fail=eof@3/never",
            "fail=eof@3/never: expected the number of an attempt, or always, after the slash",
        ),
        ("#script fail=eof@3/0", "fail=eof@3/0: expected the number"),
        ("#script" + " fail=eof@3" * 21, "fail= is given more than 20 times"),
        ("#script overlap=x", "overlap=x does not end with a number"),
        ("#script colour=blue", "'colour' is unknown; expected tokens="),
        ("#script tool=", "tool=: expected NAME or NAME:JSON"),
        ("#script tool=a.b:{}", "tool=a.b:{}: expected NAME or NAME:JSON"),
        ('#script tool=weather:{"city":', '{"city": is not the beginning of a JSON object'),
        ("#script tool=weather:{'city':1}", "{'city':1} is not the beginning of a JSON object"),
        ('#script tool=weather:{"n":NaN}', '{"n":NaN} is not the beginning of a JSON object'),
        ("#script tool=weather:{}tokens=5", "{} must be followed by a space"),
        ("#script tool=weather:" + '{"a":' * 3000, "is not the beginning of a JSON object"),
        ("#script server=search:nothing", "server=search:nothing: expected JSON after the colon"),
        ("#script cite=javascript:alert()", "is not an address with http:// or https://"),
        ("#script tokens=1 echo", "echo stands before the first tool="),
        ("#script server=search echo tool=a", "echo stands before the first tool="),
        ("#script cite=https://h/" + "x" * SCRIPTED_MAX_WORD_CHARACTERS, "has more than 20000 characters"),
        ("#script" + " tokens=1" * (SCRIPTED_MAX_WORDS + 1), "there are more than 200 words"),
    ],
)
def test_bad_script_is_answered_with_what_is_wrong(line: str, said: str) -> None:
    answer = script.script_for(line)
    assert "".join(texts(answer)).startswith("This #script line is invalid: ")
    assert said in "".join(texts(answer))


def test_bounds_themselves_are_allowed() -> None:
    assert len(texts(script.parse(f"tokens={SCRIPTED_MAX_TOKENS}"))) == SCRIPTED_MAX_TOKENS
    assert len(texts(script.parse(" tokens=1" * SCRIPTED_MAX_WORDS))) == SCRIPTED_MAX_WORDS
    address = "https://h/".ljust(SCRIPTED_MAX_WORD_CHARACTERS - len("cite="), "x")
    assert events(script.parse(f"cite={address}").steps[0]) == [base.Citation(url=address)]


def test_any_other_message_gets_a_short_answer_made_from_it() -> None:
    answer = script.script_for("Where do swallows winter?")
    text = "".join(texts(answer))
    assert "“Where do swallows winter?” I count 4 words" in text
    assert "“swallows”" in text
    assert 20 < len(texts(answer)) < 120
    assert answer.rate == SCRIPTED_TOKENS_PER_SECOND


@given(st.text(max_size=300))
def test_no_message_breaks_it_and_the_same_gives_the_same(message: str) -> None:
    first, second = script.script_for(message), script.script_for(message)
    assert first == second
    assert all(texts(first))


PIECES = st.sampled_from(
    ["tokens=", "reason=", "rate=", "fail=", "tool=a", "tool=", "server=s", "cite=https://", "echo", "pause"]
)


@given(st.lists(st.tuples(PIECES, st.text(alphabet='eof@/:{}" \\u0123456789', max_size=12)), max_size=6))
def test_parser_gives_a_script_within_its_bounds_or_says_no(words: list[tuple[str, str]]) -> None:
    try:
        reply = script.parse(" ".join(map("".join, words)))
    except ScriptError:
        return
    count = sum(len(events(step)) + 1 for step in reply.steps)
    assert count <= SCRIPTED_MAX_TOKENS + 1
    assert all(0 <= fault.at <= SCRIPTED_MAX_TOKENS for fault in reply.faults)
    assert reply.steps[-1].stop_reason == "end_turn"
    numbers = [
        event.call for step in reply.steps for event in events(step) if isinstance(event, base.ToolStart)
    ]
    assert len(set(numbers)) == len(numbers)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=3), st.booleans(), st.sampled_from([None, 1]))
def test_any_object_is_a_calls_input_word_for_word(given: Any, ascii_only: bool, indent: int | None) -> None:
    text = json.dumps(given, ensure_ascii=ascii_only, separators=(" , ", " : ") if indent else (",", ":"))
    reply = script.parse(f"tokens=1 tool=look:{text} tool=look:{text} tokens=1")
    assert called(reply) == [[("0", "look", text), ("1", "look", text)], []]
    inputs = [event.delta for event in events(reply.steps[0]) if isinstance(event, base.ToolInput)]
    assert "".join(inputs) == text * 2
    assert all(inputs)


def test_parts_come_in_the_order_of_their_words() -> None:
    line = 'reason=2 tokens=1 cite=https://h/x server=search:{"q": "a b"} tokens=1 reason=1'
    (step,) = script.parse(line).steps
    assert (events(step), step.calls, step.stop_reason) == (
        [
            base.Reasoning("r0 "),
            base.Reasoning("r1 "),
            base.Text("w0 "),
            base.Citation(url="https://h/x"),
            base.ServerToolCall("0", "search", {"q": "a b"}),
            base.ServerToolResult("0", "search", ok=True, output={"input": {"q": "a b"}}),
            base.Text("w1 "),
            base.Reasoning("r2 "),
        ],
        (),
        "end_turn",
    )


def test_call_writes_its_input_in_pieces() -> None:
    step, last = script.parse('tool=weather:{"city":"Oslo"}').steps
    assert (events(step), step.calls, step.stop_reason) == (
        [
            base.ToolStart("0", "weather"),
            base.ToolInput("0", '{"city":'),
            base.ToolInput("0", '"Oslo"}'),
            base.ToolCall("0", "weather", '{"city":"Oslo"}'),
        ],
        ("0",),
        "tool_use",
    )
    assert last == ([], (), "end_turn")


@pytest.mark.parametrize(
    ("line", "steps"),
    [
        ("tokens=1", [("w0 ", "", "end_turn")]),
        ("tokens=0", [("", "", "end_turn")]),
        ("tokens=1 tool=a tool=b tokens=1", [("w0 ", "01", "tool_use"), ("w1 ", "", "end_turn")]),
        ("tool=a tokens=1 tool=b", [("", "0", "tool_use"), ("w0 ", "1", "tool_use"), ("", "", "end_turn")]),
        ("tool=a reason=1 tool=b", [("", "0", "tool_use"), ("", "1", "tool_use"), ("", "", "end_turn")]),
        ("tool=a rate=0 tool=b", [("", "01", "tool_use"), ("", "", "end_turn")]),
        ("tool=a server=s tool=b", [("", "0", "tool_use"), ("", "2", "tool_use"), ("", "", "end_turn")]),
        ("tokens=1 pause tokens=1", [("w0 ", "", "pause_turn"), ("w1 ", "", "end_turn")]),
        ("tool=a pause", [("", "0", "tool_use"), ("", "", "pause_turn"), ("", "", "end_turn")]),
        ("pause", [("", "", "pause_turn"), ("", "", "end_turn")]),
    ],
)
def test_step_ends_behind_its_calls_and_at_a_pause(line: str, steps: list[tuple[str, str, str]]) -> None:
    def said(step: ScriptedStep) -> str:
        return "".join(event.text for event in events(step) if isinstance(event, base.Text))

    found = [(said(step), "".join(step.calls), step.stop_reason) for step in script.parse(line).steps]
    assert found == steps


def test_call_needs_no_arguments_and_may_have_bad_ones() -> None:
    assert called(script.parse("tool=now tool=now: tool=now:[1]"))[0] == [
        ("0", "now", "{}"),
        ("1", "now", ""),
        ("2", "now", "[1]"),
    ]


def test_echo_stands_behind_a_step_with_calls() -> None:
    reply = script.parse("tool=a tokens=1 pause echo fail=eof@99999")
    assert events(reply.steps[2]) == [Echo()]
    assert reply.faults == (script.Fault("eof", 99_999),)
