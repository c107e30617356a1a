"""The door for OpenAI's clients: in a stream and whole, and which models there are."""

from __future__ import annotations

import asyncio
import contextlib
import json

from legato.broadcaster.composition import running
from legato.broadcaster.config import Chat
from legato.protocol.stream import Decision
from tests.broadcaster.doors.conftest import ask, asking, open_settings
from tests.broadcaster.doors.writing import cancelled, jobs, written
from tests.broadcaster.replies.test_healing import COMPLETE
from tests.waiting import until

PATH = "/v1/chat/completions"
FAILED = Decision(model="puppet", state="failed", code="timeout")


def body(**more):
    return {"model": "legato", "messages": [{"role": "user", "content": "Hello"}], **more}


def chunks(answer):
    return [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]


@contextlib.asynccontextmanager
async def asked_whole(server, redis, path=PATH, sent=None):
    """A request that is answered when its reply has ended."""
    task = asyncio.create_task(ask(server, "POST", path, sent or body()))

    async def queued():
        return bool(await jobs(redis))

    await until(queued)
    yield task, await written(redis)


async def test_a_completion_is_streamed(server, redis):
    sent = body(stream=True, stream_options={"include_usage": True})
    async with asking(server, "POST", PATH, sent) as answer:
        writer = await written(redis)
        await writer.says("Hi")
        await answer.until(b'"Hi"')
        await writer.ends(COMPLETE)
        await answer.rest()
    assert chunks(answer)[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert chunks(answer)[-1]["usage"]["total_tokens"] == 5
    assert answer.text.endswith("data: [DONE]\n\n")


async def test_a_stream_that_fails_says_so(server, redis):
    async with asking(server, "POST", PATH, body(stream=True)) as answer:
        writer = await written(redis)
        await writer.says("Hi")
        await writer.ends(FAILED)
        await answer.rest()
    assert chunks(answer)[-1]["error"]["code"] == "timeout"
    assert not answer.broken


RESPONSES = "/v1/responses"


async def test_a_response_is_streamed(server, redis):
    sent = {"model": "legato", "input": "Hello", "stream": True}
    async with asking(server, "POST", RESPONSES, sent) as answer:
        writer = await written(redis)
        await writer.says("Hi")
        await answer.until(b'"delta":"Hi"')
        await writer.ends(COMPLETE)
        await answer.rest()
    told = chunks(answer)
    assert told[0]["type"] == "response.created"
    assert told[-1]["response"]["output"][0]["content"][0]["text"] == "Hi"
    assert answer.text.startswith("event: response.created\ndata: {")
    assert "[DONE]" not in answer.text


async def test_a_response_is_answered_whole(server, redis):
    sent = {"model": "legato", "input": "Hello"}
    async with asked_whole(server, redis, RESPONSES, sent) as (task, writer):
        await writer.says("Hi", "!")
        await writer.ends(COMPLETE)
        answer = (await task).json()
    assert (answer["object"], answer["status"]) == ("response", "completed")
    assert answer["output"][0]["content"][0]["text"] == "Hi!"
    refused = await ask(server, "POST", RESPONSES, {"model": "legato", "input": []})
    assert (refused.status, refused.json()["error"]["param"]) == (422, "input")


async def test_a_completion_is_answered_whole(server, redis):
    async with asked_whole(server, redis) as (task, writer):
        await writer.says("Hi", "!")
        await writer.ends(COMPLETE)
        answer = await task
    message = {"role": "assistant", "content": "Hi!"}
    assert answer.json()["choices"] == [{"index": 0, "message": message, "finish_reason": "stop"}]
    assert answer.json()["usage"]["total_tokens"] == 5


async def test_one_that_fails_is_not_to_be_repeated(server, redis):
    async with asked_whole(server, redis) as (task, writer):
        await writer.ends(FAILED)
        answer = await task
    assert (answer.status, answer.headers["x-should-retry"]) == (500, "false")
    assert answer.json()["error"]["type"] == "server_error"


async def test_who_does_not_wait_cancels(server, redis):
    async with asked_whole(server, redis) as (task, writer):
        task.cancel()
        await until(lambda: cancelled(redis, writer.job.message_id))


async def test_models_are_the_agents_and_models_that_may_be_chosen(valkey_url, redis):
    settings = open_settings(valkey_url)
    chat = Chat(doors=("openai",), allow=("agent", "model"), agents=("desk",), models=("m-1",))
    async with running(type(settings)(**{**_fields(settings), "chat": chat})) as server:
        listed = await ask(server, "GET", "/v1/models")
        assert [one["id"] for one in listed.json()["data"]] == ["legato", "desk", "m-1"]
        for model in ("desk", "m-1", "legato"):
            async with asking(server, "POST", PATH, body(model=model, stream=True)):
                pass
        assert [(job.agent, job.model) for job in await jobs(redis)] == [
            ("desk", None),
            (None, "m-1"),
            (None, None),
        ]
        unknown = await ask(server, "POST", PATH, body(model="gpt"))
        assert (unknown.status, unknown.json()["error"]["code"]) == (404, "model_not_found")


def _fields(settings):
    return {name: getattr(settings, name) for name in settings.__struct_fields__}


async def test_refusals_are_in_the_words_of_the_protocol(server, redis):
    wrong = await ask(server, "POST", PATH, {"model": "legato", "messages": []})
    error = wrong.json()["error"]
    assert (wrong.status, error["type"], error["param"]) == (422, "invalid_request_error", "messages")
    assert (await ask(server, "GET", "/v1/models", headers={})).json()["error"][
        "type"
    ] == "authentication_error"


async def test_a_node_does_not_wait_for_clients_that_may_come_back(valkey_url, redis):
    async with running(open_settings(valkey_url, disconnect_grace=600)) as server:
        async with asking(server, "POST", PATH, body(stream=True)) as answer:
            await (await written(redis)).says("Hi")
            await answer.until(b'"Hi"')
        await until(lambda: len(server.node.answers) == 0)
        assert len(server.node.background) == 0
