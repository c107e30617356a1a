"""The door of AG-UI: a run is started once, come back to, interrupted and gone on with."""

from __future__ import annotations

import contextlib
import json

from legato.protocol import parts
from tests.broadcaster.doors.conftest import ask, asking
from tests.broadcaster.doors.writing import cancelled, jobs, written
from tests.broadcaster.replies.test_healing import COMPLETE
from tests.waiting import until

QUESTION = {"id": "u1", "role": "user", "content": "Hello"}


def run(run_id="run-1", **more):
    return {
        "threadId": "t/1",
        "runId": run_id,
        "protocolVersion": "1.0",
        "messages": [QUESTION],
        "tools": [],
        "context": [],
        "state": {},
        "forwardedProps": {},
        **more,
    }


@contextlib.asynccontextmanager
async def started(server, redis, sent=None):
    async with asking(server, "POST", "/api/ag-ui", sent or run()) as answer:
        yield answer, await written(redis)


def events(answer):
    return [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]


def kinds(answer):
    return [event["type"] for event in events(answer)]


async def test_a_run_is_streamed_to_its_end(server, redis):
    async with started(server, redis) as (answer, writer):
        assert writer.job.message == "Hello"
        await writer.says("Hi")
        await answer.until(b'"Hi"')
        await writer.ends(COMPLETE)
        await answer.rest()
    assert kinds(answer)[0] == "RUN_STARTED"
    assert events(answer)[-1]["outcome"] == {"type": "success"}
    assert not answer.broken


async def test_a_known_run_goes_on_from_a_snapshot(server, redis):
    async with started(server, redis) as (answer, writer):
        await writer.says("Hel")
        await answer.until(b'"Hel"')
        sent = run(messages=[QUESTION, {"id": writer.job.message_id, "role": "assistant", "content": "He"}])
        async with asking(server, "POST", "/api/ag-ui", sent) as again:
            await again.until(b"Hel")
            await writer.says("lo")
            await writer.ends(COMPLETE)
            await again.rest()
    assert len(await jobs(redis)) == 1
    assert kinds(again)[:2] == ["RUN_STARTED", "MESSAGES_SNAPSHOT"]
    reply = {"id": writer.job.message_id, "role": "assistant", "content": "Hel"}
    assert events(again)[1]["messages"] == [QUESTION, reply]
    assert [one["delta"] for one in events(again) if "delta" in one] == ["lo"]


async def test_who_leaves_a_run_cancels_it_unless_he_comes_back(server, redis):
    async with started(server, redis) as (answer, writer):
        await writer.says("Hi")
        await answer.until(b'"Hi"')
    await until(lambda: cancelled(redis, writer.job.message_id))


async def test_an_interrupt_is_answered_by_the_next_run(server, redis):
    asked = parts.ApprovalRequested("call-1", "mail", 2**31, {"to": "ann"})
    async with started(server, redis) as (answer, writer):
        await writer.shows(parts.ToolCalled("call-1", "mail", {"to": "ann"}), asked)
        await redis.hset(
            redis.names.approvals_key("1", writer.job.channel, writer.job.message_id), "call-1", ""
        )
        await answer.rest()
    interrupts = events(answer)[-1]["outcome"]["interrupts"]
    assert [one["toolCallId"] for one in interrupts] == ["call-1"]
    resume = [{"interruptId": "call-1", "status": "resolved", "payload": {"approve": True}}]
    async with asking(server, "POST", "/api/ag-ui", run("run-2", resume=resume)) as after:
        await writer.shows(parts.ApprovalDecided("call-1", approve=True))
        await writer.shows(parts.ToolFinished("call-1", "mail", ok=True, output="sent"))
        await writer.ends(COMPLETE)
        await after.rest()
    assert kinds(after)[:2] == ["RUN_STARTED", "MESSAGES_SNAPSHOT"]
    assert "TOOL_CALL_RESULT" in kinds(after)
    assert events(after)[-1] | {"usage": None} == {
        "type": "RUN_FINISHED",
        "threadId": "t/1",
        "runId": "run-2",
        "outcome": {"type": "success"},
        "usage": None,
    }
    assert not await cancelled(redis, writer.job.message_id)


async def test_what_is_no_run_is_refused(server, redis):
    refused = await ask(server, "POST", "/api/ag-ui", run(messages=[]))
    assert (refused.status, refused.json()["message"]) == (422, "Expected a message of the user at the end")
    resume = [{"interruptId": "call-1", "status": "cancelled"}]
    assert (await ask(server, "POST", "/api/ag-ui", run(resume=resume))).status == 404
    assert (await ask(server, "POST", "/api/ag-ui", run(), {})).status == 401
