"""The door of the AI SDK: what is started once, what is streamed again, and to whom."""

from __future__ import annotations

import contextlib
import json

from legato.protocol import parts, wire
from tests.broadcaster.doors.conftest import ask, asking, bearer
from tests.broadcaster.doors.writing import cancelled, jobs, written
from tests.broadcaster.replies.test_healing import CHANNEL, COMPLETE
from tests.waiting import until


def body(text="Hello", number=1, chat="c/1", **more):
    message = {"id": f"u{number}", "role": "user", "parts": [{"type": "text", "text": text}]}
    return {"id": chat, "messages": [message], "trigger": "submit-message", **more}


@contextlib.asynccontextmanager
async def submitted(server, redis, sent=None):
    async with asking(server, "POST", "/api/chat", sent or body()) as answer:
        yield answer, await written(redis)


def chunks(text):
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]


def resume(server, chat="c%2F1"):
    return ask(server, "GET", f"/api/chat/{chat}/stream")


async def test_a_message_is_answered_with_its_reply(server, redis):
    async with submitted(server, redis) as (answer, writer):
        assert (answer.status, answer.headers["x-vercel-ai-ui-message-stream"]) == (200, "v1")
        assert writer.job.message == "Hello"
        await writer.says("Hi")
        await answer.until(b'"Hi"')
        await writer.ends(COMPLETE)
        await answer.rest()
    assert chunks(answer.text)[0]["messageId"] == writer.job.message_id
    assert [one["type"] for one in chunks(answer.text)][-2:] == ["finish-step", "finish"]
    assert answer.text.endswith("\n\ndata: [DONE]\n\n")


async def test_the_same_message_once_more_gets_the_same_reply(server, redis):
    async with submitted(server, redis) as (answer, writer):
        await writer.says("Hi")
        await answer.until(b'"Hi"')
    again = asking(server, "POST", "/api/chat", body())
    async with again as answer:
        await writer.ends(COMPLETE)
        await answer.rest()
    assert len(await jobs(redis)) == 1
    assert chunks(answer.text)[0]["messageId"] == writer.job.message_id
    async with asking(server, "POST", "/api/chat", body("Something else")):
        assert len(await jobs(redis)) == 2


async def test_a_chat_is_resumed_from_the_beginning_of_its_reply(server, redis):
    async with submitted(server, redis) as (answer, writer):
        await writer.says("Hel")
        await answer.until(b'"Hel"')
    async with asking(server, "GET", "/api/chat/c%2F1/stream") as resumed:
        await resumed.until(b'"Hel"')
        await writer.says("lo")
        await writer.ends(COMPLETE)
        await resumed.rest()
    assert resumed.text.startswith(answer.text)
    assert (await ask(server, "GET", "/api/chat/c%2F1/stream", headers=bearer(8))).status == 204

    async def is_read():
        return (await resume(server)).status == 204

    await until(is_read)


async def test_a_reply_that_ended_unread_is_streamed_once_more(server, redis, monkeypatch):
    async with submitted(server, redis) as (answer, writer):
        await writer.says("Hi")
        await answer.until(b'"Hi"')
    await until(lambda: len(server.node.answers) == 0)
    await writer.ends(COMPLETE)
    monkeypatch.setattr("legato.broadcaster.doors.ui.REPLAY_SECONDS", 0)
    assert (await resume(server)).status == 204
    monkeypatch.undo()
    replayed = await resume(server)
    assert replayed.text.endswith("data: [DONE]\n\n")


async def test_nothing_is_resumed_where_nothing_is(server, redis):
    assert (await resume(server, "unknown")).status == 204
    async with submitted(server, redis) as (_, writer):
        pass
    await redis.delete(wire.message_key("1", CHANNEL, writer.job.message_id))
    assert (await resume(server)).status == 204


async def test_what_was_retracted_is_not_streamed_to_who_comes_later(server, redis):
    async with submitted(server, redis) as (answer, writer):
        await writer.shows(parts.ReasoningReceived("wrong"))
        await answer.until(b"wrong")
        await writer.shows(parts.Retracted(0), parts.ReasoningReceived("right"))
        await answer.rest()
    assert chunks(answer.text)[-1]["type"] == "error"
    async with asking(server, "GET", "/api/chat/c%2F1/stream") as resumed:
        await resumed.until(b"right")
    assert b"wrong" not in resumed.body


async def test_stop_cancels_the_reply_that_is_meant(server, redis):
    async with submitted(server, redis) as (_, writer):
        message_id = writer.job.message_id
        other = await ask(server, "POST", "/api/chat/c%2F1/stop", {"activeStreamId": "other"})
        assert (other.status, other.json(), await cancelled(redis, message_id)) == (
            200,
            {"success": True},
            False,
        )
        await ask(server, "POST", "/api/chat/c%2F1/stop", {}, bearer(8))
        assert not await cancelled(redis, message_id)
        assert (await ask(server, "POST", "/api/chat/c%2F1/stop", b"")).json() == {"success": True}
        assert await cancelled(redis, message_id)
    assert (await ask(server, "POST", "/api/chat/unknown/stop", {})).json() == {"success": True}


async def test_another_answer_cancels_the_one_that_runs(server, redis):
    other = submitted(server, redis, body(trigger="regenerate-message"))
    async with submitted(server, redis) as (_, first), other as (_, second):
        assert await cancelled(redis, first.job.message_id)
        assert not await cancelled(redis, second.job.message_id)


async def test_to_leave_cancels_nothing(server, redis):
    async with submitted(server, redis) as (_, writer):
        pass
    await until(lambda: len(server.node.answers) == 0)
    assert len(server.node.background) == 0
    assert not await cancelled(redis, writer.job.message_id)


async def test_a_refusal_is_a_sentence(server, redis):
    refused = await ask(server, "POST", "/api/chat", body(" "))
    assert (refused.status, refused.text) == (422, "Expected text in the last message")
    assert refused.headers["content-type"] == "text/plain; charset=utf-8"
    assert (await ask(server, "POST", "/api/chat", body(), headers={})).status == 401
