"""Requests with tools through the real SDK: what the API gets, and what comes of its answers."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from legato.protocol.jobs import Turn
from legato.protocol.stream import Usage
from legato.worker.providers import base
from tests.waiting import WAIT
from tests.worker.providers import anthropic_streams as streams
from tests.worker.providers import sse_server as sse
from tests.worker.providers.claude import anthropic_provider
from tests.worker.providers.sse_server import SseServer
from tests.worker.support import events, failing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from legato.worker.providers.anthropic import Anthropic

KEY = "sk-secret-key"
WEATHER = base.ToolSpec("get_weather", "Weather of a city.", {"type": "object", "properties": {}})
SENT = {"name": "get_weather", "description": "Weather of a city.", "input_schema": dict(WEATHER.schema)}
QUESTION = base.ProviderRequest("How is the weather?", tools=(WEATHER,))
MCP_SERVER = {
    "type": "url",
    "url": "https://mcp.test/sse?key=hush",
    "name": "example-mcp",
    "authorization_token": "tok-hush",
}


@asynccontextmanager
async def connected(*scripts: list[sse.Step]) -> AsyncIterator[tuple[Anthropic, SseServer]]:
    async with SseServer(*scripts) as server:
        provider = anthropic_provider(
            api_key=KEY, model="claude-a", max_tokens=77, system="Be brief.", base_url=server.url
        )
        yield provider, server
        await provider.aclose()


async def sent(request: base.ProviderRequest) -> dict[str, Any]:
    """The body that the API gets."""
    async with connected(sse.whole("x")) as (provider, server):
        await events(provider, request)
    body: dict[str, Any] = server.requests[0]
    return body


async def final(script: list[sse.Step], request: base.ProviderRequest = QUESTION) -> base.Final:
    async with connected(script) as (provider, _):
        found = (await events(provider, request))[-1]
    assert isinstance(found, base.Final)
    return found


def results(*outputs: tuple[str, str]) -> tuple[base.ToolOutput, ...]:
    return tuple(base.ToolOutput(call, "get_weather", text) for call, text in outputs)


async def test_provider_takes_tools() -> None:
    async with connected() as (provider, _):
        assert base.takes_tools(provider)
        assert base.takes_server_tools(provider)


async def test_tools_are_offered_with_the_schema_of_their_input() -> None:
    assert await sent(QUESTION) == {
        "model": "claude-a",
        "max_tokens": 77,
        "tools": [SENT],
        "system": "Be brief.",
        "messages": [{"role": "user", "content": "How is the weather?"}],
        "cache_control": {"type": "ephemeral"},
        "stream": True,
    }


async def test_step_with_its_results_goes_back_as_it_came_and_begins_as_the_request_before() -> None:
    """To the byte, for the prompt cache; and so do two steps."""
    done = base.Step(
        streams.TOOL_CONTENT,
        (
            base.ToolOutput("toolu_01T1x1fJ34qAmk2tNTrN7Up6", "get_weather", "18 °C"),
            base.ToolOutput("toolu_02", "now", "no clock", failed=True),
        ),
    )
    more = base.Step(
        [{"type": "tool_use", "id": "toolu_03", "name": "now", "input": {}}], results(("toolu_03", ""))
    )
    async with connected(streams.TOOL, sse.whole("x"), sse.whole("x")) as (provider, server):
        for steps in ((), (done,), (done, more)):
            await events(provider, QUESTION._replace(steps=steps))
    messages = [body["messages"] for body in server.requests]
    question = {"role": "user", "content": "How is the weather?"}
    said = {"role": "assistant", "content": streams.TOOL_CONTENT}
    told = {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "toolu_01T1x1fJ34qAmk2tNTrN7Up6", "content": "18 °C"},
            {"type": "tool_result", "tool_use_id": "toolu_02", "content": "no clock", "is_error": True},
        ],
    }
    assert messages[1] == [question, said, told]
    assert messages[2] == [
        *messages[1],
        {"role": "assistant", "content": more.content},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_03"}]},
    ]
    end = b'],"cache_control"'
    heads = [body[: body.index(end)] for body in server.bodies]
    assert heads[1].startswith(heads[0])
    assert heads[2].startswith(heads[1])


@pytest.mark.parametrize(
    ("script", "content"),
    [
        (streams.TOOL, streams.TOOL_CONTENT),
        (streams.SEARCH, streams.SEARCH_CONTENT),
        (streams.PAUSED, streams.PAUSED_CONTENT),
        (streams.MCP, streams.MCP_CONTENT),
        (streams.EVERYTHING, streams.EVERYTHING_CONTENT),
    ],
    ids=["tool", "search", "paused", "mcp", "everything"],
)
async def test_content_of_a_step_goes_back_unchanged(
    script: list[sse.Step], content: list[dict[str, Any]]
) -> None:
    said = (await final(script)).content
    assert said == content
    body = await sent(QUESTION._replace(steps=(base.Step(said),)))
    assert body["messages"][1:] == [{"role": "assistant", "content": content}]


@pytest.mark.parametrize("script", [streams.TOOL, streams.SEARCH, streams.PAUSED, streams.MCP])
async def test_content_is_what_the_sdk_makes_of_the_same_stream(script: list[sse.Step]) -> None:
    import anthropic  # noqa: PLC0415 - takes long, see claude.py

    async with (
        SseServer(script) as server,
        anthropic.AsyncAnthropic(api_key=KEY, base_url=server.url) as client,
        client.beta.messages.stream(
            model="claude-a", max_tokens=9, messages=[{"role": "user", "content": "Hi"}]
        ) as stream,
    ):
        message = await stream.get_final_message()
    assert [json.loads(block.to_json()) for block in message.content] == (await final(script)).content


async def test_step_that_paused_goes_on_as_one_turn() -> None:
    paused = base.Step(streams.PAUSED_CONTENT)
    rest = base.Step([{"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {}}])
    body = await sent(QUESTION._replace(steps=(paused, rest)))
    assert body["messages"][1:] == [{"role": "assistant", "content": [*paused.content, *rest.content]}]
    ended = base.Step(rest.content, results(("toolu_1", "18 °C")))
    body = await sent(QUESTION._replace(steps=(paused, ended)))
    assert [turn["role"] for turn in body["messages"]] == ["user", "assistant", "user"]
    assert body["messages"][1] == {"role": "assistant", "content": [*paused.content, *rest.content]}


async def test_result_that_comes_after_a_pause_has_the_name_of_its_call() -> None:
    script = sse.answer(*streams.result(0, type="mcp_tool_result", tool_use_id="m_1", content="Hello"))
    paused = base.Step(
        [{"type": "mcp_tool_use", "id": "m_1", "name": "echo", "server_name": "x", "input": {}}]
    )
    async with connected(script) as (provider, _):
        found = await events(provider, QUESTION._replace(steps=(paused,)))
    assert base.ServerToolResult("m_1", "echo", True, "Hello") in found


async def test_request_to_go_on_adds_two_turns_behind_the_results() -> None:
    ended = base.Step(streams.TOOL_CONTENT, results(("toolu_02", "12:00")))
    body = await sent(QUESTION._replace(steps=(ended,), so_far="It is", continuation="Go on.", attempt=2))
    assert body["messages"][3:] == [
        {"role": "assistant", "content": "It is"},
        {"role": "user", "content": "Go on."},
    ]


async def test_request_to_go_on_after_a_pause_leaves_out_calls_that_only_the_api_could_end() -> None:
    """A user's turn behind a call without its result would be refused."""
    paused = base.Step([*streams.SEARCH_CONTENT[:3], {**streams.PAUSED_CONTENT[1], "id": "srvtoolu_2"}])
    body = await sent(QUESTION._replace(steps=(paused,), so_far="He was", continuation="Go on.", attempt=2))
    assert body["messages"][1:] == [
        {"role": "assistant", "content": [*streams.SEARCH_CONTENT[:3], {"type": "text", "text": "He was"}]},
        {"role": "user", "content": "Go on."},
    ]


@pytest.mark.parametrize("content", [None, [], "text", {"other": "provider"}, {"content": None}])
async def test_step_without_blocks_is_no_turn(content: Any) -> None:
    """The API refuses turns without content."""
    assert len((await sent(QUESTION._replace(steps=(base.Step(content),))))["messages"]) == 1


async def test_container_of_the_last_step_is_named_again() -> None:
    first = base.Step({"container": "container_1", "content": streams.PAUSED_CONTENT})
    last = base.Step({"container": "container_2", "content": streams.SEARCH_CONTENT[2:3]})
    body = await sent(QUESTION._replace(steps=(first, last, base.Step(streams.text))))
    assert body["container"] == "container_2"
    assert body["messages"][1] == {"role": "assistant", "content": streams.SEARCH_CONTENT[:3]}


async def test_options_replace_the_settings_of_one_request() -> None:
    options = base.RequestOptions(
        model="claude-b",
        system="Rhyme.",
        max_tokens=5000,
        thinking=base.Thinking(2048),
        server_tools=({"type": "web_search_20250305", "name": "web_search", "max_uses": 5},),
        extra={"temperature": 1, "metadata": {"user_id": "7"}},
    )
    body = await sent(QUESTION._replace(options=options))
    del body["messages"]
    assert body == {
        "model": "claude-b",
        "max_tokens": 5000,
        "tools": [SENT, {"type": "web_search_20250305", "name": "web_search", "max_uses": 5}],
        "thinking": {"type": "enabled", "budget_tokens": 2048, "display": "summarized"},
        "system": "Rhyme.",
        "temperature": 1,
        "metadata": {"user_id": "7"},
        "cache_control": {"type": "ephemeral"},
        "stream": True,
    }


@pytest.mark.parametrize(
    ("options", "field", "value"),
    [
        (
            base.RequestOptions(thinking=base.Thinking()),
            "thinking",
            {"type": "adaptive", "display": "summarized"},
        ),
        (base.RequestOptions(thinking=base.Thinking()), "max_tokens", 77),
        (base.RequestOptions(thinking=base.Thinking(2048)), "max_tokens", 77 + 2048),
        (base.RequestOptions(system=""), "system", None),
        (base.RequestOptions(system=None), "system", "Be brief."),
        (base.RequestOptions(system="\udcff"), "system", "\ufffd"),
        (base.RequestOptions(extra={"stream": False}), "stream", True),
        (base.RequestOptions(extra={"thinking": {"type": "disabled"}}), "thinking", {"type": "disabled"}),
    ],
)
async def test_each_option_has_its_field(options: base.RequestOptions, field: str, value: Any) -> None:
    assert (await sent(base.ProviderRequest("Hi", options=options))).get(field) == value


def headers(server: SseServer) -> list[str]:
    lines = server.headers[0].decode().lower().split("\r\n")
    return [line.removeprefix("anthropic-beta: ") for line in lines if line.startswith("anthropic-beta")]


async def test_mcp_servers_go_along_with_all_their_tools_and_the_header_of_the_beta() -> None:
    toolset = {"type": "mcp_toolset", "mcp_server_name": "other", "default_config": {"enabled": False}}
    options = base.RequestOptions(
        mcp_servers=(MCP_SERVER, {"type": "url", "url": "https://other.test", "name": "other"}),
        server_tools=(toolset,),
    )
    async with connected(streams.MCP) as (provider, server):
        await events(provider, base.ProviderRequest("Hi", options=options))
    (body,) = server.requests
    assert body["mcp_servers"] == [MCP_SERVER, {"type": "url", "url": "https://other.test", "name": "other"}]
    assert body["tools"] == [toolset, {"type": "mcp_toolset", "mcp_server_name": "example-mcp"}]
    assert headers(server) == ["mcp-client-2026-09-15"]


@pytest.mark.parametrize(
    ("servers", "betas", "expected"),
    [
        ((), (), []),
        ((), "files-api-2025-04-14", ["files-api-2025-04-14"]),
        ((MCP_SERVER,), ["a-1", "b-2"], ["a-1,b-2,mcp-client-2026-09-15"]),
        ((MCP_SERVER,), ["mcp-client-2025-11-20"], ["mcp-client-2025-11-20"]),
    ],
)
async def test_further_betas_are_named_in_the_header_and_not_in_the_body(
    servers: Any, betas: Any, expected: list[str]
) -> None:
    options = base.RequestOptions(mcp_servers=servers, extra={"betas": betas})
    async with connected(sse.whole("x")) as (provider, server):
        await events(provider, base.ProviderRequest("Hi", options=options))
    assert headers(server) == expected
    assert "betas" not in server.requests[0]


async def test_secrets_of_mcp_servers_are_in_no_error() -> None:
    message = "cannot reach https://mcp.test/sse?key=hush with tok-hush"
    late = [sse.STREAM, sse.START, sse.error_event("api_error", message)]
    request = base.ProviderRequest("Hi", options=base.RequestOptions(mcp_servers=(MCP_SERVER,)))
    async with connected(sse.refused(400, "invalid_request_error", message=message), late) as (provider, _):
        for _ in range(2):
            _, error = await failing(provider, request=request)
            assert "cannot reach [hidden] with [hidden]" in str(error)
            assert "hush" not in str(error)


PNG = base.Attachment("image/png", data="iVBORw0KGgo=")
BY_URL = base.Attachment(url="https://example.com/cat.png")
PDF = base.Attachment("application/pdf", data="JVBERi0=", title="Plan")
PDF_BY_URL = base.Attachment("application/pdf", url="https://example.com/plan.pdf")


async def test_attachments_stand_before_the_text_of_the_message() -> None:
    request = base.ProviderRequest(
        "What is this?",
        (Turn("user", "Hi"), Turn("assistant", "Hello")),
        attachments=(PNG, BY_URL, PDF, PDF_BY_URL),
    )
    body = await sent(request)
    assert body["messages"][2] == {
        "role": "user",
        "content": [
            {
                "type": "image",
                "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="},
            },
            {"type": "image", "source": {"type": "url", "url": "https://example.com/cat.png"}},
            {
                "type": "document",
                "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="},
                "title": "Plan",
            },
            {"type": "document", "source": {"type": "url", "url": "https://example.com/plan.pdf"}},
            {"type": "text", "text": "What is this?"},
        ],
    }


async def test_attachment_without_text_is_sent_without() -> None:
    body = await sent(base.ProviderRequest(" ", attachments=(BY_URL,)))
    assert [block["type"] for block in body["messages"][0]["content"]] == ["image"]


@pytest.mark.parametrize(
    "request_",
    [
        QUESTION,
        base.ProviderRequest("Hi", steps=(base.Step(streams.PAUSED_CONTENT),)),
        base.ProviderRequest("Hi", options=base.RequestOptions(thinking=base.Thinking())),
        base.ProviderRequest("Hi", options=base.RequestOptions(server_tools=({"type": "x", "name": "x"},))),
        base.ProviderRequest("Hi", options=base.RequestOptions(mcp_servers=(MCP_SERVER,))),
        base.ProviderRequest("Hi", options=base.RequestOptions(extra={"thinking": {"type": "adaptive"}})),
    ],
)
async def test_request_that_may_need_it_gets_the_content(request_: base.ProviderRequest) -> None:
    assert (await final(sse.whole("x"), request_)).content == [{"type": "text", "text": "x"}]


async def test_plain_request_gets_no_content() -> None:
    plain = base.ProviderRequest("Hi", options=base.RequestOptions(system="Rhyme."), attachments=(BY_URL,))
    assert (await final(streams.TOOL, plain)).content is None


STOPS = [
    *("end_turn", "max_tokens", "stop_sequence", "tool_use", "pause_turn", "refusal"),
    *("model_context_window_exceeded", "compaction", "brand_new"),
]


@pytest.mark.parametrize("reason", STOPS)
async def test_each_reason_to_stop_is_passed_on(reason: str) -> None:
    assert (await final(sse.answer(*streams.text(0, "a"), reason=reason))).stop_reason == reason


async def test_stream_that_breaks_off_in_a_call_has_told_no_call() -> None:
    cut = [*streams.TOOL[:-8], sse.ABORT]
    async with connected(cut) as (provider, _):
        seen, error = await failing(provider, request=QUESTION)
    assert type(error) is base.CutError
    assert any(isinstance(event, base.ToolInput) for event in seen)
    assert not any(isinstance(event, base.ToolCall | base.Final) for event in seen)


async def test_error_in_the_middle_of_a_call_is_told_by_its_type() -> None:
    script = [*streams.TOOL[:-8], sse.error_event("overloaded_error")]
    async with connected(script) as (provider, _):
        _, error = await failing(provider, request=QUESTION)
    assert type(error) is base.OverloadedError


async def test_cancelling_in_the_middle_of_a_call_closes_the_request() -> None:
    async with connected([*streams.TOOL[:-8], sse.HANG]) as (provider, server):
        seen = asyncio.Event()

        async def listen() -> None:
            async for event in provider.stream(QUESTION):
                if isinstance(event, base.ToolInput):
                    seen.set()

        task = asyncio.create_task(listen())
        async with asyncio.timeout(WAIT):
            await seen.wait()
            task.cancel()
            await server.closed.wait()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_usage_of_a_step_is_told() -> None:
    assert (await final(streams.TOOL)).usage == Usage(input=11, output=9, cache_read=5)
