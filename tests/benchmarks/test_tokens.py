"""Tokens through Redis: each once and in its time, written as a worker writes them, behind its fence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from legato.benchmarks.load import scenarios
from legato.benchmarks.load.command import load
from legato.benchmarks.load.orders import LoadTarget, WriteTokens
from legato.benchmarks.load.schedule import MICRO, Alarm, Pace, now
from legato.benchmarks.load.tally import Tally
from legato.benchmarks.load.tokens import GRAIN, Due, Writer, moments
from legato.deploy import cli
from legato.protocol import wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

USERS = [(number, f"user-{number}") for number in range(3)]


def test_tokens_of_one_millisecond_are_due_together() -> None:
    assert list(moments(Pace(5, 4000.0), 5 + 2500)) == [Due(5, 0, 4), Due(1005, 4, 8), Due(2005, 8, 10)]
    assert list(moments(Pace(5, 100.0, 0.05), 5)) == []


@given(st.floats(1, 50_000), st.floats(0, 0.99), st.integers(0, 50_000))
def test_each_token_is_due_once_in_order_and_at_most_a_grain_early(
    rate: float, offset: float, length: int
) -> None:
    pace = Pace(1000, rate, offset)
    found = list(moments(pace, 1000 + length))
    numbers = [number for due in found for number in range(due.first, due.end)]
    assert numbers == list(range(len(list(pace.until(1000 + length)))))
    assert all(0 <= pace.due(n) - due.moment < GRAIN for due in found for n in (due.first, due.end - 1))
    assert [due.moment for due in found] == sorted({due.moment for due in found})


@pytest.fixture
async def writer(valkey_url: str) -> AsyncIterator[Writer]:
    writer = Writer(LoadTarget("legato", "h", 1, "h", 1, "1", "key", "secret", redis_url=valkey_url), Tally())
    await writer.claim(USERS)
    yield writer
    await writer.finish()


async def write(writer: Writer, tokens: int) -> dict[int, int]:
    """All due in one grain."""
    alarm = Alarm()
    try:
        return await writer.write(WriteTokens(now() + 1000, GRAIN / MICRO, tokens * 1000.0, 40), alarm)
    finally:
        alarm.close()


async def test_what_is_due_at_once_shares_a_round_trip(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    trips = writer._log.scripts["append"]._batches
    sent, send = list[int](), trips._send

    async def noted(calls: list[object]) -> None:
        sent.append(len(calls))
        await send(calls)

    monkeypatch.setattr(trips, "_send", noted)
    assert await write(writer, 7) == {0: 3, 1: 2, 2: 2}
    assert sent == [3]
    assert writer._tally.counts.sent == 7
    texts = [entry.data.decode() for entry in (await writer._messages[0].log.read()).entries]
    assert [text[: 3 + 6 + 8] for text in texts] == [f"LGT000000{index:08x}" for index in range(3)]
    assert {len(text) for text in texts} == {40}


async def test_who_loses_the_claim_writes_no_more_and_the_others_do(writer: Writer, valkey_url: str) -> None:
    lost = writer._messages[1].job
    async with Redis.from_url(valkey_url) as redis:
        await redis.hset(wire.message_key(lost.app_id, lost.channel, lost.message_id), "claim", "another")
    assert await write(writer, 3) == {0: 1, 1: 0, 2: 1}
    assert writer._tally.counts.refused == {"append: FencedError": 1}
    assert await write(writer, 3) == {0: 2, 1: 0, 2: 2}
    assert writer._tally.counts.sent == 4


async def test_messages_that_are_finished_stream_no_more(writer: Writer, valkey_url: str) -> None:
    jobs = [message.job for message in writer._messages]
    async with Redis.from_url(valkey_url) as redis:
        active = [wire.active_key(job.app_id, job.channel) for job in jobs]
        assert [await redis.scard(key) for key in active] == [1, 1, 1]
        await writer.finish()
        assert [await redis.scard(key) for key in active] == [0, 0, 0]
        states = [
            await redis.hget(wire.message_key(j.app_id, j.channel, j.message_id), "state") for j in jobs
        ]
        assert states == [b"complete"] * 3


async def test_redis_that_is_not_there_is_told() -> None:
    nowhere = LoadTarget("legato", "h", 1, "h", 1, "1", "key", "secret", redis_url="redis://127.0.0.1:1")
    writer = Writer(nowhere, Tally())
    with pytest.raises(ConnectionError, match="messages cannot be claimed"):
        await writer.claim(USERS)
    await writer._redis.aclose()


@pytest.mark.timeout(120)
def test_streams_come_over_http_and_through_redis(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    assert cli.main(["bench", "streams", "--quick", "--over-redis", "--json", str(file)]) == 0
    report = load(str(file))
    assert [phase.name for phase in report.phases] == ["over HTTP", "through Redis"]
    tokens = report.phases[1]
    quick = scenarios.SCENARIOS["streams"].quick
    assert tokens.delivery is not None
    assert tokens.delivery.expected == tokens.delivery.received == round(quick.rate * quick.seconds)
    assert sum(tokens.histograms["latency"].values()) == tokens.delivery.expected
    assert {"redis_cpu_us_per_token", "server_cpu_us_per_delivery"} <= set(tokens.figures)
    assert report.left_out == []
