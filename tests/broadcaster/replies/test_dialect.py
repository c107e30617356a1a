"""Replies in the words of Laravel's AI SDK at a node: live, after a gap, and for who comes late."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from legato.broadcaster.channels.subscriber import Key
from legato.broadcaster.replies.logs import ReplyLogs
from legato.protocol import wire
from legato.protocol.jobs import Job
from legato.protocol.parts import ToolCalled, ToolFinished
from legato.protocol.stream import decode_begun
from legato.worker.replies.dialect import begun_in_dialect
from legato.worker.replies.log import MessageLog, TokenLog
from legato.worker.replies.reply import Reply
from tests.broadcaster.replies.test_healing import (
    CHANNEL,
    COMPLETE,
    Writer,
    hears,
    reader,
    synced,
    told,
    while_reading,
)

KEY = Key("1", CHANNEL)
CALL = ToolCalled("c1", "weather", {"city": "Oslo"})
RESULT = ToolFinished("c1", "weather", True, {"sky": "clear"})


class LaravelWriter(Writer):
    """A worker whose job wants the dialect."""

    def __init__(self, redis: Any) -> None:
        super().__init__(redis)
        self.job = Job("m", "1", 7, "Hello", 1, dialect="laravel-ai")
        self.log: MessageLog = TokenLog(redis, tries=9, retention=3600).open(self.job, "claim")

    async def begin(self) -> Writer:
        claim = await self.log.claim()
        begun = await self.log.begin(begun_in_dialect(self.job, "puppet", "fake", 1790000000))
        self.reply = Reply(self.job, claim, model="puppet", begun=begun)
        return self

    def _note(self, *frames: bytes) -> None:
        super()._note(*(line for frame in frames for line in frame.split(b"\n")))


async def test_what_was_missed_is_healed_in_order(server, redis):
    async with reader(server) as ann:
        await synced(server)
        writer = await LaravelWriter(redis).begin()
        await writer.says("a")
        await hears(ann, *writer.said)
        assert [event for event, _ in writer.said] == ["stream_start", "text_start", "text_delta"]
        with writer.unheard():
            await writer.says("b")
            await writer.shows(CALL, None)
        await writer.shows(RESULT)
        await writer.says("c")
        await writer.ends(COMPLETE)
        await hears(ann, *writer.said[3:])
    assert [data["index"] for _, data in writer.said] == list(range(len(writer.said)))
    assert (writer.said[-1][0], server.node.healer.failed) == ("stream_end", 0)


async def test_missed_end_is_made_from_the_log(server, redis):
    async with reader(server) as ann:
        await synced(server)
        writer = await LaravelWriter(redis).begin()
        await writer.says("a")
        await hears(ann, *writer.said)
        with writer.unheard():
            await writer.says("b")
            await writer.ends(COMPLETE)
        channel = server.node.healer._channels[KEY]
        server.node.healer._heal(KEY, channel, *channel.resync([], {"m": 0.0}, 0))
        await hears(ann, *writer.said[3:])


async def test_late_subscriber_gets_a_snapshot_and_then_what_follows(server, redis):
    async with reader(server) as ann:
        await synced(server)
        writer = await LaravelWriter(redis).begin()
        await writer.says("a", "b")
        await hears(ann, *writer.said)
        count = len(writer.said)

        async def goes_on() -> None:
            await writer.shows(CALL)
            await hears(ann, *writer.said[count:])

        with while_reading(server, goes_on):
            async with reader(server) as bob:
                live = [told(await bob.receive()) for _ in ("text_end", "tool_call")]
                assert live == writer.said[count:]  # before Redis answers
                event, data = told(await bob.receive())
                assert (event, data["text"], data["status"]) == ("stream_snapshot", "ab", "streaming")
                await writer.says("c")
                await hears(bob, *writer.said[count + len(live) :])
                assert writer.said[count + len(live)][1]["index"] == data["index"]


@pytest.mark.parametrize("begun", [b'{"model":"m"}', b'{"dialect":"later"}', b'{"dialect"'])
async def test_any_other_reply_is_healed_in_our_own_words(redis, begun):
    writer = await Writer(redis).begin()
    await writer.says("a")
    message = wire.message_key("1", CHANNEL, "m")
    await redis.hset(message, "begun", begun)
    assert decode_begun(begun).dialect != "laravel-ai"
    (frame,) = (await ReplyLogs(redis, "1").missing(KEY, "m", 0)).frames
    assert json.loads(frame)["event"] == "token.received"
    reply = await ReplyLogs(redis, "1").on_channel(KEY, "m")
    assert reply.opening is None


async def test_reply_that_is_forgotten_meanwhile_has_no_frames(redis, monkeypatch):
    writer = await LaravelWriter(redis).begin()
    await writer.says("a")
    logs = ReplyLogs(redis, "1")
    opening = (await logs.on_channel(KEY, "m")).opening
    await redis.delete(wire.message_key("1", CHANNEL, "m"))
    assert (await logs._missing_in_dialect(KEY, opening, 0)).frames is None
    assert msgspec.structs.asdict(opening.begun)["provider"] == "fake"
