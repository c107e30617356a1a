"""Blocks of Anthropic's answers: told as they come, and kept as the API takes them back."""

from __future__ import annotations

import itertools
import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from legato.protocol.stream import Usage
from legato.worker.providers import anthropic_content as module
from legato.worker.providers import base
from legato.worker.providers.anthropic_content import ContentReader
from legato.worker.providers.anthropic_events import StreamDecoder
from tests.worker.providers import anthropic_streams as streams
from tests.worker.providers import sse_server as sse
from tests.worker.providers.sse_server import body_of

USED = Usage(input=11, output=9, cache_read=5)


def decoded(*pieces: bytes, names: dict[str, str] | None = None) -> list[base.Event]:
    decoder = StreamDecoder(ContentReader(names))
    return [found for piece in pieces for found in decoder.feed(piece)]


def told(*steps: sse.Step, reason: str = "end_turn", names: dict[str, str] | None = None) -> list[base.Event]:
    """The events of an answer of these blocks, without those of every answer at its beginning and end."""
    found = decoded(body_of(sse.answer(*steps, reason=reason)), names=names)
    return found[2:-2]


def content(*steps: sse.Step) -> Any:
    final = decoded(body_of(sse.answer(*steps)))[-1]
    assert isinstance(final, base.Final)
    return final.content


def test_thinking_text_and_tool_calls_are_told_as_they_come() -> None:
    call = "toolu_01T1x1fJ34qAmk2tNTrN7Up6"
    assert decoded(body_of(streams.TOOL)) == [
        base.RequestAccepted("claude-test"),
        base.Used(Usage(input=11, output=1, cache_read=5)),
        base.Reasoning("They ask for"),
        base.Reasoning(" the weather."),
        base.Text("Okay"),
        base.Text(", let me"),
        base.Text(" check."),
        base.ToolStart(call, "get_weather"),
        *(base.ToolInput(call, piece) for piece in streams.WEATHER_PIECES if piece),
        base.ToolCall(call, "get_weather", "".join(streams.WEATHER_PIECES)),
        base.ToolStart("toolu_02", "now"),
        base.ToolCall("toolu_02", "now", "{}"),
        base.Used(USED),
        base.Final("tool_use", USED, streams.TOOL_CONTENT),
    ]


def test_search_of_the_provider_is_told_with_its_result_and_what_it_is_cited_for() -> None:
    readable = {name: value for name, value in streams.FOUND.items() if name != "encrypted_content"}
    assert decoded(body_of(streams.SEARCH))[2:] == [
        base.Text("I'll check."),
        base.ServerToolCall(streams.SEARCH_ID, "web_search", {"query": "claude shannon birth date"}),
        base.ServerToolResult(streams.SEARCH_ID, "web_search", True, [readable]),
        base.Text("He was born on April 30, 1916"),
        base.Citation(
            url="https://en.wikipedia.org/wiki/Claude_Shannon",
            title="Claude Shannon - Wikipedia",
            text=streams.CITED["cited_text"],
        ),
        base.Used(USED),
        base.Final("end_turn", USED, streams.SEARCH_CONTENT),
    ]


def test_tool_of_an_mcp_server_is_told_with_its_result() -> None:
    assert decoded(body_of(streams.MCP))[2:] == [
        base.ServerToolCall(streams.ECHO_ID, "echo", {"param1": "value1"}),
        base.ServerToolResult(streams.ECHO_ID, "echo", True, [{"type": "text", "text": "Hello"}]),
        base.Text("It says Hello."),
        base.Used(USED),
        base.Final("end_turn", USED, streams.MCP_CONTENT),
    ]


def test_all_kinds_of_blocks_are_kept_also_those_that_are_not_known() -> None:
    assert decoded(body_of(streams.EVERYTHING))[2:] == [
        base.Reasoning("Hm, 😀"),
        base.Reasoning(" let me see."),
        base.ServerToolCall("srvtoolu_1", "web_fetch", {"a": 1}),
        base.ServerToolResult(
            "srvtoolu_1",
            "web_fetch",
            False,
            {"type": "web_fetch_tool_result_error", "error_code": "url_not_accessible"},
        ),
        base.Text("\n\n"),
        base.Text("Sou"),
        base.Text("rces."),
        base.Citation(text="a", source="document:1"),
        base.Citation(text="b", source="file_1"),
        base.Used(USED),
        base.Final("end_turn", USED, streams.EVERYTHING_CONTENT),
    ]


SCRIPTS = [streams.TOOL, streams.SEARCH, streams.PAUSED, streams.MCP, streams.EVERYTHING]
LONGEST = max(len(body_of(script)) for script in SCRIPTS)


@pytest.mark.parametrize("script", SCRIPTS, ids=["tool", "search", "paused", "mcp", "everything"])
@given(places=st.lists(st.integers(0, LONGEST), max_size=20).map(sorted))
@example(places=list(range(LONGEST)))
def test_events_do_not_depend_on_where_the_bytes_are_cut(script: list[sse.Step], places: list[int]) -> None:
    stream = body_of(script)
    cuts = [0, *places, len(stream)]
    assert decoded(*(stream[begin:end] for begin, end in itertools.pairwise(cuts))) == decoded(stream)


TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(TEXTS, JSON, max_size=3)
BLOCKS = st.one_of(
    st.builds(lambda text: {"type": "text", "text": f"{text}."}, TEXTS),
    st.builds(
        lambda text, cited: {"type": "text", "text": f"{text}.", "citations": cited},
        TEXTS,
        st.lists(
            st.builds(lambda text: {"type": "x_location", "cited_text": text}, TEXTS), min_size=1, max_size=3
        ),
    ),
    st.builds(lambda text, sign: {"type": "thinking", "thinking": text, "signature": sign}, TEXTS, TEXTS),
    st.builds(lambda data: {"type": "redacted_thinking", "data": data}, TEXTS),
    st.builds(lambda given: {"type": "tool_use", "id": "toolu_1", "name": "f", "input": given}, OBJECTS),
    st.builds(lambda given: {"type": "mcp_tool_use", "id": "m_1", "name": "f", "input": given}, OBJECTS),
    st.builds(lambda found: {"type": "x_tool_result", "tool_use_id": "m_1", "content": found}, JSON),
    st.builds(lambda fields: {**fields, "type": "brand_new"}, OBJECTS),
)

STREAMED = {"text": ("text_delta", "text"), "thinking": ("thinking_delta", "thinking")}


def halves(text: str) -> str:
    """``text`` as UTF-16 code units: a cut may separate a surrogate pair."""
    units = text.encode("utf-16-le")
    return "".join(chr(int.from_bytes(units[at : at + 2], "little")) for at in range(0, len(units), 2))


def streamed(index: int, block: dict[str, Any], cut: Any) -> list[sse.Step]:
    """How the API sends a block, its text cut into pieces anywhere."""
    begun, deltas = dict(block), list[dict[str, Any]]()
    for name, (kind, field) in STREAMED.items():
        if block["type"] == name:
            begun[name] = ""
            deltas += ({"type": kind, field: piece} for piece in cut(halves(block[name])))
    if "input" in block:
        begun["input"] = {}
        pieces = cut(halves(json.dumps(block["input"], ensure_ascii=False)))
        deltas += ({"type": "input_json_delta", "partial_json": piece} for piece in pieces)
    for citation in begun.pop("citations", ()):
        deltas.append({"type": "citations_delta", "citation": citation})
    if "signature" in block:
        begun["signature"] = ""
        deltas.append({"type": "signature_delta", "signature": block["signature"]})
    steps = [sse.block(index, **begun), *(sse.delta(index, **delta) for delta in deltas)]
    return [*steps, sse.block_end(index)]


@given(st.lists(BLOCKS, max_size=5), st.data())
def test_content_is_kept_as_it_was_however_its_text_is_cut(
    blocks: list[dict[str, Any]], data: st.DataObject
) -> None:
    def cut(text: str) -> list[str]:
        places = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=4)))
        return [text[begin:end] for begin, end in itertools.pairwise([0, *places, len(text)])]

    steps = [step for index, block in enumerate(blocks) for step in streamed(index, block, cut)]
    found = decoded(body_of(sse.answer(*steps)))
    final = found[-1]
    assert isinstance(final, base.Final)
    assert final.content == blocks
    msgspec.json.encode(final.content)  # UTF-8 can carry all of it
    thought = "".join(event.text for event in found if isinstance(event, base.Reasoning))
    assert thought == "".join(block["thinking"] for block in blocks if block["type"] == "thinking")
    for event in found:
        if isinstance(
            event, base.Reasoning | base.ToolInput | base.ToolCall | base.ServerToolCall | base.Citation
        ):
            msgspec.json.encode(event)


def raw(index: int, delta: str) -> sse.Step:
    data = f'{{"type":"content_block_delta","index":{index},"delta":{delta}}}'
    return sse.chunk(f"event: content_block_delta\ndata: {data}\n\n".encode())


def test_half_a_surrogate_pair_waits_in_reasoning_and_inputs_and_not_in_text() -> None:
    """The reply joins its text itself. Everything else is written as it comes."""
    steps = [
        sse.block(0, type="thinking", thinking="", signature=""),
        raw(0, r'{"type":"thinking_delta","thinking":"a\ud83d"}'),
        raw(0, r'{"type":"thinking_delta","thinking":"\ude00b\ud83d"}'),
        sse.block_end(0),
        sse.block(1, type="text", text=""),
        raw(1, r'{"type":"text_delta","text":"a\ud83d"}'),
        raw(1, r'{"type":"text_delta","text":"\ude00b\ud83d"}'),
        sse.block_end(1),
        sse.block(2, type="tool_use", id="t", name="f", input={}),
        raw(2, r'{"type":"input_json_delta","partial_json":"{\"a\":\"\ud83d"}'),
        raw(2, r'{"type":"input_json_delta","partial_json":"\ude00\"}"}'),
        sse.block_end(2),
    ]
    assert told(*steps) == [
        base.Reasoning("a"),
        base.Reasoning("😀b"),
        base.Reasoning("\ufffd"),
        base.Text("a\ud83d"),
        base.Text("\ude00b\ud83d"),
        base.ToolStart("t", "f"),
        base.ToolInput("t", '{"a":"'),
        base.ToolInput("t", '😀"}'),
        base.ToolCall("t", "f", '{"a":"😀"}'),
    ]
    assert content(*steps) == [
        {"type": "thinking", "thinking": "a😀b\ufffd", "signature": ""},
        {"type": "text", "text": "a😀b\ufffd"},
        {"type": "tool_use", "id": "t", "name": "f", "input": {"a": "😀"}},
    ]


@pytest.mark.parametrize(
    "written", ['{"city": "Os', "[1]", '"Oslo"', "nonsense", '{"a":' * 200 + "1" + "}" * 200]
)
def test_input_that_is_no_object_is_told_as_written_and_sent_back_in_one(written: str) -> None:
    """The model may be cut off by its limit. The API wants an object."""
    steps = streams.call(0, written, type="tool_use", id="t", name="f")
    assert told(*steps)[-1] == base.ToolCall("t", "f", written)
    assert content(*steps)[0]["input"] == {"INVALID_JSON": written}


def test_input_that_a_call_begins_with_counts_if_none_is_added() -> None:
    steps = streams.result(0, type="tool_use", id="t", name="f", input={"a": 1})
    assert told(*steps)[-1] == base.ToolCall("t", "f", '{"a":1}')
    assert content(*steps) == [{"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}}]


def test_call_without_input_is_sent_back_with_an_empty_one() -> None:
    steps = streams.result(0, type="tool_use", id="t", name="f", input=None)
    assert told(*steps)[-1] == base.ToolCall("t", "f", "{}")
    assert content(*steps)[0]["input"] == {}


def test_thinking_that_a_block_begins_with_is_told() -> None:
    assert told(*streams.result(0, type="thinking", thinking="Hm.", signature="x")) == [base.Reasoning("Hm.")]


@pytest.mark.parametrize(
    ("kind", "fields", "ok"),
    [
        ("mcp_tool_result", {"is_error": True, "content": []}, False),
        ("mcp_tool_result", {"is_error": False, "content": "Hello"}, True),
        ("code_execution_tool_result", {"content": {"type": "code_execution_tool_result_error"}}, False),
        (
            "code_execution_tool_result",
            {"content": {"type": "code_execution_result", "return_code": 1}},
            True,
        ),
        ("web_search_tool_result", {"content": []}, True),
    ],
)
def test_failure_of_a_tool_of_the_provider_is_told(kind: str, fields: dict[str, Any], ok: bool) -> None:
    (found,) = told(*streams.result(0, type=kind, tool_use_id="x", **fields))
    assert isinstance(found, base.ServerToolResult)
    assert found.ok is ok


def test_result_of_a_call_of_an_earlier_step_has_its_name() -> None:
    late = streams.result(0, type="mcp_tool_result", tool_use_id="m_1", content="Hello")
    assert told(*late, names={"m_1": "echo"}) == [base.ServerToolResult("m_1", "echo", True, "Hello")]
    assert told(*late) == [base.ServerToolResult("m_1", "mcp", True, "Hello")]


@pytest.mark.parametrize(
    ("citation", "expected"),
    [
        (
            {"source": "https://example.com/a", "title": "A"},
            base.Citation(url="https://example.com/a", title="A"),
        ),
        ({"source": "handbook", "cited_text": "x"}, base.Citation(source="handbook", text="x")),
        ({"document_index": 0, "document_title": "D"}, base.Citation(source="document:0", title="D")),
        ({"document_index": 0, "file_id": "file_1"}, base.Citation(source="file_1")),
        ({"document_index": None, "title": None, "url": 5}, base.Citation()),
    ],
)
def test_citation_names_its_source(citation: dict[str, Any], expected: base.Citation) -> None:
    steps = [sse.block(0, type="text", text=""), sse.delta(0, type="citations_delta", citation=citation)]
    assert told(*steps) == [expected]


def test_container_is_kept_beside_the_blocks() -> None:
    start = sse.sse("message_start", message={"model": "claude-test", "container": None})
    end = sse.sse("message_delta", delta={"stop_reason": "pause_turn", "container": {"id": "container_1"}})
    final = decoded(body_of([sse.STREAM, start, *streams.text(0, "a"), end, sse.STOP, sse.EOF_]))[-1]
    assert isinstance(final, base.Final)
    assert final.content == {"container": "container_1", "content": [{"type": "text", "text": "a"}]}


def test_block_without_its_end_is_complete_at_the_end_of_the_answer() -> None:
    steps = streams.call(0, "{}", type="tool_use", id="t", name="f")[:-1]
    assert told(*steps)[:2] == [base.ToolStart("t", "f"), base.ToolInput("t", "{}")]
    assert base.ToolCall("t", "f", "{}") in decoded(body_of(sse.answer(*steps)))
    assert content(*steps) == [{"type": "tool_use", "id": "t", "name": "f", "input": {}}]


def test_plain_stream_keeps_nothing() -> None:
    found = [
        event for event in StreamDecoder().feed(body_of(streams.TOOL)) if not isinstance(event, base.Used)
    ]
    assert found == [
        base.RequestAccepted("claude-test"),
        base.Text("Okay"),
        base.Text(", let me"),
        base.Text(" check."),
        base.Final("tool_use", USED),
    ]


BEGUN = sse.block(0, type="text", text="")
DEEP = '{"a":' * 100_000


@pytest.mark.parametrize(
    "garbled",
    [
        [sse.delta(0, type="text_delta", text="a")],
        [sse.block_end(0)],
        [BEGUN, BEGUN],
        [BEGUN, sse.block_end(0), BEGUN],
        [BEGUN, sse.delta(0, type="text_delta", text=5)],
        [BEGUN, sse.delta(0, type="signature_delta", signature=["x"])],
        [BEGUN, sse.delta(0, type="citations_delta", citation="x")],
        [BEGUN, raw(0, DEEP)],
        [BEGUN, raw(0, r'{"type":"text_delta","text":"\ud83d","x":' + DEEP)],
        [BEGUN, sse.chunk(b"event: content_block_delta\ndata: {bad\n\n")],
        [sse.sse("content_block_start", content_block={"type": "text"})],
        [sse.sse("content_block_start", index=0, content_block=5)],
        [sse.block(0, type=["text"])],
        [sse.block(0, type="tool_use", name="f", input={})],
        [sse.block(0, type="tool_use", id="x" * 201, name="f", input={})],
        [sse.block(0, type="tool_use", id="t", name="", input={})],
        streams.result(0, type="x_tool_result", tool_use_id=5, content=""),
        streams.result(0, type="brand_new", x=json.loads("[" * 200 + "]" * 200)),
    ],
)
def test_what_is_garbled_is_a_cut_connection(garbled: list[sse.Step]) -> None:
    with pytest.raises(base.CutError, match="garbled"):
        told(*garbled)


def test_size_of_a_calls_input_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_TOOL_INPUT_CHARACTERS", 10)
    assert told(*streams.call(0, "12345", "67890", type="tool_use", id="t", name="f"))
    with pytest.raises(base.ProviderError, match="input has more than 10") as raised:
        told(*streams.call(0, "12345", "67890", "1", type="tool_use", id="t", name="f"))
    assert raised.value.retry is base.Retry.NEVER


LONG = "x" * 300


@pytest.mark.parametrize(
    "steps",
    [
        streams.text(0, "a" * 150, "a" * 150),
        streams.thinking(0, LONG),
        streams.result(0, type="brand_new", x=LONG),
        [BEGUN, sse.delta(0, type="citations_delta", citation={"cited_text": LONG})],
        [BEGUN, sse.delta(0, type="signature_delta", signature=LONG)],
        [
            sse.block(0, type="compaction"),
            sse.delta(0, type="compaction_delta", content="", encrypted_content=LONG),
        ],
        [step for index in range(9) for step in streams.text(index, "")],
    ],
)
def test_size_of_a_step_is_bounded(steps: list[sse.Step], monkeypatch: pytest.MonkeyPatch) -> None:
    assert told(*steps) is not None
    monkeypatch.setattr(module, "MAX_STEP_CONTENT_CHARACTERS", 300)
    with pytest.raises(base.ProviderError, match="more than 300") as raised:
        told(*steps)
    assert raised.value.retry is base.Retry.NEVER
