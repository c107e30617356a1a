"""Jobs that wait for an approval, on one server and on a Cluster."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from legato.broadcaster.redis_client import redis_client
from legato.protocol import wire
from legato.protocol.redis import parked
from tests.conftest import BINARIES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

QUEUE = "ai-streaming"
ANN = wire.parked_name("1", "private-ai-chat.ann", "m-1")
BOB = wire.parked_name("1", "private-ai-chat.bob", "m-2")
PREFIX = "shop:"


@pytest.fixture(params=[*BINARIES, "cluster"])
async def redis(request) -> AsyncIterator[Any]:
    if request.param == "cluster":
        url = request.getfixturevalue("redis_cluster").url
    else:
        server = request.getfixturevalue(f"_{request.param}")
        server.flush()
        url = server.url
    async with redis_client(url, PREFIX) as connected:
        yield connected


async def queued(redis: Any) -> list[bytes]:
    entries = await redis.xrange(PREFIX + wire.jobs_key(QUEUE))
    return [fields[wire.JOB_FIELD.encode()] for _, fields in entries]


async def kept(redis: Any) -> tuple[dict[bytes, bytes], dict[str, float]]:
    """What is stored of parked jobs: name -> job, name -> time."""
    jobs = await redis.hgetall(PREFIX + wire.parked_key(QUEUE))
    times = await redis.zrange(PREFIX + wire.waiting_key(QUEUE), 0, -1, withscores=True)
    return jobs, {name.decode(): score for name, score in times}


async def test_a_parked_job_is_queued_again_once(redis):
    await parked.park(redis, QUEUE, ANN, b'{"a":1}', 5_000)
    await parked.park(redis, QUEUE, BOB, b'{"b":1}', 6_000)
    assert await kept(redis) == (
        {ANN.encode(): b'{"a":1}', BOB.encode(): b'{"b":1}'},
        {ANN: 5_000, BOB: 6_000},
    )
    assert await parked.resume(redis, QUEUE, ANN)
    assert not await parked.resume(redis, QUEUE, ANN)
    assert await queued(redis) == [b'{"a":1}']
    assert await kept(redis) == ({BOB.encode(): b'{"b":1}'}, {BOB: 6_000})


async def test_of_many_that_resume_a_job_at_once_one_queues_it(redis):
    await parked.park(redis, QUEUE, ANN, b"{}", 5_000)
    answers = await asyncio.gather(*(parked.resume(redis, QUEUE, ANN) for _ in range(8)))
    assert sorted(answers) == [False] * 7 + [True]
    assert await queued(redis) == [b"{}"]


async def test_a_job_that_is_parked_again_is_the_newer_one(redis):
    await parked.park(redis, QUEUE, ANN, b"old", 5_000)
    await parked.park(redis, QUEUE, ANN, b"new", 5_000)
    assert await parked.resume(redis, QUEUE, ANN)
    assert await queued(redis) == [b"new"]


async def test_jobs_are_due_from_their_deadline_on_the_longest_overdue_first(redis):
    await parked.park(redis, QUEUE, ANN, b"a", 6_000)
    await parked.park(redis, QUEUE, BOB, b"b", 5_000)
    assert await parked.due(redis, QUEUE, 4_999, 9) == []
    assert await parked.due(redis, QUEUE, 5_000, 9) == [BOB]
    assert await parked.due(redis, QUEUE, 6_000, 9) == [BOB, ANN]
    assert await parked.due(redis, QUEUE, 6_000, 1) == [BOB]
    assert await parked.due(redis, "another", 6_000, 9) == []


async def test_a_job_in_a_hurry_is_due_earlier_and_never_later(redis):
    await parked.park(redis, QUEUE, ANN, b"a", 6_000)
    await parked.hurry(redis, QUEUE, ANN, 3_000)
    await parked.hurry(redis, QUEUE, ANN, 4_000)
    await parked.park(redis, QUEUE, ANN, b"a", 6_000)  # repeated, because its answer was lost
    assert (await kept(redis))[1] == {ANN: 3_000}


async def test_a_job_that_is_not_parked_is_not_due_however_it_is_hurried(redis):
    await parked.hurry(redis, QUEUE, ANN, 1)
    assert await parked.due(redis, QUEUE, 9_000, 9) == []
    assert not await parked.resume(redis, QUEUE, ANN)
    assert await queued(redis) == []


async def test_a_job_is_due_later_when_it_is_postponed_and_never_earlier(redis):
    await parked.postpone(redis, QUEUE, ANN, 9_000)
    assert await kept(redis) == ({}, {})
    await parked.park(redis, QUEUE, ANN, b"a", 6_000)
    await parked.postpone(redis, QUEUE, ANN, 9_000)
    await parked.postpone(redis, QUEUE, ANN, 8_000)
    assert (await kept(redis))[1] == {ANN: 9_000}


def test_the_name_of_a_parked_job_says_which_message_it_is():
    assert wire.parked_message(ANN) == ("1", "private-ai-chat.ann", "m-1")


async def test_a_removed_job_is_not_queued(redis):
    await parked.park(redis, QUEUE, ANN, b"a", 5_000)
    for _ in range(2):
        await parked.remove(redis, QUEUE, ANN)
    assert await kept(redis) == ({}, {})
    assert not await parked.resume(redis, QUEUE, ANN)


async def test_a_name_whose_job_is_gone_does_not_stay_due(redis):
    await parked.park(redis, QUEUE, ANN, b"a", 5_000)
    await redis.hdel(PREFIX + wire.parked_key(QUEUE), ANN)
    assert await parked.due(redis, QUEUE, 5_000, 9) == [ANN]
    assert not await parked.resume(redis, QUEUE, ANN)
    assert await parked.due(redis, QUEUE, 5_000, 9) == []
