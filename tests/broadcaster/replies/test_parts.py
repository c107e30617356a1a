"""Replies with more than text at a node: what its clients get live, after a gap, late, and by asking."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
from typing import Any

import jwt
import pytest

from legato.broadcaster.channels.subscriber import Key
from legato.broadcaster.replies.logs import ReplyLogs, StoredReply
from legato.broadcaster.replies.snapshot import Observer, OutrunError
from legato.protocol import parts, stream, transcript, wire
from legato.worker.replies.transcript import new_part
from tests.broadcaster.replies.test_healing import (
    CHANNEL,
    COMPLETE,
    Writer,
    away,
    hears,
    reader,
    streaming,
    synced,
    told,
    while_reading,
)
from tests.protocol.test_parts import PARTS
from tests.waiting import until

KEY = Key("1", CHANNEL)
CALL = parts.ToolCalled("c1", "weather", {"city": "Oslo"})
RESULT = parts.ToolFinished("c1", "weather", True, {"sky": "clear"})
STEP = parts.StepCompleted(1, "tool_use", stream.Usage(1, 2))
EVERY = [part for part, *_ in PARTS]


def ended(tokens: int) -> stream.Decision:
    return stream.Decision("end_turn", stream.Usage(3, 2), "puppet", tokens=tokens)


class Published(Writer):
    """``frames`` has those of all entries as they were published, empty for hidden ones."""

    frames: list[bytes]

    async def _append(self, records):
        await super()._append(records)
        self.frames = [*getattr(self, "frames", []), *(record.frame for record in records)]


async def written(redis: Any) -> Published:
    """A reply with every kind of part, and hidden ones."""
    writer = Published(redis)
    await writer.begin()
    await writer.shows(None, EVERY[0])
    await writer.says("a", "\U0001f600\n")
    await writer.shows(*EVERY[1:], None)
    await writer.says("b")
    return writer


@pytest.mark.parametrize("first", [0, 1, 2, 3, 17, 18, 19])
async def test_frames_are_rebuilt_byte_for_byte(redis, first):
    writer = await written(redis)
    assert len(writer.frames) == len(EVERY) + 5
    reading = await ReplyLogs(redis, "1").missing(KEY, "m", first)
    assert (reading.first, reading.end) == (first, None)
    assert reading.frames == writer.frames[first:]
    assert reading.frames.count(b"") == (first <= 0) + (first <= 17)


async def test_what_was_missed_is_healed_in_order_and_the_end_tells_the_number_of_tokens(server, link, redis):
    async with reader(server) as ann:
        await synced(server)
        writer = await Writer(redis).begin()
        await writer.says("a")
        await writer.shows(CALL, None)
        await hears(ann, *writer.said)
        await away(server, link)
        await writer.shows(None, RESULT, STEP)
        await writer.says("b")
        await writer.ends(ended(2))
        link.heal()
        await hears(ann, *writer.said[2:])
    assert writer.said[-1][1]["totalTokens"] == 2
    healer = server.node.healer
    assert (healer.tokens, healer.endings, healer.failed) == (3, 1, 0)


async def test_a_lost_hidden_part_is_healed_too(server, redis):
    async with streaming(server, redis, "a") as (ann, writer):
        with writer.unheard():
            await writer.shows(None)
        await writer.shows(CALL, None)
        await writer.says("b")
        await hears(ann, *writer.said[1:])
        await until(lambda: server.node.healer._channels[KEY].next("m") == 5)
    assert server.node.healer.failed == 0


async def test_parts_of_a_newer_version_are_skipped_with_one_line(redis, caplog):
    writer = await written(redis)
    log = wire.log_key("1", CHANNEL, "m")
    count = len(writer.frames)
    for offset, tokens in ((count, 3), (count + 1, 3)):
        await redis.xadd(log, {"k": "later", "d": "?", "i": tokens}, id=wire.log_entry_id(offset))
    await redis.hset(wire.message_key("1", CHANNEL, "m"), "next", count + 2)
    logs = ReplyLogs(redis, "1")
    with caplog.at_level(logging.WARNING, "legato.healing"):
        reading = await logs.missing(KEY, "m", 0)
        reply = await logs.on_channel(KEY, "m")
    assert reading.frames == [*writer.frames, b"", b""]
    assert reply is not None
    assert (reply.offset, reply.pieces[-2:]) == (count + 2, [None, None])
    assert [record.getMessage() for record in caplog.records] == [
        "parts of the kind 'later' are skipped: only a newer version knows them"
    ]


@pytest.mark.parametrize("fields", [{"x": "1"}, {"k": "step", "d": "{}"}, {"t": "a", "i": "x"}])
async def test_a_log_that_no_worker_writes_is_refused(redis, fields):
    writer = await written(redis)
    count = len(writer.frames)
    await redis.xadd(wire.log_key("1", CHANNEL, "m"), fields, id=wire.log_entry_id(count))
    await redis.hset(wire.message_key("1", CHANNEL, "m"), "next", count + 1)
    with pytest.raises(ValueError, match=r"neither|index|int"):
        await ReplyLogs(redis, "1").missing(KEY, "m", 0)


async def test_a_late_subscriber_gets_a_snapshot_of_all_parts_and_then_what_follows(server, redis):
    async with streaming(server, redis, "a") as (ann, writer):
        await writer.shows(parts.ReasoningReceived("x"), parts.ReasoningReceived("y"), None, CALL)
        await hears(ann, *writer.said[1:])
        async with reader(server) as bob:
            assert told(await bob.receive()) == (
                "stream.snapshot",
                {
                    "messageId": "m",
                    "text": "a",
                    "nextIndex": 1,
                    "status": "streaming",
                    "offset": 5,
                    "parts": [
                        {"event": "reasoning.received", "offset": 1, "tokenIndex": 1, "delta": "xy"},
                        {"event": "tool.called", "offset": 4, "tokenIndex": 1}
                        | {"call": "c1", "name": "weather", "input": {"city": "Oslo"}},
                    ],
                },
            )
            before = len(writer.said)
            await writer.shows(RESULT)
            await writer.says("b")
            await hears(bob, *writer.said[before:])


async def test_the_first_subscriber_gets_a_snapshot_of_all_parts(server, redis):
    writer = await Writer(redis).begin()
    await writer.shows(None, CALL)
    await writer.says("a")
    async with reader(server) as ann:
        _, snapshot = told(await ann.receive())
        assert (snapshot["text"], snapshot["offset"], len(snapshot["parts"])) == ("a", 3, 1)
        await writer.says("b")
        await hears(ann, writer.said[-1])


async def test_parts_delivered_during_the_read_are_in_the_snapshot(server, redis):
    async with streaming(server, redis, "a") as (ann, writer):
        await writer.shows(STEP)
        await hears(ann, *writer.said[1:])

        async def happens() -> None:
            await writer.shows(None, CALL)
            await writer.says("b")
            await writer.shows(parts.Retracted(3))
            await hears(ann, *writer.said[2:])

        with while_reading(server, happens) as reads:
            async with reader(server) as bob:
                assert [told(await bob.receive()) for _ in range(3)] == writer.said[2:]
                _, snapshot = told(await bob.receive())
                assert (snapshot["text"], snapshot["nextIndex"], snapshot["offset"]) == ("ab", 2, 6)
                assert [part["event"] for part in snapshot["parts"]] == ["step.completed"]
                await writer.says("c")
                await hears(bob, writer.said[-1])
        assert reads == [2]


async def test_a_reply_that_ends_during_the_read_is_whole(server, redis):
    async with streaming(server, redis, "a") as (ann, writer):

        async def happens() -> None:
            await writer.shows(CALL, None)
            await writer.ends(ended(1))
            await hears(ann, *writer.said[1:])

        with while_reading(server, happens):
            async with reader(server) as bob:
                assert [told(await bob.receive()) for _ in range(2)] == writer.said[1:]
                _, snapshot = told(await bob.receive())
                assert (snapshot["status"], snapshot["nextIndex"], snapshot["offset"]) == ("complete", 1, 3)
                assert [part["event"] for part in snapshot["parts"]] == ["tool.called"]


async def waits(writer: Writer) -> None:
    """The reply is parked until somebody decides."""
    asked = parts.ApprovalRequested("c1", "pay", 2_000_000_000, {"sum": 5})
    await writer._append([writer.reply.written.add(new_part(asked, call="c1"))])
    assert await writer.log.park("ai-streaming")


async def test_a_reply_that_waits_for_an_approval_says_so(server, redis):
    async with streaming(server, redis, "a") as (ann, writer):
        await waits(writer)
        await hears(ann, writer.said[-1])
        async with reader(server) as bob:
            _, snapshot = told(await bob.receive())
            assert (snapshot["status"], snapshot["offset"]) == ("waiting", 2)
            assert snapshot["parts"][0]["event"] == "tool.approval_requested"
            await writer.log.claim_again("claim-2")
            await writer.shows(parts.ApprovalDecided("c1", True))
            await hears(bob, writer.said[-1])
        async with reader(server) as cid:
            assert told(await cid.receive())[1]["status"] == "streaming"
    assert (await ReplyLogs(redis, "1").on_channel(KEY, "m")).status == "streaming"


async def test_a_reply_that_goes_on_during_the_read_does_not_wait(server, redis):
    async with streaming(server, redis, "a") as (ann, writer):
        await waits(writer)
        await hears(ann, *writer.said[1:])

        async def happens() -> None:
            await writer.log.claim_again("claim-2")
            await writer.says("b")
            await hears(ann, writer.said[-1])

        with while_reading(server, happens):
            async with reader(server) as bob:
                assert told(await bob.receive()) == writer.said[-1]
                assert told(await bob.receive())[1]["status"] == "streaming"


async def test_the_outputs_in_a_snapshot_are_bounded(server, redis):
    async with streaming(server, redis, "a") as (ann, writer):
        big = parts.ToolFinished("c1", "weather", True, "x" * transcript.PARTS_BYTES)
        await writer.shows(big, RESULT)
        await hears(ann, *writer.said[1:])
        async with reader(server) as bob:
            _, snapshot = told(await bob.receive())
        first, second = snapshot["parts"]
        assert (first["truncated"], "output" in first) == (True, False)
        assert second["output"] == {"sky": "clear"}
        whole = await ReplyLogs(redis, "1").on_channel(KEY, "m")
        assert len(bytes(whole.pieces[1].data["output"])) == transcript.PARTS_BYTES + 2


@pytest.mark.parametrize(("payload", "known"), [(b"", 4), (b"x" * 100, 2), (b"x" * 300, 1)])
def test_what_an_observer_records_is_bounded_in_bytes(monkeypatch, payload, known):
    monkeypatch.setattr("legato.broadcaster.replies.snapshot.MAX_OBSERVED_BYTES", 200)
    observer = Observer()
    command = "" if payload else wire.SKIP
    for offset in range(9):
        observer.see(wire.Envelope(payload, None, ("m", offset), command))
    assert len(observer._frames["m"]) == known
    with pytest.raises(OutrunError):
        observer.snapshot(CHANNEL, "m", StoredReply([], 1, "streaming", None), known + 1)


def get(server, path: str) -> tuple[int, bytes]:
    token = jwt.encode({"sub": 7, "exp": 2**32}, "s" * 32)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
    response = connection.getresponse()
    body = response.read()
    assert response.headers["content-type"] == "application/json"
    connection.close()
    return response.status, body


async def test_reading_a_reply_gives_its_parts_and_its_offset(server, redis):
    writer = await Writer(redis).begin()
    await writer.says("a")
    await writer.shows(CALL, None)
    await writer.says("b")
    status, body = await asyncio.to_thread(get, server, "/api/chat/m?after=0")
    assert (status, json.loads(body)) == (
        200,
        {
            "text": "ab",
            "tokens": ["b"],
            "nextIndex": 2,
            "attempt": 1,
            "status": "streaming",
            "offset": 4,
            "parts": [
                {"event": "tool.called", "offset": 1, "tokenIndex": 1}
                | {"call": "c1", "name": "weather", "input": {"city": "Oslo"}}
            ],
        },
    )


async def test_reading_a_reply_with_hidden_parts_gives_its_offset_alone(server, redis):
    writer = await Writer(redis).begin()
    await writer.shows(None)
    _, body = await asyncio.to_thread(get, server, "/api/chat/m")
    assert json.loads(body) == {
        "text": "",
        "tokens": [],
        "nextIndex": 0,
        "attempt": 1,
        "status": "streaming",
        "offset": 1,
    }


async def test_a_reply_of_text_has_the_bytes_it_always_had(server, redis):
    async with streaming(server, redis, "\u00e9", '"\n') as (_, writer):
        assert await asyncio.to_thread(get, server, "/api/chat/m") == (
            200,
            '{"text":"\u00e9\\"\\n","tokens":["\u00e9","\\"\\n"],"nextIndex":2,"attempt":1,"status":"streaming"}'.encode(),
        )
        reading = await ReplyLogs(redis, "1").missing(KEY, "m", 1)
        token = (
            '{"event":"token.received","channel":"private-ai-chat.7","data":"{\\"userId\\":7,'
            '\\"messageId\\":\\"m\\",\\"token\\":\\"\\\\\\"\\\\n\\",\\"tokenIndex\\":1}"}'
        )
        assert reading.frames == [token.encode()]
        reply = await ReplyLogs(redis, "1").on_channel(KEY, "m")
        assert (
            transcript.snapshot("m", reply.pieces, "streaming").frame(CHANNEL)
            == (
                '{"event":"stream.snapshot","channel":"private-ai-chat.7","data":"{\\"messageId\\":\\"m\\",'
                '\\"text\\":\\"\u00e9\\\\\\"\\\\n\\",\\"nextIndex\\":2,\\"status\\":\\"streaming\\"}"}'
            ).encode()
        )
        await writer.ends(COMPLETE)
