"""Whose job is next, and that no crash makes the order forget a job or hand it out twice."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from redis.exceptions import ConnectionError as LostError

from legato.protocol import jobs as protocol
from legato.protocol import wire
from legato.worker.config import Worker
from legato.worker.jobs import backlog, fair_queue
from legato.worker.jobs.fair_queue import FairQueue
from legato.worker.jobs.priority_queues import PriorityQueues
from legato.worker.jobs.queue import JobQueue
from legato.worker.jobs.shares import Shares
from tests.waiting import until
from tests.worker.support import enqueue, make_job

if TYPE_CHECKING:
    from collections.abc import Iterable

    from redis.asyncio import Redis

    from legato.worker.jobs.queue import Entry

KEY = wire.jobs_key("q")
ROOM = wire.WAITING_ROOM.encode()

SENT = "a.x.1 a.x.2 a.x.3 a.y.1 a.y.2 b.z.1 b.z.2 c.z.1"
FAIR = ["a.x.1", "b.z.1", "c.z.1", "a.y.1", "b.z.2", "a.x.2", "a.y.2", "a.x.3"]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fair_queue, "QUEUE_POLL_MS", 20)
    monkeypatch.setattr(fair_queue, "STRAY_MS", 0)


def fair(redis: Redis, reader: Redis, consumer: str = "us", lease: float = 30, **settings: Any) -> FairQueue:
    shares = Shares.of(Worker(fair=True, **settings))
    return FairQueue(redis, reader, queue="q", consumer=consumer, lease=lease, shares=shares)


@pytest.fixture
async def ours(redis: Redis, reader: Redis) -> FairQueue:
    queue = fair(redis, reader)
    await queue.prepare()
    return queue


async def add(redis: Redis, names: str, queue: str = "q") -> list[str]:
    """Add a job for each name: ``TENANT.USER.NUMBER``, which is its message id, too."""
    for name in names.split():
        tenant, user, _ = name.split(".")
        job = make_job(message_id=name.replace(".", "_"), user_id=user, tenant=tenant)
        await enqueue(redis, job, queue)
    return names.split()


def names(entries: Iterable[Entry]) -> list[str]:
    return [protocol.decode_job(entry.body or b"").message_id.replace("_", ".") for entry in entries]


async def all_of(queue: FairQueue, *, at_once: int = 1, ended: bool = True) -> list[str]:
    """Claim until nothing comes, and end each job at once."""
    order = []
    while entries := await queue.poll(at_once):
        order += names(entries)
        for entry in entries if ended else ():
            await queue.acknowledge(entry.id)
    return order


async def pending(redis: Redis) -> dict[bytes, bytes]:
    """Who has which job."""
    found: Any = await redis.xpending_range(KEY, wire.GROUP, "-", "+", 10_000)
    return {entry["message_id"]: entry["consumer"] for entry in found}


async def room(redis: Redis, queue: str = "q") -> dict[str, Any]:
    """What is left in the keys of the waiting room, but for the turn that was given last."""
    found: dict[str, Any] = {}
    for part in fair_queue.PARTS:
        key = wire.fair_key(queue, part)
        is_hash = part in ("owners", "turns")
        found[part] = await (redis.hgetall(key) if is_hash else redis.zrange(key, 0, -1))
    found["turns"].pop(b"#", None)
    return {part: left for part, left in found.items() if left}


# --- turns


async def test_tenants_take_turns_and_so_do_the_users_of_each(ours: FairQueue, redis: Redis) -> None:
    await add(redis, SENT)
    assert await all_of(ours) == FAIR
    assert await room(redis) == {}


async def test_the_order_is_the_same_if_many_are_claimed_at_once(ours: FairQueue, redis: Redis) -> None:
    await add(redis, SENT)
    assert await all_of(ours, at_once=3) == FAIR


async def test_one_tenant_and_one_user_get_their_jobs_as_they_came(ours: FairQueue, redis: Redis) -> None:
    sent = await add(redis, " ".join(f".7.{number}" for number in range(40)))
    assert await all_of(ours, at_once=7) == sent


@pytest.mark.parametrize("at_once", [1, 16])
@pytest.mark.parametrize("weight", [1, 4])
async def test_a_thousand_jobs_of_one_tenant_delay_99_others_by_its_weight_in_jobs(
    redis: Redis, reader: Redis, at_once: int, weight: int
) -> None:
    """The bound of docs/worker.md: before the last of the 99 starts, the big one starts a round's jobs."""
    queue = fair(redis, reader, tenant_weights={"big": weight})
    await queue.prepare()
    async with redis.pipeline(transaction=False) as pipe:
        whose = ["big"] * 1000 + [f"small{number}" for number in range(99)]
        for number, tenant in enumerate(whose):
            job = make_job(message_id=f"{tenant}_7_{number}", tenant=tenant)
            pipe.xadd(KEY, {wire.JOB_FIELD: protocol.encode_job(job)})
        await pipe.execute()
    order: list[str] = []
    while sum(name.startswith("small") for name in order) < 99:
        entries = await queue.poll(at_once)
        assert entries
        order += names(entries)
    last = max(at for at, name in enumerate(order) if name.startswith("small"))
    assert sum(name.startswith("big") for name in order[:last]) <= weight
    assert last + 1 <= 99 + weight


async def test_a_tenant_that_comes_while_others_wait_is_no_later_than_a_round(
    ours: FairQueue, redis: Redis
) -> None:
    await add(redis, " ".join(f"big.7.{number}" for number in range(50)))
    assert names(await ours.poll(5)) == [f"big.7.{number}" for number in range(5)]
    await add(redis, "small.7.1")
    assert "small.7.1" in names(await ours.poll(2))


async def test_weights_are_jobs_per_round(redis: Redis, reader: Redis) -> None:
    queue = fair(redis, reader, tenant_weights={"gold": 4, "silver": 2})
    await queue.prepare()
    for number in range(70):
        await add(redis, f"gold.7.{number} silver.7.{number} iron.7.{number}")
    counts = Counter(name.split(".")[0] for name in names(await queue.poll(70)))
    assert counts == {"gold": 40, "silver": 20, "iron": 10}


async def test_weights_of_users_are_jobs_per_turn_within_their_tenant(redis: Redis, reader: Redis) -> None:
    queue = fair(redis, reader, user_weights={"ann": 3, "7": 2})
    await queue.prepare()
    for number in range(4):
        await add(redis, f"a.ann.{number} a.7.{number} a.bob.{number} b.ann.{number}")
    assert await all_of(queue) == [
        *("a.ann.0", "b.ann.0", "a.ann.1", "b.ann.1", "a.ann.2", "b.ann.2", "a.7.0", "b.ann.3", "a.7.1"),
        *("a.bob.0", "a.ann.3", "a.7.2", "a.7.3", "a.bob.1", "a.bob.2", "a.bob.3"),
    ]
    assert await room(redis) == {}


async def test_a_user_without_jobs_saves_nothing_up(redis: Redis, reader: Redis) -> None:
    queue = fair(redis, reader, user_weights={"ann": 3})
    await queue.prepare()
    await add(redis, "a.ann.1 a.bob.1 a.bob.2")
    assert names(await queue.poll(2)) == ["a.ann.1", "a.bob.1"]
    await add(redis, "a.ann.2 a.ann.3 a.ann.4 a.ann.5 a.bob.3")
    assert names(await queue.poll(9)) == [*("a.bob.2", "a.ann.2", "a.ann.3", "a.ann.4", "a.bob.3", "a.ann.5")]


async def test_a_user_at_the_maximum_keeps_the_rest_of_a_turn(redis: Redis, reader: Redis) -> None:
    queue = fair(redis, reader, user_weights={"ann": 3}, max_per_user=2)
    await queue.prepare()
    await add(redis, "a.ann.1 a.ann.2 a.ann.3 a.ann.4 a.bob.1 a.bob.2 a.bob.3")
    first, _, third = await queue.poll(3)
    assert names([first, third]) == ["a.ann.1", "a.bob.1"], "ann has two, and bob is next"
    await queue.acknowledge(first.id)
    await queue.acknowledge(third.id)
    assert names(await queue.poll(9)) == ["a.ann.3", "a.bob.2", "a.bob.3"]


async def test_a_tenant_without_jobs_saves_nothing_up(redis: Redis, reader: Redis) -> None:
    queue = fair(redis, reader, tenant_weights={"gold": 4})
    await queue.prepare()
    await add(redis, "gold.7.1 iron.7.1 iron.7.2 iron.7.3")
    assert names(await queue.poll(3)) == ["gold.7.1", "iron.7.1", "iron.7.2"]
    await add(redis, " ".join(f"gold.7.{number}" for number in range(2, 9)))
    assert names(await queue.poll(9)) == ["iron.7.3", *(f"gold.7.{number}" for number in range(2, 9))]


async def test_a_number_and_its_text_are_one_user_but_not_in_another_application(
    redis: Redis, reader: Redis
) -> None:
    queue = fair(redis, reader, max_per_user=1)
    await queue.prepare()
    for number, user in enumerate((7, "7")):
        await enqueue(redis, make_job(message_id=f"{number}", user_id=user))
    await enqueue(redis, make_job(message_id="other", app_id="2"))
    assert names(await queue.poll(9)) == ["0", "other"]


# --- maxima


async def test_no_tenant_has_more_jobs_than_its_maximum_over_all_workers(redis: Redis, reader: Redis) -> None:
    settings: Any = {"max_per_tenant": 2, "tenant_limits": {"gold": 3, "free": 0}}
    one, two = (fair(redis, reader, name, **settings) for name in ("one", "two"))
    await one.prepare()
    for number in range(5):
        await add(redis, f"gold.7.{number} iron.7.{number} free.7.{number}")
    first = await one.poll(4)
    got = Counter(name.split(".")[0] for name in names([*first, *await two.poll(90)]))
    assert got == {"gold": 3, "iron": 2, "free": 5}
    assert await one.poll(9) == await two.poll(9) == []
    (mine,) = [entry for entry in first if names([entry]) == ["iron.7.0"]]
    await one.acknowledge(mine.id)
    assert names(await two.poll(9)) == ["iron.7.2"]


async def test_no_user_has_more_jobs_than_the_maximum_and_others_of_the_tenant_go_on(
    redis: Redis, reader: Redis
) -> None:
    queue = fair(redis, reader, max_per_user=2)
    await queue.prepare()
    await add(redis, "a.x.1 a.x.2 a.x.3 a.y.1 b.x.1")
    entries = await queue.poll(9)
    assert sorted(names(entries)) == ["a.x.1", "a.x.2", "a.y.1", "b.x.1"]
    await queue.dead_letter(entries[0], "a reason")
    assert names(await queue.poll(9)) == ["a.x.3"]


async def test_a_tenant_of_users_at_their_maximum_holds_up_nobody(redis: Redis, reader: Redis) -> None:
    queue = fair(redis, reader, max_per_user=1)
    await queue.prepare()
    await add(redis, "a.x.1 a.x.2 a.x.3")
    (running,) = await queue.poll(9)
    await add(redis, "b.y.1 a.z.1")
    assert sorted(names(await queue.poll(9))) == ["a.z.1", "b.y.1"]
    await queue.requeue(running)
    assert names(await queue.poll(9)) == ["a.x.2"]


async def test_a_job_that_is_taken_over_still_counts(redis: Redis, reader: Redis) -> None:
    one = fair(redis, reader, "one", lease=0.001, max_per_tenant=1)
    two = fair(redis, reader, "two", lease=0.001, max_per_tenant=1)
    await one.prepare()
    await add(redis, "a.x.1 a.x.2")
    (entry,) = await one.poll(9)
    taken: list[Entry] = []

    async def some() -> bool:
        taken.extend(await two.take_over(9))
        return bool(taken)

    await until(some)
    assert [(found.id, found.deliveries) for found in taken] == [(entry.id, 2)]
    assert await one.renew([entry.id]) == {entry.id}
    assert await two.poll(9) == []
    await two.acknowledge(entry.id)
    assert names(await two.poll(9)) == ["a.x.2"]


# --- what waits has no lease, and is measured


async def test_jobs_that_wait_are_not_taken_over(redis: Redis, reader: Redis) -> None:
    queue = fair(redis, reader, lease=0.001, max_per_tenant=1)
    await queue.prepare()
    await add(redis, "a.x.1 a.x.2 a.x.3")
    (running,) = await queue.poll(9)
    await until(lambda: taken_over(queue, running.id))
    assert sorted((await pending(redis)).values()) == [ROOM, ROOM, b"us"]


async def taken_over(queue: FairQueue, entry_id: bytes) -> bool:
    taken = await queue.take_over(9)
    assert {entry.id for entry in taken} <= {entry_id}
    return bool(taken)


async def test_waiting_jobs_are_counted_and_the_oldest_has_its_age(
    redis: Redis, reader: Redis, ours: FairQueue
) -> None:
    seconds, _ = await redis.time()
    for age, name in ((90, "a.x.1"), (60, "a.x.2"), (30, "b.x.1")):
        job = make_job(message_id=name.replace(".", "_"), tenant=name[0], user_id="x")
        await redis.xadd(KEY, {wire.JOB_FIELD: protocol.encode_job(job)}, id=f"{(seconds - age) * 1000}-0")
    assert (await backlog.measure(redis, "q"))[::2] == (3, 0)
    await ours.collect()
    measured = await backlog.measure(redis, "q")
    assert (measured.waiting, measured.pending, measured.dead) == (3, 0, 0)
    assert 90 <= measured.oldest < 90 + 60
    assert names(await ours.poll(2)) == ["a.x.1", "b.x.1"]
    measured = await backlog.measure(redis, "q")
    assert (measured.waiting, measured.pending) == (1, 2)
    assert 60 <= measured.oldest < 60 + 60


async def test_new_jobs_are_read_at_once_by_one_that_waits(ours: FairQueue, redis: Redis) -> None:
    assert await ours.read(9) == []
    await add(redis, "a.x.1")
    assert names(await ours.read(9)) == ["a.x.1"]


async def test_as_long_as_jobs_wait_nobody_waits_for_new_ones(
    ours: FairQueue, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("QUEUE_POLL_MS", "QUEUE_BLOCK_MS"):
        monkeypatch.setattr(fair_queue, name, 60_000)
    sent = await add(redis, "a.x.1 a.x.2 a.x.3")
    got = []
    async with asyncio.timeout(20):
        for _ in sent:
            got += names(await ours.read(1))
    assert got == sent


async def test_the_entry_is_as_it_would_be_without_a_waiting_room(
    ours: FairQueue, redis: Redis, reader: Redis
) -> None:
    """Its first delivery, with the time at which it was queued: tickets and waits depend on both."""
    entry_id = await enqueue(redis, make_job())
    (entry,) = await ours.poll(9)
    (found,) = await redis.xpending_range(KEY, wire.GROUP, "-", "+", 9)
    assert (entry.id, entry.deliveries, found["times_delivered"]) == (entry_id, 1, 1)


# --- other programs, and what they add


async def test_what_is_no_job_comes_in_turn_too(ours: FairQueue, redis: Redis) -> None:
    for fields in ({"job": "nonsense"}, {"other": "x"}, {"job": b"\xff"}, {"job": '{"tenant": "a|b"}'}):
        await redis.xadd(KEY, fields)  # type: ignore[arg-type]
    await add(redis, "a.x.1")
    entries = await ours.poll(9)
    assert [entry.body for entry in entries if entry.body != b"nonsense"][1:] == [
        None,
        b"\xff",
        b'{"tenant": "a|b"}',
    ]
    for entry in entries:
        await ours.dead_letter(entry, "no job")
    assert await redis.xlen(wire.dead_key("q")) == 5
    assert await room(redis) == {}


async def test_queues_keep_their_priority_and_one_at_its_maxima_stops_no_other(
    redis: Redis, reader: Redis
) -> None:
    shares = Shares.of(Worker(fair=True, max_per_tenant=1))
    queues = {
        name: FairQueue(redis, reader, queue=name, consumer="us", lease=30, shares=shares)
        for name in ("urgent", "other")
    }
    both = PriorityQueues(queues)
    await both.prepare()
    await add(redis, "a.x.1 b.x.1", "other")
    await add(redis, "a.x.2 a.x.3 b.x.2", "urgent")
    assert names(await both.read(9)) == ["a.x.2", "b.x.2"]
    assert names(await both.read(9)) == ["a.x.1", "b.x.1"]
    assert await both.read(9) == []


async def test_a_worker_without_fairness_takes_what_waits_when_a_lease_is_over(
    ours: FairQueue, redis: Redis, reader: Redis
) -> None:
    """So fairness can be switched off; and switched on again, for what it knows then is out of date."""
    await add(redis, "a.x.1 a.x.2 b.x.1")
    await ours.collect()
    plain = JobQueue(redis, reader, queue="q", consumer="plain", lease=0.001)
    taken: list[Entry] = []

    async def all_taken() -> bool:
        taken.extend(await plain.take_over(9))
        return len(taken) >= 3

    await until(all_taken)
    assert sorted(names(taken)) == ["a.x.1", "a.x.2", "b.x.1"]
    await plain.acknowledge(taken[0].id)
    await add(redis, "a.x.3")
    assert names(await ours.poll(9)) == ["a.x.3"]
    assert await ours.poll(9) == []


# --- crashes


async def test_job_of_a_process_that_died_before_it_put_it_in_order_is_found(
    ours: FairQueue, redis: Redis, reader: Redis
) -> None:
    await add(redis, "a.x.1 a.x.2")
    dead = fair(redis, reader, "dead")
    assert len(await dead._collected(None)) == 2
    assert await ours.poll(9) == []
    assert await ours.take_over(9) == []
    assert names(await ours.poll(9)) == ["a.x.1", "a.x.2"]


async def test_job_that_another_has_by_now_is_put_in_no_order(
    ours: FairQueue, redis: Redis, reader: Redis
) -> None:
    await add(redis, "a.x.1")
    late = await ours._collected(None)
    plain = JobQueue(redis, reader, queue="q", consumer="plain", lease=0.001)

    async def taken() -> bool:
        return bool(await plain.take_over(9))

    await until(taken)
    await ours._put_in_order(late)
    assert await room(redis) == {}


async def test_strays_are_found_behind_many_that_wait(
    ours: FairQueue, redis: Redis, reader: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fair_queue, "CHECKED_PER_LOOK", 3)
    await add(redis, " ".join(f"a.x.{number}" for number in range(10)))
    await ours.collect()
    await add(redis, "b.x.1")
    await fair(redis, reader, "dead")._collected(None)

    async def found() -> bool:
        await ours.take_over(9)
        return bool(await redis.hexists(wire.fair_key("q", "turns"), "ub|1:x"))

    await until(found)


class Fragile:
    """A client whose next call of a script is carried out, or not, and then the connection is lost."""

    def __init__(self, script: Any) -> None:
        self._script = script
        self.loses = ""

    async def __call__(self, keys: Any, args: Any) -> Any:
        if self.loses == "call":
            self.loses = ""
            raise LostError("lost")
        answer = await self._script(keys, args)
        if self.loses == "answer":
            self.loses = ""
            raise LostError("lost")
        return answer


@pytest.mark.parametrize("lost", ["call", "answer"])
async def test_lost_answer_loses_no_job_and_gives_none_twice(
    ours: FairQueue, redis: Redis, reader: Redis, lost: str
) -> None:
    ours._pick = fragile = Fragile(ours._pick)
    await add(redis, "a.x.1 a.x.2 b.x.1 b.x.2 b.x.3")
    before = await ours.poll(1)
    fragile.loses = lost
    with pytest.raises(LostError):
        await ours.poll(2)
    after = await ours.poll(1)
    after += await ours.poll(9)
    after += await ours.poll(9)
    assert sorted(names([*before, *after])) == ["a.x.1", "a.x.2", "b.x.1", "b.x.2", "b.x.3"]
    assert await fair(redis, reader, "other").poll(9) == []


async def test_lost_answer_to_a_takeover_loses_nothing(redis: Redis, reader: Redis) -> None:
    """And the delivery counts, for its ticket has to be newer than that of the owner before."""
    one, two = fair(redis, reader, "one", lease=0.001), fair(redis, reader, "two", lease=0.001)
    await one.prepare()
    await add(redis, "a.x.1")
    (before,) = await one.poll(1)
    two._take_over = fragile = Fragile(two._take_over)

    async def lost() -> bool:
        fragile.loses = "answer"
        with contextlib.suppress(LostError):
            await two.take_over(1)
        return b"two" in (await pending(redis)).values()

    await until(lost)
    (entry,) = await two.poll(1)
    assert entry.id == before.id
    assert entry.deliveries > 1
    assert await two.poll(1) == []


async def test_what_the_stream_does_not_have_any_more_is_forgotten(redis: Redis, reader: Redis) -> None:
    """A tenant at its maximum would wait for ever for a job that another program has removed."""
    queue = fair(redis, reader, max_per_tenant=1)
    await queue.prepare()
    await add(redis, "a.x.1 a.x.2 a.x.3")
    (running,) = await queue.poll(9)
    waiting = min(set(await pending(redis)) - {running.id})
    for entry_id in (running.id, waiting):
        await redis.xack(KEY, wire.GROUP, entry_id)
        await redis.xdel(KEY, entry_id)
    assert await queue.poll(9) == []
    await queue.take_over(9)
    assert names(await queue.poll(9)) == ["a.x.3"]


async def test_all_claimed_jobs_are_checked_in_turn(
    redis: Redis, reader: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fair_queue, "CHECKED_PER_LOOK", 2)
    queue = fair(redis, reader)
    await queue.prepare()
    await add(redis, " ".join(f"a.x.{number}" for number in range(7)))
    entries = await queue.poll(9)
    await redis.xack(KEY, wire.GROUP, entries[6].id)

    async def forgotten() -> bool:
        await queue.take_over(9)
        return await redis.zcard(wire.fair_key("q", "claimed")) == 6

    await until(forgotten)


async def test_waiting_jobs_survive_the_loss_of_their_order(ours: FairQueue, redis: Redis) -> None:
    sent = await add(redis, "a.x.1 a.x.2 a.x.3 b.y.1 c.z.1")
    got = names(await ours.poll(2))
    await redis.delete(*(wire.fair_key("q", part) for part in fair_queue.PARTS))
    await ours.take_over(9)
    got += names(await ours.poll(9))
    assert sorted(got) == sorted(sent)


async def test_a_stream_that_is_gone_takes_its_order_along(ours: FairQueue, redis: Redis) -> None:
    await add(redis, "a.x.1 a.x.2 b.x.1")
    await ours.poll(1)
    await redis.delete(KEY)
    with pytest.raises(Exception, match="NOGROUP"):
        await ours.poll(9)
    await ours.prepare()
    await add(redis, "c.x.1")
    assert names([*await ours.poll(9), *await ours.poll(9)]) == ["c.x.1"]


def test_shares_name_those_that_have_their_own() -> None:
    settings = Worker(
        fair=True,
        max_per_user=2,
        max_per_tenant=5,
        tenant_weights={"a": 3},
        tenant_limits={"b": 9},
        user_weights={"7": 2},
    )
    shares = Shares.of(settings)
    assert (shares.per_user, shares.per_tenant) == (2, 5)
    assert msgspec.json.decode(shares.of_tenants) == {"a": [3, 5], "b": [1, 9]}
    assert msgspec.json.decode(shares.of_users) == {"7": 2}
