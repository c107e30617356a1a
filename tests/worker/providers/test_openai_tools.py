"""Requests with tools, steps, options and attachments, against a server that answers as told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from legato.protocol.jobs import Turn
from legato.worker.providers import base
from legato.worker.replies import overlap
from tests.worker.providers import chat_completions as chat
from tests.worker.providers import sse_server as sse
from tests.worker.providers.test_openai_compatible import connected
from tests.worker.support import events, said

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = base.ToolSpec("weather", "The weather of a city.", SCHEMA)
REQUEST = base.ProviderRequest("Oslo or Rome?", tools=(WEATHER,))


def calling(*names: str, text: str = "Let me see.") -> list[sse.Step]:
    """An answer with calls without arguments."""
    calls = [
        {
            "index": index,
            "id": f"given-{index}",
            "type": "function",
            "function": {"name": name, "arguments": "{}"},
        }
        for index, name in enumerate(names)
    ]
    return [
        sse.STREAM,
        chat.ROLE,
        chat.text(text),
        chat.data(chat.piece({"tool_calls": calls})),
        chat.finished("tool_calls"),
        chat.usage(chat.PROMPT),
        chat.DONE,
        sse.EOF_,
    ]


def done(seen: list[base.Event], *texts: str) -> base.Step:
    """The step that these events are, with results for its calls."""
    final, calls = seen[-1], [event for event in seen if isinstance(event, base.ToolCall)]
    assert isinstance(final, base.Final)
    outputs = [base.ToolOutput(call.call, call.name, text) for call, text in zip(calls, texts, strict=True)]
    return base.Step(json.loads(json.dumps(final.content)), tuple(outputs))


async def test_tools_go_along_as_the_api_takes_them() -> None:
    async with connected(chat.whole("x")) as (provider, server):
        assert base.takes_tools(provider)
        assert not base.takes_server_tools(provider)
        await events(provider, REQUEST)
    (request,) = server.requests
    assert request["tools"] == [
        {
            "type": "function",
            "function": {"name": "weather", "description": "The weather of a city.", "parameters": SCHEMA},
        }
    ]


async def test_next_step_begins_as_the_one_before_and_adds_the_calls_and_their_results() -> None:
    async with connected(calling("weather", "weather"), chat.whole("Rome."), system="Be brief.") as (
        provider,
        server,
    ):
        seen = await events(provider, REQUEST)
        step = done(seen, "cold", "warm\ud83d")
        last = await events(provider, REQUEST._replace(steps=(step,)))
    first, second = server.bodies
    end = first.index(b"}]")  # of the messages
    assert second[: end + 1] == first[: end + 1]
    before, after = server.requests
    function = {"name": "weather", "arguments": "{}"}
    calls = [{"id": f"given-{index}", "type": "function", "function": function} for index in (0, 1)]
    assert after == {
        **before,
        "messages": [
            *before["messages"],
            {"role": "assistant", "content": "Let me see.", "tool_calls": calls},
            {"role": "tool", "tool_call_id": "given-0", "content": "cold"},
            {"role": "tool", "tool_call_id": "given-1", "content": "warm\ufffd"},
        ],
    }
    assert isinstance(last[-1], base.Final)
    assert last[-1].content == [{"role": "assistant", "content": "Rome."}]


async def test_interrupted_step_goes_on_behind_the_steps_before_it() -> None:
    so_far = "It is "
    rest = {"so_far": so_far, "continuation": overlap.continuation(so_far), "attempt": 2}
    turns = [
        {"role": "assistant", "content": so_far},
        {"role": "user", "content": rest["continuation"]},
    ]
    async with connected(calling("weather"), calling("weather", text="is warmer"), chat.whole("x")) as (
        provider,
        server,
    ):
        step = done(await events(provider, REQUEST), "cold")
        seen = await events(provider, REQUEST._replace(steps=(step,), **rest))
        await events(provider, REQUEST._replace(steps=(step, done(seen, "hot"))))
    _, second, third = (request["messages"] for request in server.requests)
    assert [message["role"] for message in second[1:3]] == ["assistant", "tool"]
    assert second[3:] == turns
    assert third[:5] == second
    assert [message["role"] for message in third[5:]] == ["assistant", "tool"]
    assert third[5]["content"] == "is warmer"


@pytest.mark.parametrize(
    ("content", "outputs"),
    [
        (None, 0),
        ([], 0),
        ("text", 0),
        ([{"type": "text", "text": "another provider's"}], 0),
        ([{"role": "assistant", "content": "x"}], 1),
    ],
)
async def test_step_that_is_not_of_this_api_is_refused(content: Any, outputs: int) -> None:
    step = base.Step(content, (base.ToolOutput("c", "weather", "cold"),) * outputs)
    async with connected() as (provider, _):
        seen, error = await said(provider, REQUEST._replace(steps=(step,)))
    assert (seen, type(error)) == ([], base.RequestRefusedError)
    assert "a step of the reply" in str(error)


async def test_options_replace_what_the_settings_say() -> None:
    options = base.RequestOptions(
        model="other-model",
        system="Be long.",
        max_tokens=5,
        thinking=base.Thinking(100),
        server_tools=({"type": "web_search"},),
        mcp_servers=({"type": "url", "url": "https://mcp.example.com"},),
        extra={"temperature": 0, "stream": False},
    )
    unnamed = chat.data({**chat.piece({"content": "x"}, "stop"), "model": None})
    async with connected([sse.STREAM, unnamed, chat.DONE, sse.EOF_], system="Be brief.") as (
        provider,
        server,
    ):
        seen = await events(provider, base.ProviderRequest("Hi", options=options))
    assert server.requests == [
        {
            "model": "other-model",
            "messages": [{"role": "system", "content": "Be long."}, {"role": "user", "content": "Hi"}],
            "stream": True,
            "max_tokens": 5,
            "stream_options": {"include_usage": True},
            "temperature": 0,
        }
    ]
    assert seen[0] == base.RequestAccepted("other-model")


async def test_empty_system_prompt_replaces_that_of_the_settings() -> None:
    async with connected(chat.whole("x"), system="Be brief.") as (provider, server):
        await events(provider, base.ProviderRequest("Hi", options=base.RequestOptions(system="")))
    assert server.requests[0]["messages"] == [{"role": "user", "content": "Hi"}]


async def test_attachments_are_parts_of_the_message() -> None:
    attachments = (
        base.Attachment(url="https://example.com/a.png"),
        base.Attachment("image/png", data="aGk="),
        base.Attachment("application/pdf", data="aGk=", title="Report"),
    )
    history = (Turn("user", "one"), Turn("assistant", "two"))
    parts = [
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
        {
            "type": "file",
            "file": {"filename": "Report", "file_data": "data:application/pdf;base64,aGk="},
        },
    ]
    async with connected(chat.whole("x"), chat.whole("x")) as (provider, server):
        await events(provider, base.ProviderRequest("three", history, attachments=attachments))
        await events(provider, base.ProviderRequest(" ", attachments=attachments))
    with_text, without = (request["messages"][-1] for request in server.requests)
    assert with_text == {"role": "user", "content": [{"type": "text", "text": "three"}, *parts]}
    assert without == {"role": "user", "content": parts}


REFUSALS = [
    (400, "registry.ollama.ai/library/gemma:2b does not support tools"),
    (400, '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'),
    (404, "No endpoints found that support tool use. To learn more, see the documentation."),
    (500, "tools param requires --jinja flag"),
]


@pytest.mark.parametrize(("status", "message"), REFUSALS)
async def test_server_that_takes_no_tools_is_named_as_the_cause(status: int, message: str) -> None:
    async with connected(chat.refused(status, message=message)) as (provider, _):
        seen, error = await said(provider, REQUEST)
    assert (seen, type(error)) == ([], base.RequestRefusedError)
    assert message in str(error)
    assert str(error).endswith("(the model or its server does not take tools)")


@pytest.mark.parametrize(
    ("status", "message", "tools"),
    [
        (400, "does not support tools", ()),
        (400, "Invalid schema for function 'weather'", (WEATHER,)),
        (429, "too many requests with tools; your plan does not support more", (WEATHER,)),
        (503, "tools are not supported while the server starts", (WEATHER,)),
    ],
)
async def test_other_errors_do_not_blame_the_tools(
    status: int, message: str, tools: tuple[base.ToolSpec, ...]
) -> None:
    async with connected(chat.refused(status, message=message)) as (provider, _):
        _, error = await said(provider, base.ProviderRequest("Hi", tools=tools))
    assert message in str(error)
    assert "does not take tools" not in str(error)


async def test_server_that_wants_other_fields_gets_the_tools_too() -> None:
    refusal = chat.refused(400, message="Use max_completion_tokens instead. Tools are supported.")
    async with connected(refusal, chat.whole("x")) as (provider, server):
        await events(provider, REQUEST)
    assert "tools" in server.requests[1]
    assert "max_completion_tokens" in server.requests[1]
