"""Readers of a reply's log: nothing is missing, nothing comes twice, whatever the bus does."""

from __future__ import annotations

import asyncio

import pytest

from legato.broadcaster.channels.subscriber import Key
from legato.broadcaster.doors import tail as tails
from legato.broadcaster.doors.reader import LogReaders
from legato.broadcaster.replies.logs import ExpiredError
from legato.protocol import parts, wire
from tests.broadcaster.replies.test_healing import CHANNEL, COMPLETE, Writer
from tests.waiting import WAIT

KEY = Key("1", CHANNEL)


class Logs:
    """The logs of a node, and how often they were read."""

    def __init__(self, replies):
        self._replies = replies
        self.reads = 0

    async def range(self, *arguments):
        self.reads += 1
        return await self._replies.range(*arguments)


@pytest.fixture
def logs(server):
    return Logs(server.node.replies)


@pytest.fixture
def readers(server, logs):
    return LogReaders(logs, server.node.hub)


async def read_all(readers, offset=0, joined=None):
    """Read to the end. Answers the pieces, and how the reply ended."""
    async with asyncio.timeout(WAIT):
        return await _read_all(readers, offset, joined)


async def _read_all(readers, offset, joined):
    with readers.open(KEY, "m", offset) as reader:
        found = await reader.begin()
        if joined is not None:
            joined.set()
        pieces = list(found.pieces)
        while found.decision is None:
            assert found.next == reader.offset == offset + len(pieces)
            found = await reader.next()
            pieces += found.pieces
        return pieces, found.decision


async def test_readers_get_all_from_their_offset_on(server, redis, readers, logs, monkeypatch):
    monkeypatch.setattr(tails, "LOG_TAIL_ENTRIES", 4)
    monkeypatch.setattr(tails, "LOG_SILENCE_SECONDS", 2 * WAIT)
    writer = await Writer(redis).begin()
    await writer.says("a", "b", "c")
    joined = [asyncio.Event() for _ in range(3)]
    tasks = [asyncio.create_task(read_all(readers, at, joined[at])) for at in range(3)]
    for one in joined:
        await one.wait()
    assert len(readers) == 3
    expected = ["a", "b", "c"]
    for batch in range(20):
        words = [f"{batch}-{number} " for number in range(3)]
        await writer.says(*words)
        expected += words
    await writer.shows(None)
    await writer.ends(COMPLETE)
    late = await read_all(readers)
    for offset, (pieces, decision) in enumerate([await task for task in tasks]):
        assert pieces == [*expected, None][offset:]
        assert decision == COMPLETE
    assert late[0] == [*expected, None]
    assert len(readers) == 0
    assert server.node.hub.count(KEY) == 0
    assert logs.reads <= 3 * 4 + 22 + 8  # each first by itself; then together, once per write at most


async def test_readers_of_a_short_reply_read_it_once_together(redis, readers, logs):
    writer = await Writer(redis).begin()
    await writer.says("a", "b")
    first = asyncio.Event()
    tasks = [asyncio.create_task(read_all(readers, joined=first))]
    await first.wait()
    joined = [asyncio.Event() for _ in range(50)]
    tasks += [asyncio.create_task(read_all(readers, joined=one)) for one in joined]
    for one in joined:
        await one.wait()
    assert logs.reads == 1
    await writer.ends(COMPLETE)
    assert {str(await task) for task in tasks} == {str((["a", "b"], COMPLETE))}


async def test_what_the_bus_loses_is_read_after_a_silence(redis, readers, monkeypatch):
    monkeypatch.setattr(tails, "LOG_SILENCE_SECONDS", 0.05)
    writer = await Writer(redis).begin()
    joined = asyncio.Event()
    task = asyncio.create_task(read_all(readers, joined=joined))
    await joined.wait()
    with writer.unheard():
        await writer.says("a", "b")
        await writer.ends(COMPLETE)
    assert await task == (["a", "b"], COMPLETE)


async def test_a_log_that_lacks_entries_is_not_read_as_whole(redis, readers):
    writer = await Writer(redis).begin()
    await writer.says("a", "b")
    await redis.xdel(wire.log_key(*KEY, "m"), wire.log_entry_id(0))
    with pytest.raises(ExpiredError):
        await read_all(readers)
    assert len(readers) == 0


async def test_a_log_that_goes_while_it_is_read_ends_the_reader(redis, readers):
    writer = await Writer(redis).begin()
    joined = asyncio.Event()
    task = asyncio.create_task(read_all(readers, joined=joined))
    await joined.wait()
    await redis.delete(wire.message_key(*KEY, "m"))
    await redis.spublish(wire.bus_channel(*KEY), wire.encode_token(b'"m"', "m", 0))
    with pytest.raises(ExpiredError):
        await task
    del writer


async def test_no_reply_is_told(readers):
    with readers.open(KEY, "nothing") as reader:
        assert await reader.begin() is None


async def test_parts_are_read_as_their_readers_see_them(redis, readers):
    writer = await Writer(redis).begin()
    await writer.shows(parts.ReasoningReceived("hm"))
    await writer.says("a")
    await writer.ends(COMPLETE)
    (thought, text), _ = await read_all(readers)
    assert (thought.kind, thought.offset, text) == ("reasoning", 0, "a")
