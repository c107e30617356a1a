"""Who waits hears how many are before him: in the order in which jobs are claimed, and not too often."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

from legato.protocol import wire
from legato.worker.config import Worker
from legato.worker.jobs import fair_queue, positions
from legato.worker.jobs.fair_queue import FairQueue
from legato.worker.jobs.positions import Positions
from legato.worker.jobs.shares import Shares
from tests import tiers
from tests.waiting import until
from tests.worker.jobs.test_fair_queue import add
from tests.worker.support import Ears, enqueue, keys, make_job

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from legato.protocol.jobs import Job

KEYS = [wire.fair_key("q", part) for part in positions._PARTS]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fair_queue, "QUEUE_POLL_MS", 20)


async def fair(redis: Redis, reader: Redis, consumer: str = "us", **settings: Any) -> FairQueue:
    shares = Shares.of(Worker(fair=True, **settings))
    queue = FairQueue(redis, reader, queue="q", consumer=consumer, lease=30, shares=shares)
    await queue.prepare()
    return queue


def job_of(user: str, message_id: str, **fields: Any) -> Job:
    return make_job(message_id=message_id, user_id=user, **fields)


async def heard(ears: Ears) -> list[tuple[str, int]]:
    """The positions that were published since the last call, by message."""
    ears.heard.clear()
    found = await ears.all()
    assert {event for event, _ in found} <= {"reply.queued"}
    return sorted((data["messageId"], data["position"]) for _, data in found)


async def test_positions_are_published_when_they_change(redis: Redis, reader: Redis) -> None:
    queue = await fair(redis, reader)
    room = Positions(redis, queue)
    ann, bob = job_of("ann", "a1"), job_of("bob", "b1")
    async with Ears(redis, ann) as to_ann, Ears(redis, bob) as to_bob:
        for job in (ann, bob, job_of("ann", "a2"), job_of("ann", "a3")):
            await enqueue(redis, job)
        await room.look()
        assert await heard(to_ann) == [("a1", 0), ("a2", 2), ("a3", 3)]
        assert await heard(to_bob) == [("b1", 1)]
        await room.look()
        assert await heard(to_ann) == await heard(to_bob) == []
        (first,) = await queue.poll(1)
        await queue.acknowledge(first.id)
        await room.look()
        assert await heard(to_ann) == [("a2", 1), ("a3", 2)]
        assert await heard(to_bob) == [("b1", 0)]
    assert (room.waiting, room.tenants) == (3, 1)


async def test_the_frame_is_an_event_of_the_channel_and_no_part_of_the_reply(
    redis: Redis, reader: Redis
) -> None:
    room = Positions(redis, await fair(redis, reader))
    job = job_of("ann", "a1", reply_channel="private-room.5", app_id="2")
    async with Ears(redis, job) as ears:
        await enqueue(redis, job)
        await room.look()
        assert await heard(ears) == [("a1", 0)]
        (envelope,) = ears.envelopes
    assert envelope == wire.Envelope(
        b'{"event":"reply.queued","channel":"private-room.5",'
        b'"data":"{\\"messageId\\":\\"a1\\",\\"position\\":0}"}'
    )
    assert not await redis.exists(*keys(job))


@pytest.mark.parametrize(
    ("fields", "hears"),
    [
        ({"state": "queued"}, True),
        ({"state": "queued", "cancel": "1"}, False),
        ({"state": "streaming"}, False),
        ({"state": "cancelled"}, False),
    ],
)
async def test_only_a_message_that_waits_hears_of_it(
    redis: Redis, reader: Redis, fields: dict[str, str], hears: bool
) -> None:
    room = Positions(redis, await fair(redis, reader))
    job = job_of("ann", "a1")
    async with Ears(redis, job) as ears:
        await enqueue(redis, job)
        await redis.hset(keys(job)[0], mapping=fields)  # type: ignore[misc]
        await room.look()
        assert await heard(ears) == ([("a1", 0)] if hears else [])


async def test_one_worker_publishes_until_it_is_gone(
    redis: Redis, reader: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(positions, "REPORTER_MS", 600_000)
    reporter = wire.fair_key("q", "reporter")
    one = Positions(redis, await fair(redis, reader, "one"))
    two = Positions(redis, await fair(redis, reader, "two"))
    job = job_of("ann", "a1")
    async with Ears(redis, job) as ears:
        await one.look()
        await enqueue(redis, job)
        await two.look()
        assert two.waiting == 1
        assert two._told == {}
        assert 0 < await redis.pttl(reporter) <= 600_000
        await redis.pexpire(reporter, 1)  # its time is over, and it has not looked again

        async def two_has_told() -> bool:
            await two.look()
            return bool(two._told)

        await until(two_has_told)
        assert await heard(ears) == [("a1", 0)]


async def test_no_look_publishes_more_than_its_share_and_all_come_in_turn(
    redis: Redis, reader: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(positions, "POSITIONS_PER_LOOK", 4)
    queue = await fair(redis, reader)
    room = Positions(redis, queue)
    async with Ears(redis, job_of("ann", "a")) as ears:
        for number in range(10):
            await enqueue(redis, job_of("ann", f"a{number}"))
        counts = []
        told: list[str] = []
        for _ in range(4):
            await room.look()
            found = await heard(ears)
            counts.append(len(found))
            told += [message_id for message_id, _ in found]
    assert counts == [4, 4, 2, 0]
    assert sorted(told) == [f"a{number}" for number in range(10)]


async def test_who_has_heard_nothing_comes_before_those_who_have(
    redis: Redis, reader: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(positions, "POSITIONS_PER_LOOK", 2)
    queue = await fair(redis, reader)
    room = Positions(redis, queue)
    async with Ears(redis, job_of("ann", "a")) as ears:
        for number in range(4):
            await enqueue(redis, job_of("ann", f"a{number}"))
        await room.look()
        assert await heard(ears) == [("a0", 0), ("a1", 1)]
        await queue.poll(1)
        await room.look()
        assert await heard(ears) == [("a2", 1), ("a3", 2)]
        await room.look()
        assert await heard(ears) == [("a1", 0)]


async def test_jobs_far_behind_hear_when_they_have_come_near(
    redis: Redis, reader: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(positions, "POSITIONS_LISTED", 3)
    queue = await fair(redis, reader)
    room = Positions(redis, queue)
    async with Ears(redis, job_of("ann", "a")) as ears:
        for number in range(5):
            await enqueue(redis, job_of("ann", f"a{number}"))
        await room.look()
        assert await heard(ears) == [("a0", 0), ("a1", 1), ("a2", 2)]
        await queue.poll(1)
        await room.look()
        assert await heard(ears) == [("a1", 0), ("a2", 1), ("a3", 2)]


async def test_what_is_no_job_has_a_place_and_nobody_hears(redis: Redis, reader: Redis) -> None:
    room = Positions(redis, await fair(redis, reader))
    await redis.xadd(wire.jobs_key("q"), {"job": "nonsense"})
    job = job_of("ann", "a1")
    async with Ears(redis, job) as ears:
        await enqueue(redis, job)
        await room.look()
        assert await heard(ears) == [("a1", 1)]


async def order(redis: Redis, queue: FairQueue) -> list[bytes]:
    listed = await redis.register_script(_script())(KEYS, ("us", 9, 500, *queue.shares[2:]))
    return list(listed[2][::2])


def _script() -> str:
    return positions.scripts.text("legato.worker.jobs", "positions")


@pytest.mark.parametrize("seed", range(tiers.amount(3, 200)))
async def test_the_order_of_positions_is_that_of_claims(redis: Redis, reader: Redis, seed: int) -> None:
    """From any state, as long as nothing comes."""
    dice = random.Random(seed)
    weights: Any = {"tenant_weights": {"t0": 3, "t1": 2}, "user_weights": {"u0": 3, "u1": 2}}
    queue = await fair(redis, reader, **weights)
    for number in range(dice.randint(1, 60)):
        await add(redis, f"t{dice.randrange(5)}.u{dice.randrange(3)}.{number}")
        if dice.random() < 0.2:
            await queue.poll(dice.randint(1, 4))
    await queue.collect()
    expected = await order(redis, queue)
    claimed: list[bytes] = []
    while entries := await queue.poll(dice.randint(1, 5)):
        claimed += [entry.id for entry in entries]
    assert claimed == expected


@pytest.mark.parametrize("seed", range(tiers.amount(2, 100)))
async def test_no_position_grows_while_nothing_comes(redis: Redis, reader: Redis, seed: int) -> None:
    """Although a user at the maximum keeps a turn that others of the tenant take meanwhile."""
    dice = random.Random(seed)
    weights: Any = {"tenant_weights": {"t0": 3}, "user_weights": {"u0": 2}}
    queue = await fair(redis, reader, max_per_user=1, max_per_tenant=2, **weights)
    room = Positions(redis, queue)
    for number in range(40):
        await add(redis, f"t{dice.randrange(4)}.u{dice.randrange(3)}.{number}")
    running = await queue.poll(4)
    assert running
    await room.look()
    last = dict(room._told)
    assert len(last) == 36
    while running:
        await room.look()
        assert all(told.position <= last[job].position for job, told in room._told.items())
        last = dict(room._told)
        ended = running.pop(dice.randrange(len(running)))
        await queue.acknowledge(ended.id)
        running += await queue.poll(1)
    assert last == {}


async def test_a_position_grows_when_a_job_comes_that_is_sooner(redis: Redis, reader: Redis) -> None:
    room = Positions(redis, await fair(redis, reader))
    await add(redis, "a.ann.1 a.ann.2 a.ann.3")
    async with Ears(redis, job_of("ann", "a1")) as ears:
        await room.look()
        assert await heard(ears) == [("a_ann_1", 0), ("a_ann_2", 1), ("a_ann_3", 2)]
        await add(redis, "b.bob.1")
        await room.look()
        assert await heard(ears) == [("a_ann_2", 2), ("a_ann_3", 3)]
