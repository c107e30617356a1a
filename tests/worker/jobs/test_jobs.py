"""Who has a job, and how it leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from legato.protocol import wire
from legato.worker.jobs import queue as jobs
from legato.worker.jobs.queue import Entry, JobQueue
from tests.waiting import until
from tests.worker.support import enqueue, make_job

if TYPE_CHECKING:
    from redis.asyncio import Redis

KEY = wire.jobs_key("q")
JOB = make_job()


@pytest.fixture(autouse=True)
def _short_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "QUEUE_BLOCK_MS", 20)


@pytest.fixture
async def ours(redis: Redis, reader: Redis) -> JobQueue:
    queue = JobQueue(redis, reader, queue="q", consumer="us", lease=30)
    await queue.prepare()
    return queue


@pytest.fixture
async def theirs(redis: Redis, reader: Redis, ours: JobQueue) -> JobQueue:
    """A consumer with a lease so short that everything is up for takeover."""
    return JobQueue(redis, reader, queue="q", consumer="them", lease=0.001)


async def holders(redis: Redis) -> dict[bytes, bytes]:
    pending: Any = await redis.xpending_range(KEY, wire.GROUP, "-", "+", 100)
    return {entry["message_id"]: entry["consumer"] for entry in pending}


async def taken_over(queue: JobQueue) -> list[Entry]:
    taken: list[Entry] = []

    async def some() -> bool:
        taken.extend(await queue.take_over(10))
        return bool(taken)

    await until(some)
    return taken


async def test_jobs_queued_before_the_first_worker_are_read_oldest_first(redis: Redis, reader: Redis) -> None:
    first = await enqueue(redis, JOB)
    second = await enqueue(redis, make_job(message_id="m2"))
    queue = JobQueue(redis, reader, queue="q", consumer="us", lease=30)
    await queue.prepare()
    await queue.prepare()
    assert [entry.id for entry in await queue.read(1)] == [first]
    assert [entry.id for entry in await queue.read(9)] == [second]
    assert await queue.read(9) == []


async def test_acknowledged_job_is_gone(ours: JobQueue, redis: Redis) -> None:
    await enqueue(redis, JOB)
    (entry,) = await ours.read(1)
    await ours.acknowledge(entry.id)
    await ours.acknowledge(entry.id)
    assert await redis.xlen(KEY) == 0
    assert await holders(redis) == {}


async def test_job_within_its_lease_is_not_taken_over(ours: JobQueue, redis: Redis, reader: Redis) -> None:
    await enqueue(redis, JOB)
    await ours.read(1)
    patient = JobQueue(redis, reader, queue="q", consumer="them", lease=30)
    assert await patient.take_over(10) == []


async def test_job_is_taken_over_when_its_lease_is_out_and_renewing_it_then_is_refused(
    ours: JobQueue, theirs: JobQueue, redis: Redis
) -> None:
    """A plain XCLAIM by the one who lost it would steal it back."""
    entry_id = await enqueue(redis, JOB)
    await ours.read(1)
    (taken,) = await taken_over(theirs)
    assert taken.id == entry_id
    assert await ours.renew([entry_id]) == {entry_id}
    assert await holders(redis) == {entry_id: b"them"}


async def test_renewing_starts_the_lease_anew(ours: JobQueue, redis: Redis) -> None:
    entry_id = await enqueue(redis, JOB)
    await ours.read(1)
    await ours.expire(entry_id)
    (before,) = await redis.xpending_range(KEY, wire.GROUP, "-", "+", 1)
    assert before["time_since_delivered"] >= 30_000
    assert await ours.renew([entry_id]) == set()
    (after,) = await redis.xpending_range(KEY, wire.GROUP, "-", "+", 1)
    assert after["time_since_delivered"] < 10_000
    assert after["times_delivered"] == 1


async def test_renewing_an_acknowledged_job_says_lost(ours: JobQueue, redis: Redis) -> None:
    entry_id = await enqueue(redis, JOB)
    await ours.read(1)
    await ours.acknowledge(entry_id)
    assert await ours.renew([entry_id]) == {entry_id}


async def test_expired_job_is_taken_over_at_once(ours: JobQueue, redis: Redis, reader: Redis) -> None:
    entry_id = await enqueue(redis, JOB)
    await ours.read(1)
    await ours.expire(entry_id)
    patient = JobQueue(redis, reader, queue="q", consumer="them", lease=30)
    assert [entry.id for entry in await patient.take_over(10)] == [entry_id]


async def test_requeued_job_is_new_to_whoever_reads_next(
    ours: JobQueue, theirs: JobQueue, redis: Redis
) -> None:
    await enqueue(redis, JOB)
    (entry,) = await ours.read(1)
    await ours.requeue(entry)
    await ours.requeue(entry)
    (again,) = await theirs.read(5)
    assert again.body == entry.body
    assert await redis.xlen(KEY) == 1


async def test_job_of_another_is_not_requeued(ours: JobQueue, theirs: JobQueue, redis: Redis) -> None:
    await enqueue(redis, JOB)
    (entry,) = await ours.read(1)
    await taken_over(theirs)
    await ours.requeue(entry)
    assert await redis.xlen(KEY) == 1
    assert await holders(redis) == {entry.id: b"them"}


async def test_buried_job_is_in_the_dead_letters_once_with_its_reason(ours: JobQueue, redis: Redis) -> None:
    await redis.xadd(KEY, {"job": "nonsense"})
    (entry,) = await ours.read(1)
    await ours.dead_letter(entry, "not JSON")
    await ours.dead_letter(entry, "not JSON")
    letters: Any = await redis.xrange(wire.dead_key("q"))
    assert [fields for _, fields in letters] == [
        {b"job": b"nonsense", b"reason": b"not JSON", b"id": entry.id}
    ]
    assert await redis.xlen(KEY) == 0


async def test_entry_without_the_field_has_no_body(ours: JobQueue, redis: Redis) -> None:
    entry_id = await redis.xadd(KEY, {"other": "x"})
    assert await ours.read(1) == [Entry(entry_id, None)]


async def test_consumer_with_jobs_is_never_forgotten_for_that_drops_them(
    ours: JobQueue, theirs: JobQueue, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    await enqueue(redis, JOB)
    await ours.read(1)
    await redis.xgroup_createconsumer(KEY, wire.GROUP, "them")

    async def names() -> set[Any]:
        return {info["name"] for info in await redis.xinfo_consumers(KEY, wire.GROUP)}

    assert await names() == {b"us", b"them"}
    await ours.forget()
    await theirs.forget()
    assert await names() == {b"us"}
    monkeypatch.setattr(jobs, "CONSUMER_IDLE_MS", -1)  # everybody counts as long idle
    await theirs.forget()
    assert await names() == {b"us"}
    await redis.xack(KEY, wire.GROUP, *await holders(redis))
    await theirs.forget()
    assert await names() == set()


def test_ticket_sorts_by_entry_and_then_by_delivery() -> None:
    """As text, which is how Redis compares them; whatever queue the id names."""
    entries = [
        Entry(b"9-0", b""),
        Entry(b"9-0", b"", deliveries=2),
        Entry(b"urgent/9-0", b"", deliveries=10),
        Entry(b"9-2", b""),
        Entry(b"9-10", b""),
        Entry(b"10-0", b""),
    ]
    tickets = [entry.ticket for entry in entries]
    assert tickets == sorted(set(tickets))


async def test_every_takeover_counts_as_a_delivery_but_no_renewal_does(redis: Redis, reader: Redis) -> None:
    first, second = (
        JobQueue(redis, reader, queue="q", consumer=name, lease=60) for name in ("first", "second")
    )
    await first.prepare()
    await enqueue(redis, make_job())
    (entry,) = await first.read(1)
    assert entry.deliveries == 1
    await first.renew([entry.id])
    await first.expire(entry.id)
    (again,) = await second.take_over(5)
    assert again == Entry(entry.id, entry.body, 2)
    await second.expire(entry.id)
    (once_more,) = await first.take_over(5)
    assert entry.ticket < again.ticket < once_more.ticket
