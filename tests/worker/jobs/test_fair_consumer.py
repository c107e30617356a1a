"""Processes with fair admission answer real jobs: maxima, cancels, drains, and a process that dies."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from legato.protocol import wire
from legato.worker import cli, config
from legato.worker import redis_clients as clients
from legato.worker.agents.loading import Agents
from legato.worker.jobs import consumer, fair_queue
from legato.worker.jobs.queue import JobQueue
from legato.worker.providers.scripted import Scripted
from tests.waiting import WAIT, until
from tests.worker.jobs.test_consumer import KEY, Process, empty
from tests.worker.jobs.test_fair_queue import room
from tests.worker.support import END, STARTED, Ears, Puppet, enqueue, keys, make_job

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis

    from legato.worker.providers import base
    from legato.worker.store.conversations import Store


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fair_queue, "QUEUE_POLL_MS", 20)
    monkeypatch.setattr(consumer, "CANCEL_POLL_SECONDS", 0.02)
    monkeypatch.setattr(consumer, "TAKE_OVER_SECONDS", 0.02)
    monkeypatch.setattr(consumer, "DRAIN_SETTLE_SECONDS", 5)


@asynccontextmanager
async def process(
    url: str, store: Store, provider: base.Provider, name: str = "us", **limits: Any
) -> AsyncIterator[Process]:
    worker = config.Worker(**{"queue": "q", "drain_seconds": 0, "fair": True, **limits})
    patient = config.ProviderSettings(retries=0, no_token_seconds=2 * WAIT)
    settings = config.Settings(worker=worker, provider=patient)
    async with AsyncExitStack() as stack:
        redis, reader = clients.connect(url), clients.connect_reader(url)
        stack.push_async_callback(redis.aclose)
        stack.push_async_callback(reader.aclose)
        queue = cli._queue("q", redis, reader, name, worker)
        await queue.prepare()
        made = cli.compose(settings, redis, queue, store, provider, Agents({}))
        task = asyncio.create_task(made.run())
        yield Process(made, task)
        task.cancel()
        await asyncio.wait([task])


async def state(redis: Redis, message_id: str) -> bytes | None:
    return await redis.hget(keys(make_job(message_id=message_id))[0], "state")


async def settled(redis: Redis) -> bool:
    """Whether all jobs have ended, and the processes have noted it, which they do a moment later."""
    return await empty(redis) and await room(redis) == {}


async def test_many_jobs_are_answered_and_nothing_is_left(redis: Redis, redis_url: str, store: Store) -> None:
    for number in range(30):
        fields = {"tenant": f"t{number % 3}", "message_id": f"m{number}"}
        await enqueue(redis, make_job("#script tokens=2 rate=0", **fields))
    limits = {"max_per_tenant": 2, "max_per_user": 1, "concurrency": 4}
    async with (
        process(redis_url, store, Scripted(), "one", **limits),
        process(redis_url, store, Scripted(), "two", **limits),
    ):
        await until(lambda: settled(redis))
    assert {await state(redis, f"m{number}") for number in range(30)} == {b"complete"}
    assert await room(redis) == {}


async def test_two_processes_run_no_more_of_a_tenant_than_its_maximum(
    redis: Redis, redis_url: str, store: Store
) -> None:
    for number in range(4):
        await enqueue(redis, make_job(message_id=f"m{number}", tenant="a"))
    await enqueue(redis, make_job(message_id="other", tenant="b"))
    one, two = Puppet(), Puppet()
    limits = {"max_per_tenant": 2, "concurrency": 3}
    async with (
        process(redis_url, store, one, "one", **limits),
        process(redis_url, store, two, "two", **limits),
    ):
        await until(lambda: len(one.asked) + len(two.asked) == 3)
        assert await state(redis, "other") == b"streaming"
        for puppet in (one, two):
            for event in (STARTED, END) * len(puppet.asked):
                puppet.says.put_nowait(event)
        await until(lambda: len(one.asked) + len(two.asked) >= 5)


async def test_a_message_cancelled_while_it_waits_ends_without_a_request(
    redis: Redis, redis_url: str, store: Store
) -> None:
    puppet = Puppet()
    job = make_job(message_id="m2")
    await enqueue(redis, make_job(message_id="m1"))
    async with (
        Ears(redis, job) as ears,
        process(redis_url, store, puppet, max_per_user=1),
    ):
        await until(lambda: puppet.asked)
        await enqueue(redis, job)
        await redis.set(wire.cancel_flags("m2")[0], "1")
        puppet.says.put_nowait(STARTED)
        puppet.says.put_nowait(END)
        await ears.until("stream.cancelled")
        await until(lambda: empty(redis))
    assert len(puppet.asked) == 1
    assert await state(redis, "m2") == b"cancelled"


async def test_a_drained_process_leaves_its_job_to_another_and_counts_no_more(
    redis: Redis, redis_url: str, store: Store
) -> None:
    await enqueue(redis, make_job("#script tokens=1 rate=0"))
    silent = Puppet()
    async with process(redis_url, store, silent, "one", max_per_tenant=1) as one:
        await until(lambda: silent.asked)
        await one.drained()
        async with process(redis_url, store, Scripted(), "two", max_per_tenant=1):
            await until(lambda: settled(redis))
    assert await state(redis, "m1") == b"complete"
    assert await room(redis) == {}


async def test_the_job_of_a_process_that_died_is_taken_over_and_the_next_can_run(
    redis: Redis, redis_url: str, store: Store
) -> None:
    for number in (1, 2):
        await enqueue(redis, make_job("#script tokens=1 rate=0", message_id=f"m{number}"))
    silent = Puppet()
    limits: dict[str, Any] = {"max_per_user": 1, "lease": 1}
    async with process(redis_url, store, silent, "one", **limits) as one:
        await until(lambda: silent.asked)
        one.task.cancel()
        await asyncio.wait([one.task])
        assert await redis.xlen(KEY) == 2
        async with process(redis_url, store, Scripted(), "two", **limits):
            await until(lambda: empty(redis))
    assert [await state(redis, "m1"), await state(redis, "m2")] == [b"complete", b"complete"]


def test_without_the_setting_the_queue_is_the_plain_one(redis: Redis, reader: Redis) -> None:
    """Which sends what it always did."""
    assert type(cli._queue("q", redis, reader, "us", config.Worker())) is JobQueue
    assert type(cli._queue("q", redis, reader, "us", config.Worker(fair=True))) is fair_queue.FairQueue
