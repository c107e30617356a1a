"""Calls that share a round trip: each with its own answer, none with another's trouble."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from redis.exceptions import ConnectionError as LostError
from redis.exceptions import ResponseError

from legato.protocol.redis.pipeline import RedisClient
from legato.worker import redis_clients as clients
from legato.worker.replies import batch
from legato.worker.replies.batch import BatchedScript
from tests.waiting import WAIT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis

COUNT = "return redis.call('INCRBY', KEYS[1], ARGV[1])"


@pytest.fixture
def trips(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many calls each round trip has."""
    exchange, found = RedisClient.exchange, list[int]()

    async def counted(self: RedisClient, commands: Sequence[Any]) -> list[Any]:
        if commands[0][0] == "EVALSHA":
            found.append(len(commands))
        return await exchange(self, commands)

    monkeypatch.setattr(RedisClient, "exchange", counted)
    return found


def counting(redis: Redis, *, urgent: bool = False) -> BatchedScript:
    return BatchedScript(redis, redis.register_script(COUNT), urgent=urgent)


async def test_what_is_called_in_one_turn_goes_together_and_each_has_its_answer(
    redis: Redis, trips: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "CALLS_PER_PIPELINE", 4)
    count = counting(redis)
    assert await count(["first"], [7]) == 7  # the server does not know the script yet
    del trips[:]
    answers = await asyncio.gather(*(count([f"k{number}"], [number]) for number in range(10)))
    assert answers == list(range(10))
    assert trips == [4, 4, 2]


async def test_call_is_sent_at_once_unless_another_was_sent_just_before(
    redis: Redis, trips: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    count = counting(redis)
    await redis.script_load(COUNT)
    monkeypatch.setattr(batch, "PIPELINE_SECONDS", 2 * WAIT)
    async with asyncio.timeout(WAIT):
        assert await count(["a"], [1]) == 1
    waiting = asyncio.create_task(count(["a"], [1]))
    await redis.ping()
    assert trips == [1]
    waiting.cancel()


async def test_urgent_call_waits_for_nothing_and_takes_along_what_waits(
    redis: Redis, trips: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    count, now = counting(redis), counting(redis, urgent=True)
    await redis.script_load(COUNT)
    monkeypatch.setattr(batch, "PIPELINE_SECONDS", 2 * WAIT)
    async with asyncio.timeout(WAIT):
        assert await now(["a"], [1]) == 1
        waiting = asyncio.create_task(count(["a"], [1]))
        await redis.ping()
        assert await asyncio.gather(now(["a"], [1]), now(["a"], [1])) == [3, 4]
        assert await waiting == 2
    assert trips == [1, 3]


async def test_call_whose_answer_nobody_wants_ends_with_those_around_it(redis: Redis) -> None:
    count = counting(redis, urgent=True)
    await count(["a"], [1])
    await redis.execute_command("CLIENT", "PAUSE", 500, "ALL")
    unwanted, wanted = count.call(["a"], [1]), count.call(["b"], [1])
    unwanted.forgive()
    waiting = asyncio.create_task(wanted.result())
    for _ in range(5):  # turns of the loop
        await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting})
    assert asyncio.all_tasks() == {asyncio.current_task()}
    with pytest.raises(LostError):
        await unwanted.result()


async def test_calls_of_one_interval_go_together(
    redis: Redis, trips: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    count = counting(redis)
    await redis.script_load(COUNT)
    monkeypatch.setattr(batch, "PIPELINE_SECONDS", 1.0)
    await count(["a"], [1])
    calls = []
    for _ in range(3):
        calls.append(asyncio.create_task(count(["a"], [1])))
        await redis.ping()  # an iteration of the loop, and more
    assert await asyncio.gather(*calls) == [2, 3, 4]
    assert trips == [1, 3]


async def test_full_pipeline_waits_for_nothing(
    redis: Redis, trips: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    count = counting(redis)
    await redis.script_load(COUNT)
    monkeypatch.setattr(batch, "PIPELINE_SECONDS", 2 * WAIT)
    monkeypatch.setattr(batch, "CALLS_PER_PIPELINE", 4)
    async with asyncio.timeout(WAIT):
        await count(["a"], [1])
        calls = []
        for _ in range(4):
            calls.append(asyncio.create_task(count(["a"], [1])))
            await redis.ping()
        assert await asyncio.gather(*calls) == [2, 3, 4, 5]
    assert trips == [1, 4]


async def test_server_that_has_forgotten_the_script_is_told_it_again(redis: Redis) -> None:
    count = counting(redis)
    await count(["a"], [1])
    await redis.script_flush()
    assert await asyncio.gather(count(["a"], [1]), count(["b"], [1])) == [2, 1]


async def test_error_of_one_is_no_matter_of_the_others(redis: Redis) -> None:
    count = counting(redis)
    await redis.set("text", "no number")
    await count(["a"], [1])
    first, bad, last = await asyncio.gather(
        count(["a"], [1]), count(["text"], [1]), count(["b"], [1]), return_exceptions=True
    )
    assert (first, last) == (2, 1)
    assert isinstance(bad, ResponseError)


async def test_who_is_cancelled_takes_nobody_along(redis: Redis) -> None:
    count = counting(redis)
    await count(["a"], [1])
    tasks = [asyncio.create_task(count([key], [1])) for key in ("a", "b", "c")]
    await asyncio.sleep(0)
    tasks[1].cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert (answers[0], answers[2]) == (2, 1)
    assert isinstance(answers[1], asyncio.CancelledError)
    assert await count(["c"], [1]) == 2


async def test_round_trip_whose_callers_are_all_cancelled_is_broken_off(redis: Redis) -> None:
    count = counting(redis, urgent=True)
    await count(["a"], [1])
    await redis.execute_command("CLIENT", "PAUSE", 500, "ALL")
    tasks = [asyncio.create_task(count([key], [1])) for key in ("a", "b")]
    for _ in range(5):  # turns of the loop
        await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_lost_connection_is_told_to_all_who_called() -> None:
    redis = clients.connect("unix:///nowhere/redis.sock")
    count = counting(redis)
    answers = await asyncio.gather(count(["a"], [1]), count(["b"], [1]), return_exceptions=True)
    assert all(isinstance(answer, LostError) for answer in answers)
    await redis.aclose()
