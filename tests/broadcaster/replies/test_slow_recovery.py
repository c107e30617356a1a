"""Slow readers of replies in Redis: what they get after they were closed, and after a gap of the bus."""

from __future__ import annotations

from legato.broadcaster.composition import running
from legato.broadcaster.config import Server
from legato.protocol import errors
from legato.protocol.settings import Redis
from tests.broadcaster.conftest import client, local_settings
from tests.broadcaster.replies.test_healing import CHANNEL, COMPLETE, Writer, away, synced
from tests.broadcaster.transport.test_slow_readers import became_slow_by, ended, frames_of, read_on, slow
from tests.waiting import until


def text_of(frames: list[dict]) -> str:
    """The text, from frames of which each begins where the one before it ends."""
    index, texts = 0, []
    for one in frames:
        if one["event"] == "token.received":
            assert one["tokenIndex"] == index
            index += one.get("tokenCount", 1)
            texts.append(one["token"])
    return "".join(texts)


async def test_a_reader_that_was_closed_recovers_by_a_snapshot(valkey_url, redis):
    settings = local_settings(
        redis=Redis(url=valkey_url), server=Server(port=0, drain_seconds=0, send_queue_bytes=50_000)
    )
    async with running(settings) as server, slow(server, merging="field") as (reader, _):
        await synced(server)
        writer = await Writer(redis).begin()
        said = []
        while not server.node.connections.slow_closed:
            assert len(said) < 20_000, "the reader was never closed"
            texts = [f"{len(said) + more} ".ljust(200) for more in range(20)]
            said += texts
            await writer.says(*texts)
        assert server.node.connections.merged_tokens > 100
        await read_on(reader)
        assert await reader.closed() == errors.TOO_SLOW.code
        async with client(server.port) as again:
            await again.subscribe(CHANNEL, merge_tokens=True)
            (snapshot,) = await frames_of(again, lambda frame: frame["event"] == "stream.snapshot")
            assert snapshot["text"] == "".join(said)
            assert (snapshot["nextIndex"], snapshot["status"]) == (len(said), "streaming")
            await writer.says("the end")
            await writer.ends(COMPLETE)
            following = await frames_of(again, ended("m"))
            assert [frame.get("tokenIndex", frame.get("totalTokens")) for frame in following] == [
                len(said),
                len(said) + 1,
            ]


async def test_a_slow_reader_gets_healed_tokens_merged_with_the_others(server, link, redis):
    async with slow(server, merging="field") as (reader, connection):
        await synced(server)
        writer = await Writer(redis).begin()
        said: list[str] = []

        async def says(count: int) -> None:
            texts = [f"{len(said) + more} " for more in range(count)]
            said.extend(texts)
            await writer.says(*texts)

        await became_slow_by(lambda: says(20), connection)
        await says(100)
        await away(server, link)
        with writer.unheard():
            await says(300)
        link.heal()
        await until(lambda: server.node.healer.tokens >= 300)
        await says(100)
        await writer.ends(COMPLETE)
        frames = await frames_of(reader, ended("m"))
        assert text_of(frames) == "".join(said)
        assert max(frame.get("tokenCount", 1) for frame in frames) > 300
        assert frames[-1]["totalTokens"] == len(said)
