"""Tool calls and reasoning in a stream, in the ways in which servers send them."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from legato.protocol.stream import Usage
from legato.worker.providers import base, openai_calls
from legato.worker.providers.openai_calls import AnswerCollector
from legato.worker.providers.openai_stream import StreamReader
from tests.worker.providers.chat_completions import piece
from tests.worker.providers.test_openai_stream import STARTED, sse

OSLO, ROME = '{"city":"Oslo"}', '{"city":"Rome"}'
FINISHED = piece({}, "tool_calls")


def collector(*before: dict[str, Any]) -> AnswerCollector:
    """One whose calls are c1, c2 and so on."""
    numbers = itertools.count(1)
    return AnswerCollector(before, lambda: f"c{next(numbers)}")


def read(*parts: bytes, answer: AnswerCollector | None = None) -> list[base.Event | base.ProviderError]:
    """The events of the parts behind the first one, and the end or the error behind them."""
    reader = StreamReader("m", (), answer or collector())
    events: list[base.Event | base.ProviderError] = []
    try:
        for part in parts:
            events.extend(reader.feed(part))  # keeps what comes before an error
        events.extend(reader.end())
    except base.ProviderError as error:
        events.append(error)
    return [event for event in events if event != STARTED]


def calling(*deltas: Any) -> Any:
    return piece({"tool_calls": list(deltas)})


def call(name: str | None = None, arguments: Any = None, **fields: Any) -> Any:
    """A piece of a call without the fields that are None."""
    function = {"name": name, "arguments": arguments}
    return {**fields, "function": {key: value for key, value in function.items() if value is not None}}


def calls(*chunks: Any, finish: str = "tool_calls") -> list[tuple[str, str, str]]:
    events = read(sse(*chunks, piece({}, finish)))
    started = [event.call for event in events if isinstance(event, base.ToolStart)]
    found = [event for event in events if isinstance(event, base.ToolCall)]
    assert started == [event.call for event in found]
    for each in found:
        deltas = [e.delta for e in events if isinstance(e, base.ToolInput) and e.call == each.call]
        assert "".join(deltas) == each.arguments
        assert all(deltas)
    return [(event.call, event.name, event.arguments) for event in found]


def content(*chunks: Any, finish: str = "tool_calls") -> Any:
    final = read(sse(*chunks, piece({}, finish)))[-1]
    assert isinstance(final, base.Final)
    return final.content


def sent_back(given_id: str, name: str, arguments: str) -> Any:
    return {"id": given_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def test_call_comes_in_pieces_and_is_complete_at_the_end() -> None:
    chunks = [
        piece({"role": "assistant", "content": "Let me see."}),
        calling(call("weather", "", index=0, id="call_1", type="function")),
        calling(call(None, '{"city":', index=0)),
        calling(call(None, '"Oslo"}', index=0)),
        FINISHED,
    ]
    message = {
        "role": "assistant",
        "content": "Let me see.",
        "tool_calls": [sent_back("call_1", "weather", OSLO)],
    }
    assert read(sse(*chunks)) == [
        base.Text("Let me see."),
        base.ToolStart("c1", "weather"),
        base.ToolInput("c1", '{"city":'),
        base.ToolInput("c1", '"Oslo"}'),
        base.ToolCall("c1", "weather", OSLO),
        base.Final("tool_use", Usage(), [message]),
    ]


TWO = [("c1", "weather", OSLO), ("c2", "weather", ROME)]


@pytest.mark.parametrize(
    "chunks",
    [
        pytest.param(
            [
                calling(call("weather", "", index=0, id="a")),
                calling(call("weather", "", index=1, id="b")),
                calling(call(None, ROME[:5], index=1), call(None, OSLO[:7], index=0)),
                calling(call(None, OSLO[7:], index=0), call(None, ROME[5:], index=1)),
            ],
            id="interleaved by index",
        ),
        pytest.param(
            [
                calling(call("weather", OSLO, index=0, id="a")),
                calling(call("weather", ROME, index=0, id="b")),
            ],
            id="whole, all with index 0",
        ),
        pytest.param(
            [calling(call("weather", OSLO, index=0)), calling(call("weather", ROME, index=0))],
            id="whole, all with index 0 and without an id",
        ),
        pytest.param(
            [calling(call("weather", OSLO), call("weather", ROME, id=""))],
            id="whole, with nothing",
        ),
        pytest.param(
            [
                calling(call("weather", "", index=0, id="a1")),
                calling(call(None, OSLO, index=0, id="a2")),
                calling(call("weather", "", index=1, id="b1")),
                calling(call(None, ROME[:4], index=1, id="b2")),
                calling(call(None, ROME[4:], index=1, id="b3")),
            ],
            id="another id with each piece",
        ),
        pytest.param(
            [
                calling(call("weather", city[at : at + 5], index=index, id=given_id))
                for index, given_id, city in ((0, "a", OSLO), (1, "b", ROME))
                for at in (0, 5, 10)
            ],
            id="id and name with each piece",
        ),
        pytest.param(
            [
                calling(call("weather", "", id="a")),
                calling(call(None, OSLO[:9])),
                calling(call(None, OSLO[9:])),
                calling(call("weather", "", id="b")),
                calling(call(None, ROME, id="b")),
            ],
            id="without an index",
        ),
        pytest.param(
            [
                calling(call("weather", OSLO[:9], id="a"), call("weather", ROME[:9], id="b")),
                calling(call(None, OSLO[9:], id="a"), call(None, ROME[9:], id="b")),
            ],
            id="interleaved by id",
        ),
        pytest.param(
            [
                calling(call(None, OSLO[:9], index=0)),
                calling(call("weather", OSLO[9:], index=0)),
                calling(call(None, ROME, index=1)),
                calling(call("weather", None, index=1)),
            ],
            id="name behind the arguments",
        ),
        pytest.param(
            [calling(call("weather", {"city": "Oslo"}, index=0), call("weather", {"city": "Rome"}, index=1))],
            id="objects instead of their JSON",
        ),
        pytest.param(
            [
                calling(call("weather", OSLO, index=0, id="a"), call("weather", ROME, index=1, id="b")),
                calling(call("weather", "", index=1)),
                piece({"tool_calls": []}),
            ],
            id="an empty piece behind each",
        ),
    ],
)
def test_servers_send_parallel_calls_in_many_ways(chunks: list[Any]) -> None:
    assert calls(*chunks) == TWO


def test_ids_are_ours_and_the_server_gets_its_own_back() -> None:
    """The id is a tool's idempotency key, and servers count calls from 0 in each reply."""
    chunk = calling(call("a", "{}", index=0, id="functions.a:0"), call("b", "{}", index=1))
    reader = StreamReader("m", (), AnswerCollector())
    events = [*reader.feed(sse(chunk, FINISHED)), *reader.end()]
    first, second = (event.call for event in events if isinstance(event, base.ToolCall))
    assert first != second
    final = events[-1]
    assert isinstance(final, base.Final)
    (message,) = final.content
    assert [each["id"] for each in message["tool_calls"]] == ["functions.a:0", second]
    assert openai_calls.random_id() != openai_calls.random_id()


@pytest.mark.parametrize(
    ("finish", "stop_reason"),
    [
        ("tool_calls", "tool_use"),
        ("stop", "tool_use"),
        ("eos", "tool_use"),
        ("length", "max_tokens"),
        ("content_filter", "refusal"),
    ],
)
def test_calls_make_it_a_tool_use_unless_it_was_cut(finish: str, stop_reason: str) -> None:
    final = read(sse(calling(call("a", "{}", index=0)), piece({}, finish)))[-1]
    assert isinstance(final, base.Final)
    assert final.stop_reason == stop_reason


def test_call_behind_a_finish_reason_needs_another_one() -> None:
    chunk = calling(call("a", "{}", index=0))
    assert isinstance(read(sse(piece({"content": "x"}, "stop"), chunk))[-1], base.CutError)
    assert calls(piece({"content": "x"}, "stop"), chunk) == [("c1", "a", "{}")]


@pytest.mark.parametrize("arguments", [None, "", '{"city":', "[1]", '"x"', "{bad}"])
def test_arguments_that_are_no_object_are_told_but_not_sent_back(arguments: str | None) -> None:
    chunk = calling(call("a", arguments, index=0, id="x"))
    assert calls(chunk) == [("c1", "a", arguments or "")]
    assert content(chunk)[0]["tool_calls"] == [sent_back("x", "a", "{}")]
    assert content(chunk)[0]["content"] is None


def test_call_without_a_name_is_told_all_the_same() -> None:
    assert calls(calling(call(None, OSLO, index=0))) == [("c1", "", OSLO)]
    assert calls(calling({"index": 0, "function": None})) == [("c1", "", "")]


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_is_no_text_and_is_sent_back_under_its_name(field: str) -> None:
    chunks = [piece({field: "Hm, "}), piece({field: "so.", "content": ""}), piece({"content": "Oslo"})]
    message = {"role": "assistant", "content": "Oslo", field: "Hm, so."}
    assert read(sse(*chunks, piece({}, "stop"))) == [
        base.Reasoning("Hm, "),
        base.Reasoning("so."),
        base.Text("Oslo"),
        base.Final("end_turn", Usage(), [message]),
    ]


def test_reasoning_under_both_names_counts_once() -> None:
    events = read(sse(piece({"reasoning": "Hm", "reasoning_content": "Hm"}), piece({}, "stop")))
    assert events[:-1] == [base.Reasoning("Hm")]


def test_reasoning_behind_a_finish_reason_needs_another_one() -> None:
    events = read(sse(piece({"reasoning": "Hm"}, "stop"), piece({"reasoning": "so"})))
    assert events[:2] == [base.Reasoning("Hm"), base.Reasoning("so")]
    assert isinstance(events[-1], base.CutError)


def test_empty_reasoning_is_nothing_new() -> None:
    events = read(sse(piece({"content": "a"}, "stop"), piece({"reasoning_content": ""})))
    assert (events[0], type(events[1])) == (base.Text("a"), base.Final)
    both = piece({"reasoning_content": "", "reasoning": "Hm"})
    assert read(sse(both, piece({}, "stop")))[0] == base.Reasoning("Hm")


def test_empty_reasoning_is_sent_back_too() -> None:
    """DeepSeek refuses calls without it."""
    chunk = piece({"reasoning_content": "", "tool_calls": [call("a", "{}", index=0)]})
    assert content(chunk, piece({"reasoning_content": None}))[0]["reasoning_content"] == ""
    assert "reasoning" not in content(piece({"reasoning": None, "content": "a"}))[0]


def detail(**fields: Any) -> Any:
    return piece({"reasoning_details": [{"id": None, "format": "anthropic-claude-v1", **fields}]})


def test_reasoning_details_are_sent_back_whole_and_in_order() -> None:
    written = {"type": "reasoning.text", "index": 0}
    hidden = {"type": "reasoning.encrypted", "data": "abc", "index": 1}
    chunks = [
        detail(**written, text="Hm, \ud83d", signature=None),
        detail(**written, text="\ude00 so.", signature=None),
        detail(**written, signature="signed"),
        detail(**written, text="", signature=None),
        detail(**hidden),
        detail(**hidden),
        detail(type="reasoning.summary", summary="I ", index=2),
        detail(type="reasoning.summary", summary="think", index=2),
        detail(type="reasoning.summary", summary="More", index=3),
        piece({"content": "a", "reasoning_details": []}),
    ]
    common = {"id": None, "format": "anthropic-claude-v1"}
    assert content(*chunks)[0]["reasoning_details"] == [
        {**common, **written, "text": "Hm, 😀 so.", "signature": "signed"},
        {**common, **hidden},
        {**common, **hidden},
        {**common, "type": "reasoning.summary", "summary": "I think", "index": 2},
        {**common, "type": "reasoning.summary", "summary": "More", "index": 3},
    ]


def test_signature_of_a_call_is_sent_back() -> None:
    """https://ai.google.dev/gemini-api/docs/thought-signatures"""
    extra = {"google": {"thought_signature": "signed"}}
    chunk = calling(call("a", "{}", index=0, id="x", extra_content=extra), call("b", "{}", index=1, id="y"))
    assert content(chunk)[0]["tool_calls"] == [
        {**sent_back("x", "a", "{}"), "extra_content": extra},
        sent_back("y", "b", "{}"),
    ]


def nested(depth: int) -> Any:
    return {"x": nested(depth - 1)} if depth else {}


@pytest.mark.parametrize(
    "delta",
    [
        {"reasoning_details": "x"},
        {"reasoning_details": ["x"]},
        {"reasoning_details": [nested(200)]},
        {"tool_calls": [call("a", "{}", extra_content=nested(200))]},
    ],
)
def test_what_cannot_be_sent_back_is_a_cut(delta: Any) -> None:
    assert isinstance(read(sse(piece(delta), FINISHED))[-1], base.CutError)


@pytest.mark.parametrize("value", [7, {}, [{"type": "x"}], True])
def test_reasoning_that_is_no_text_is_left_out(value: Any) -> None:
    assert read(sse(piece({"reasoning": value, "content": "a"}), piece({}, "stop")))[:-1] == [base.Text("a")]


def test_plain_reply_keeps_nothing_and_has_no_calls() -> None:
    reader = StreamReader("m")
    chunks = [
        piece({"reasoning": "Hm"}),
        piece({"content": "a"}),
        calling(call("a", "{}", index=0)),
        FINISHED,
    ]
    events = [*reader.feed(sse(*chunks)), *reader.end()]
    assert events == [
        STARTED,
        base.Reasoning("Hm"),
        base.Text("a"),
        base.Final("tool_use", Usage()),
    ]


def test_text_of_an_earlier_attempt_is_part_of_the_step() -> None:
    before = [{"role": "assistant", "content": "a"}, {"role": "user", "content": "Go on."}]
    final = read(sse(piece({"content": "b"}, "stop")), answer=collector(*before))[-1]
    assert isinstance(final, base.Final)
    assert final.content == [*before, {"role": "assistant", "content": "b"}]


@pytest.mark.parametrize(
    "garbled", [3, "x", {"index": 0}, [3], [{"function": "x"}], [[]], [{"function": {"name": "a"}}, None]]
)
def test_garbled_calls_are_a_cut_behind_what_came_before(garbled: Any) -> None:
    events = read(sse(piece({"content": "a"}), piece({"tool_calls": garbled}), FINISHED))
    assert events[0] == base.Text("a")
    assert isinstance(events[-1], base.CutError)


@pytest.mark.parametrize(
    ("bound", "chunks", "said"),
    [
        (
            "MAX_TOOL_INPUT_CHARACTERS",
            [calling(call("a", "x" * 6, index=0)), calling(call(None, "x" * 5, index=0))],
            "the input of a tool call has more than 10 characters",
        ),
        (
            "MAX_PARALLEL_CALLS",
            [calling(*(call("a", "", index=index) for index in range(11)))],
            "the model calls more than 10 tools at once",
        ),
        (
            "MAX_STEP_CONTENT_CHARACTERS",
            [
                piece({"content": "x" * 4}),
                piece({"reasoning": "x" * 4}),
                calling(call("a", "xxx", index=0)),
            ],
            "the answer has more than 10 characters",
        ),
        (
            "MAX_STEP_CONTENT_CHARACTERS",
            [piece({"reasoning_details": [{"x": "123"}]})],
            "the answer has more than 10 characters",
        ),
        (
            "MAX_STEP_CONTENT_CHARACTERS",
            [calling(call("a", "", index=0, extra_content={"x": "123"}))],
            "the answer has more than 10 characters",
        ),
    ],
)
def test_answer_over_a_bound_fails_for_good(
    bound: str, chunks: list[Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_calls, bound, 10)
    error = read(sse(*chunks, FINISHED))[-1]
    assert isinstance(error, base.ProviderError)
    assert (str(error), error.retry) == (said, base.Retry.NEVER)
    monkeypatch.setattr(openai_calls, bound, 11)
    assert isinstance(read(sse(*chunks, FINISHED))[-1], base.Final)


def test_long_names_and_ids_are_cut() -> None:
    chunk = calling(call("a" * 300, "{}", index=0, id="i" * 300))
    assert calls(chunk) == [("c1", "a" * 200, "{}")]
    assert content(chunk)[0]["tool_calls"][0]["id"] == "i" * 200


def test_halves_of_surrogate_pairs_are_joined_but_in_text() -> None:
    raw = b"".join(
        b'data: {"choices": [{"delta": {"%s}}]}\n\n' % field
        for field in (
            rb'reasoning": "\ud83d"',
            rb'reasoning": "\ude00"',
            rb'tool_calls": [{"index": 0, "function": {"name": "a", "arguments": "\ud83d"}}]',
            rb'tool_calls": [{"index": 0, "function": {"arguments": "\ude00\ud83d"}}]',
        )
    )
    assert read(raw, sse(piece({}, "stop")))[1:-1] == [
        base.Reasoning("😀"),
        base.ToolStart("c1", "a"),
        base.ToolInput("c1", "😀"),
        base.ToolInput("c1", "\ufffd"),
        base.ToolCall("c1", "a", "😀\ufffd"),
    ]


OBJECTS = st.dictionaries(st.text(max_size=6), st.text(max_size=6) | st.integers(), max_size=3)


@given(st.lists(OBJECTS, min_size=1, max_size=4), st.data())
def test_pieces_of_calls_by_index_make_whole_calls(inputs: list[dict[str, Any]], draw: st.DataObject) -> None:
    """Wherever the arguments are cut, and in any order of the calls."""
    texts = [json.dumps(each, ensure_ascii=False) for each in inputs]
    pending = {index: list(text) for index, text in enumerate(texts)}
    chunks = [calling(call(f"t{index}", "", index=index, id=f"i{index}")) for index in pending]
    while any(pending.values()):
        index = draw.draw(st.sampled_from([index for index, rest in pending.items() if rest]))
        count = draw.draw(st.integers(1, len(pending[index])))
        chunks.append(calling(call(None, "".join(pending[index][:count]), index=index)))
        del pending[index][:count]
    assert calls(*chunks) == [(f"c{index + 1}", f"t{index}", text) for index, text in enumerate(texts)]


CHUNKS = st.lists(
    st.sampled_from(
        [
            piece({"content": "aé😀"}),
            piece({"reasoning": "hm 😀"}),
            calling(call("a", "", index=0, id="x")),
            calling(call(None, '{"é":', index=0)),
            calling(call(None, "1}", index=0)),
            calling(call("b", "{}", index=0, id="y"), call("b", "{}")),
            calling(call("c", OSLO)),
            calling("bad"),
            piece({}, "tool_calls"),
        ]
    ),
    max_size=9,
)


@given(CHUNKS, st.data())
def test_events_do_not_depend_on_where_the_bytes_are_cut(chunks: list[Any], draw: st.DataObject) -> None:
    stream = sse(*chunks)
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(stream)), max_size=30)))
    parts = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert list(map(repr, read(*parts))) == list(map(repr, read(stream)))
