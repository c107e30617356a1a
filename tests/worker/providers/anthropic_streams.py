"""Answers of Anthropic's API with more than text, as its documentation shows them, event by event.

https://platform.claude.com/docs/en/build-with-claude/streaming, and the pages on web search and MCP there.
"""

from __future__ import annotations

from typing import Any, Final

from tests.worker.providers import sse_server as sse

WEATHER_PIECES: Final = (
    "",
    '{"location":',
    ' "San',
    " Francisc",
    "o,",
    ' CA"',
    ", ",
    '"unit": "fah',
    'renheit"}',
)
WEATHER_INPUT: Final = {"location": "San Francisco, CA", "unit": "fahrenheit"}
SIGNATURE: Final = "EqQBCgIYAhIM1gbcDa9GJwZA2b3hGgxBdjrkzLoky3dl1pkiMOYds"
REDACTED: Final = (
    "EmwKAhgBEgy3va3pzix/LafPsn4aDFIT2Xlxh0L5L8rLVyIwxtE3rAFBa8cr3qpPkNRj2YfWXGmKDxH4mPnZ5sQ7vB9mLkNN"
)


def text(index: int, *pieces: str) -> list[sse.Step]:
    deltas = (sse.delta(index, type="text_delta", text=piece) for piece in pieces)
    return [sse.block(index, type="text", text=""), *deltas, sse.block_end(index)]


def thinking(index: int, *pieces: str) -> list[sse.Step]:
    deltas = (sse.delta(index, type="thinking_delta", thinking=piece) for piece in pieces)
    return [
        sse.block(index, type="thinking", thinking="", signature=""),
        *deltas,
        sse.delta(index, type="signature_delta", signature=SIGNATURE),
        sse.block_end(index),
    ]


def call(index: int, *pieces: str, **fields: Any) -> list[sse.Step]:
    """A tool call of any kind, its input in pieces."""
    deltas = (sse.delta(index, type="input_json_delta", partial_json=piece) for piece in pieces)
    return [sse.block(index, **fields, input={}), *deltas, sse.block_end(index)]


def result(index: int, **fields: Any) -> list[sse.Step]:
    """A block that comes as a whole."""
    return [sse.block(index, **fields), sse.block_end(index)]


TOOL: Final = sse.answer(
    *thinking(0, "They ask for", " the weather."),
    *text(1, "Okay", ", let me", " check."),
    *call(2, *WEATHER_PIECES, type="tool_use", id="toolu_01T1x1fJ34qAmk2tNTrN7Up6", name="get_weather"),
    *call(3, type="tool_use", id="toolu_02", name="now"),
    reason="tool_use",
)
TOOL_CONTENT: Final = [
    {"type": "thinking", "thinking": "They ask for the weather.", "signature": SIGNATURE},
    {"type": "text", "text": "Okay, let me check."},
    {
        "type": "tool_use",
        "id": "toolu_01T1x1fJ34qAmk2tNTrN7Up6",
        "name": "get_weather",
        "input": WEATHER_INPUT,
    },
    {"type": "tool_use", "id": "toolu_02", "name": "now", "input": {}},
]

FOUND: Final = {
    "type": "web_search_result",
    "url": "https://en.wikipedia.org/wiki/Claude_Shannon",
    "title": "Claude Shannon - Wikipedia",
    "encrypted_content": "EqgfCioIARgBIiQ3YTAwMjY1Mi1mZjM5LTQ1NGUtODgxNC1kNjNjNTk1ZWI3Y",
    "page_age": "April 30, 2025",
}
CITED: Final = {
    "type": "web_search_result_location",
    "url": "https://en.wikipedia.org/wiki/Claude_Shannon",
    "title": "Claude Shannon - Wikipedia",
    "encrypted_index": "Eo8BCioIAhgBIiQyYjQ0OWJmZi1lNm..",
    "cited_text": "Claude Elwood Shannon (born April 30, 1916) was an American mathematician",
}
SEARCH_ID: Final = "srvtoolu_014hJH82Qum7Td6UV8gDXThB"
SEARCH_RESULT: Final = {"type": "web_search_tool_result", "tool_use_id": SEARCH_ID, "content": [FOUND]}

SEARCH: Final = sse.answer(
    *text(0, "I'll check."),
    *call(
        1,
        "",
        '{"query": "claude sh',
        'annon birth date"}',
        type="server_tool_use",
        id=SEARCH_ID,
        name="web_search",
    ),
    *result(2, **SEARCH_RESULT),
    sse.block(3, type="text", text="", citations=[]),
    sse.delta(3, type="text_delta", text="He was born on April 30, 1916"),
    sse.delta(3, type="citations_delta", citation=CITED),
    sse.block_end(3),
)
SEARCH_CONTENT: Final = [
    {"type": "text", "text": "I'll check."},
    {
        "type": "server_tool_use",
        "id": SEARCH_ID,
        "name": "web_search",
        "input": {"query": "claude shannon birth date"},
    },
    SEARCH_RESULT,
    {"type": "text", "text": "He was born on April 30, 1916", "citations": [CITED]},
]

PAUSED: Final = sse.answer(
    *text(0, "I'll check."),
    *call(
        1, '{"query": "claude shannon birth date"}', type="server_tool_use", id=SEARCH_ID, name="web_search"
    ),
    reason="pause_turn",
)
PAUSED_CONTENT: Final = SEARCH_CONTENT[:2]

LISTING: Final = {
    "type": "mcp_tool_listing",
    "mcp_server_name": "example-mcp",
    "tools": [{"name": "echo", "description": "Returns the text.", "input_schema": {"type": "object"}}],
}
ECHO_ID: Final = "mcptoolu_014Q35RayjACSWkSj4X2yov1"
ECHO_RESULT: Final = {
    "type": "mcp_tool_result",
    "tool_use_id": ECHO_ID,
    "is_error": False,
    "content": [{"type": "text", "text": "Hello"}],
}

MCP: Final = sse.answer(
    *result(0, **LISTING),
    *call(
        1, '{"param1": "val', 'ue1"}', type="mcp_tool_use", id=ECHO_ID, name="echo", server_name="example-mcp"
    ),
    *result(2, **ECHO_RESULT),
    *text(3, "It says Hello."),
)
MCP_CONTENT: Final = [
    LISTING,
    {
        "type": "mcp_tool_use",
        "id": ECHO_ID,
        "name": "echo",
        "server_name": "example-mcp",
        "input": {"param1": "value1"},
    },
    ECHO_RESULT,
    {"type": "text", "text": "It says Hello."},
]

EVERYTHING: Final = sse.answer(
    *thinking(0, "Hm, 😀", " let me see."),
    *result(1, type="redacted_thinking", data=REDACTED),
    *call(2, '{"a": 1}', type="server_tool_use", id="srvtoolu_1", name="web_fetch"),
    *result(
        3,
        type="web_fetch_tool_result",
        tool_use_id="srvtoolu_1",
        content={"type": "web_fetch_tool_result_error", "error_code": "url_not_accessible"},
    ),
    *text(4, "\n\n"),
    *result(5, type="brand_new", some={"field": [1, None, "x"]}),
    sse.block(6, type="compaction", content=None),
    sse.delta(6, type="compaction_delta", content="Summary.", encrypted_content="Ecm"),
    sse.block_end(6),
    sse.block(7, type="text", text="Sou"),
    sse.delta(7, type="text_delta", text="rces."),
    sse.delta(7, type="brand_new_delta", text={"not": "text"}),
    sse.delta(
        7, type="citations_delta", citation={"type": "page_location", "document_index": 1, "cited_text": "a"}
    ),
    sse.delta(
        7, type="citations_delta", citation={"type": "char_location", "file_id": "file_1", "cited_text": "b"}
    ),
    sse.block_end(7),
)
EVERYTHING_CONTENT: Final = [
    {"type": "thinking", "thinking": "Hm, 😀 let me see.", "signature": SIGNATURE},
    {"type": "redacted_thinking", "data": REDACTED},
    {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_fetch", "input": {"a": 1}},
    {
        "type": "web_fetch_tool_result",
        "tool_use_id": "srvtoolu_1",
        "content": {"type": "web_fetch_tool_result_error", "error_code": "url_not_accessible"},
    },
    {"type": "brand_new", "some": {"field": [1, None, "x"]}},
    {"type": "compaction", "content": "Summary.", "encrypted_content": "Ecm"},
    {
        "type": "text",
        "text": "Sources.",
        "citations": [
            {"type": "page_location", "document_index": 1, "cited_text": "a"},
            {"type": "char_location", "file_id": "file_1", "cited_text": "b"},
        ],
    },
]
