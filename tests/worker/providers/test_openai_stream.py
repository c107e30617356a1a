"""From the bytes of a stream to events: whatever its server leaves out, and wherever the bytes are cut."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from legato.protocol.stream import Usage
from legato.worker.providers import base
from legato.worker.providers.openai_stream import StreamReader
from tests.worker.providers.chat_completions import PROMPT, piece

STARTED = base.RequestAccepted("test-model-1")


def sse(*values: Any) -> bytes:
    return b"".join(f"data: {json.dumps(value)}\n\n".encode() for value in values)


def read(*parts: bytes) -> list[base.Event | base.ProviderError]:
    """The events of the parts, and the end or the error behind them."""
    reader = StreamReader("asked-for")
    events: list[base.Event | base.ProviderError] = []
    try:
        for part in parts:
            events.extend(reader.feed(part))  # keeps what comes before an error
        events.extend(reader.end())
    except base.ProviderError as error:
        events.append(error)
    return events


def texts(*values: Any) -> list[str]:
    return [event.text for event in read(sse(*values)) if isinstance(event, base.Text)]


def end(*values: Any) -> base.Event | base.ProviderError:
    return read(sse(*values))[-1]


def test_usage_follows_the_end() -> None:
    usage = Usage(input=11, output=9, cache_read=5)
    counts = {**piece({}), "choices": [], "usage": PROMPT}
    assert read(sse(piece({"content": "a"}), piece({}, "stop"), counts) + b"data: [DONE]\n\n") == [
        STARTED,
        base.Text("a"),
        base.Used(usage),
        base.Final("end_turn", usage),
    ]


@pytest.mark.parametrize(
    ("reason", "stop_reason"),
    [
        ("stop", "end_turn"),
        ("length", "max_tokens"),
        ("content_filter", "refusal"),
        ("tool_calls", "tool_use"),
        ("function_call", "tool_use"),
        ("brand_new", "brand_new"),
    ],
)
def test_finish_reasons(reason: str, stop_reason: str) -> None:
    assert end(piece({"content": "a"}, reason)) == base.Final(stop_reason, Usage())


def test_text_of_a_refusal_makes_it_one() -> None:
    refusal = piece({"refusal": "I cannot help with that."})
    assert read(sse(refusal, piece({}, "stop"))) == [STARTED, base.Final("refusal", Usage())]


@pytest.mark.parametrize(
    "lenient",
    [
        {"choices": [{"delta": {"content": "a"}, "finish_reason": "stop"}]},
        {"choices": [{"delta": {"content": "a"}, "finish_reason": "stop"}], "model": None, "error": None},
        {
            "choices": [{"delta": {"content": "a"}, "finish_reason": "stop"}],
            "model": 7,
            "usage": [],
            "id": {},
        },
    ],
)
def test_what_a_server_leaves_out_or_sends_besides(lenient: Any) -> None:
    expected = [base.RequestAccepted("asked-for"), base.Text("a"), base.Final("end_turn", Usage())]
    assert read(sse(lenient)) == expected


@pytest.mark.parametrize("choices", [None, [], [{"delta": None}], [{"delta": {"content": None}}], [{}]])
def test_chunk_without_text(choices: Any) -> None:
    assert texts({"choices": choices}, piece({"content": "a"}, "stop")) == ["a"]


def test_reasoning_and_further_choices_are_not_the_text() -> None:
    second = {"choices": [{"index": 1, "delta": {"content": "b"}}]}
    thought = piece({"reasoning_content": "hm", "reasoning": "hm", "content": ""})
    assert texts(thought, second, piece({"content": "a"}, "stop")) == ["a"]


def test_parts_that_are_text() -> None:
    parts = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "a"}, "x", {"type": "text"}]
    assert texts(piece({"content": parts}, "stop")) == ["a"]


def test_finish_reason_with_each_piece() -> None:
    pieces = [piece({"content": each}, "stop") for each in "abc"]
    assert texts(*pieces) == ["a", "b", "c"]
    assert end(*pieces) == base.Final("end_turn", Usage())


def test_text_behind_a_finish_reason_needs_another_one() -> None:
    error = end(piece({"content": "a"}, "stop"), piece({"content": "b"}))
    assert isinstance(error, base.CutError)


def test_usage_with_each_piece_is_told_when_it_changes() -> None:
    def counted(count: int) -> Any:
        return piece({"content": "a"}, "stop", usage={"prompt_tokens": 3, "completion_tokens": count})

    used = [event for event in read(sse(counted(1), counted(1), counted(2))) if isinstance(event, base.Used)]
    assert used == [base.Used(Usage(input=3, output=1)), base.Used(Usage(input=3, output=2))]


@pytest.mark.parametrize(
    "counts",
    [
        {"prompt_tokens": -1, "completion_tokens": 2**60},
        {"prompt_tokens": True, "completion_tokens": "9"},
        {"prompt_tokens": None, "prompt_tokens_details": []},
        "none",
        [1],
    ],
)
def test_usage_that_is_none(counts: Any) -> None:
    assert end(piece({"content": "a"}, "stop", usage=counts)) == base.Final("end_turn", Usage())


def test_more_cached_than_there_is() -> None:
    counts = {"prompt_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}
    assert end(piece({}, "stop", usage=counts)) == base.Final("end_turn", Usage(cache_read=3))


def test_nothing_is_read_behind_done() -> None:
    stream = (
        sse(piece({"content": "a"}, "stop")) + b"data: [DONE]\n\n" + sse(piece({"content": "b"}, "length"))
    )
    assert read(stream) == [STARTED, base.Text("a"), base.Final("end_turn", Usage())]


@pytest.mark.parametrize("ending", [b"", b"data: [DONE]\n\n", b"error: {}\n\ndata: [DONE]\n\n"])
def test_end_without_a_finish_reason_is_a_cut(ending: bytes) -> None:
    *events, error = read(sse(piece({"content": "a"})) + ending)
    assert events == [STARTED, base.Text("a")]
    assert isinstance(error, base.CutError)


GARBLED = [
    b"{bad json",
    b"[]",
    b'"text"',
    b'{"choices": 3}',
    b'{"choices": [{"delta": {"content": 3}}]}',
    b'{"choices": [{"delta": {"content": "\xff"}}]}',
    b"[" * 100_000,
    b'{"error": ' + b"[" * 100_000,
    b'{"choices": "\\ud83d", "usage": ' + b"1" * 5000 + b"}",
]


@pytest.mark.parametrize("data", GARBLED)
def test_garbled_chunk_is_a_cut_after_what_came_before(data: bytes) -> None:
    *events, error = read(sse(piece({"content": "a"})) + b"data: " + data + b"\n\n")
    assert events == [STARTED, base.Text("a")]
    assert isinstance(error, base.CutError)
    assert str(error) == "the stream is garbled"


@pytest.mark.parametrize("data", GARBLED)
def test_what_is_garbled_behind_the_end_does_no_harm(data: bytes) -> None:
    stream = sse(piece({"content": "a"}, "stop")) + b"data: " + data + b"\n\n" + sse(piece({"content": "b"}))
    assert read(stream) == [STARTED, base.Text("a"), base.Final("end_turn", Usage())]


def test_endless_line_is_a_cut() -> None:
    *_, error = read(*[b"x" * 1024] * 5 * 1024)
    assert str(error) == "the stream is garbled"


@pytest.mark.parametrize(
    ("value", "kind", "said"),
    [
        (
            {"error": {"message": "busy", "type": "server_error"}},
            base.ProviderUnavailableError,
            "server_error: busy",
        ),
        ({"error": {"message": "busy"}}, base.ProviderUnavailableError, "no type: busy"),
        ({"error": "busy"}, base.ProviderUnavailableError, "no type: busy"),
        ({"error": {"code": 503, "message": "busy"}}, base.OverloadedError, "busy"),
        ({"error": {"code": "429", "message": "slow"}}, base.RateLimitedError, "slow"),
        ({"error": {"code": 401, "message": "key"}}, base.RequestRefusedError, "key"),
        ({"error": {"code": "rate_limit_exceeded", "type": "tokens"}}, base.RateLimitedError, "exceeded"),
        ({"error": {"code": "context_length_exceeded"}}, base.TooLongError, "context_length_exceeded"),
        ({"error": {"message": "maximum context length is 8"}}, base.TooLongError, "maximum"),
        ({"object": "error", "message": "bad", "code": 400}, base.RequestRefusedError, "bad"),
        (
            {"error": {"code": 502}, "choices": [{"finish_reason": "error"}]},
            base.ProviderUnavailableError,
            "stream",
        ),
        ({"choices": [{"delta": {}, "finish_reason": "error"}]}, base.ProviderUnavailableError, "failed"),
        (
            {"error": {"message": ["secret prompt"], "type": {}, "code": 1.5}},
            base.ProviderUnavailableError,
            "no type",
        ),
    ],
)
def test_error_in_the_stream(value: Any, kind: type[base.ProviderError], said: str) -> None:
    *events, error = read(sse(piece({"content": "a"}), value))
    assert events == [STARTED, base.Text("a")]
    assert type(error) is kind
    assert said in str(error)
    assert "prompt" not in str(error)


def test_error_that_is_named_by_the_event() -> None:
    (error,) = read(b'event: error\ndata: {"message": "busy", "code": 503}\n\n')
    assert type(error) is base.OverloadedError


def test_error_behind_the_end_does_no_harm() -> None:
    values = piece({"content": "a"}, "stop"), {"error": {"message": "late"}}
    assert end(*values) == base.Final("end_turn", Usage())


def test_error_text_holds_no_secret() -> None:
    reader = StreamReader("m", ("hush-hush",))
    with pytest.raises(base.ProviderUnavailableError) as caught:
        list(reader.feed(sse({"error": {"message": "the key hush-hush is\nbad, Bearer abc"}})))
    assert str(caught.value).endswith(": the key [hidden] is bad, [hidden]")


def test_halves_of_a_surrogate_pair_stay_halves() -> None:
    """The reply joins them, as it does for every provider."""
    stream = b"".join(
        b'data: {"choices": [{"delta": {"content": "%s"}, "finish_reason": "stop"}]}\n\n' % half
        for half in (b"a\\ud83d", b"\\ude00b")
    )
    found = [event.text for event in read(stream) if isinstance(event, base.Text)]
    assert found == ["a\ud83d", "\ude00b"]


PIECES = st.lists(
    st.sampled_from(
        [
            sse(piece({"content": "aé😀"})),
            sse(piece({"content": "\u2028 [DONE]\n\n"})).replace(b"\n\n", b"\r\n\r\n"),
            sse(piece({}, "stop")),
            sse({**piece({}), "choices": [], "usage": PROMPT}),
            b": comment\n\n",
            b"data: [DONE]\n\n",
            b"data: {bad\n\n",
            sse({"error": {"message": "busy"}}),
        ]
    ),
    max_size=8,
)


@given(PIECES, st.data())
def test_events_do_not_depend_on_where_the_bytes_are_cut(pieces: list[bytes], draw: st.DataObject) -> None:
    stream = b"".join(pieces)
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(stream)), max_size=30)))
    parts = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert list(map(repr, read(*parts))) == list(map(repr, read(stream)))
