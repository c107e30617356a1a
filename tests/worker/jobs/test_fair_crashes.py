"""Workers die, answers are lost, Redis restarts, at any point: no job is lost or run twice."""

from __future__ import annotations

import random
from collections import Counter
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Any

import pytest
from redis.exceptions import ConnectionError as LostError

from legato.protocol import wire
from legato.worker import redis_clients as clients
from legato.worker.config import Worker
from legato.worker.jobs import fair_queue
from legato.worker.jobs.fair_queue import FairQueue
from legato.worker.jobs.shares import Shares
from tests import redis_servers, tiers
from tests.conftest import BINARIES
from tests.waiting import until
from tests.worker.jobs.test_fair_queue import KEY, ROOM, add, names, pending, room

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis

    from legato.worker.jobs.queue import Entry

LEASE = 30
STEPS = 150
SHARES = Shares.of(
    Worker(fair=True, max_per_user=2, max_per_tenant=3, tenant_weights={"t0": 2}, user_weights={"u0": 3})
)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fair_queue, "QUEUE_POLL_MS", 5)
    monkeypatch.setattr(fair_queue, "STRAY_MS", 0)
    monkeypatch.setattr(fair_queue, "COLLECT_BATCH", 3)
    monkeypatch.setattr(fair_queue, "CHECKED_PER_LOOK", 4)


class Machine:
    """Several workers on one queue, of which any command may fail before or after it is carried out."""

    def __init__(self, redis: Redis, url: str, stack: AsyncExitStack, seed: int) -> None:
        self.redis = redis
        self.dice = random.Random(seed)
        self.risk = 0.1
        self.sent = 0
        self.ended: Counter[str] = Counter()
        self.workers: dict[str, FairQueue] = {}
        self.held: dict[str, dict[str, Entry]] = {}
        self._url = url
        self._stack = stack
        self._born = 0

    def _fragile(self, client: Any) -> Any:
        carry_out = client.execute_command

        async def execute(*words: Any, **options: Any) -> Any:
            chance = self.dice.random()
            if chance < self.risk / 2:
                raise LostError("before")
            answer = await carry_out(*words, **options)
            if chance < self.risk:
                raise LostError("after")
            return answer

        client.execute_command = execute
        self._stack.push_async_callback(client.aclose)
        return client

    def start_worker(self) -> None:
        self._born += 1
        name = f"w{self._born}"
        redis, reader = (
            self._fragile(connect(self._url)) for connect in (clients.connect, clients.connect_reader)
        )
        self.workers[name] = FairQueue(redis, reader, queue="q", consumer=name, lease=LEASE, shares=SHARES)
        self.held[name] = {}

    async def step(self) -> None:
        action = self.dice.choice(
            [self.send, self.poll, self.poll, self.end, self.end, self.take_over, self.collect, self.kill]
        )
        await action()
        await self.check()

    async def send(self) -> None:
        for _ in range(self.dice.randint(1, 5)):
            self.sent += 1
            await add(self.redis, f"t{self.dice.randrange(4)}.u{self.dice.randrange(3)}.{self.sent}")

    async def poll(self) -> None:
        await self._take("poll", self.dice.randint(1, 4))

    async def take_over(self) -> None:
        await self._take("take_over", 3)

    async def _take(self, method: str, count: int) -> None:
        name = self.dice.choice(sorted(self.workers))
        try:
            entries = await getattr(self.workers[name], method)(count)
        except LostError:
            return
        assert len(entries) <= count
        for entry, job in zip(entries, names(entries), strict=True):
            assert job not in self.ended
            assert not any(job in jobs for jobs in self.held.values()), "run twice"
            self.held[name][job] = entry

    async def collect(self) -> None:
        name = self.dice.choice(sorted(self.workers))
        with suppress(LostError):
            await self.workers[name].collect()

    async def end(self) -> None:
        """As the consumer does it: the same again until it succeeds, unless the process dies."""
        name = self.dice.choice(sorted(self.workers))
        if not self.held[name]:
            return
        job, entry = self.held[name].popitem()
        outcome = self.dice.choice(["acknowledge", "acknowledge", "requeue", "dead_letter"])
        for _ in range(self.dice.randint(1, 30)):
            try:
                await self._settle(self.workers[name], entry, outcome)
            except LostError:
                continue
            break
        else:
            await self._die(name)
        if not await self.redis.xrange(KEY, entry.id, entry.id) and outcome != "requeue":
            self.ended[job] += 1

    async def _settle(self, worker: FairQueue, entry: Entry, outcome: str) -> None:
        if outcome == "acknowledge":
            await worker.acknowledge(entry.id)
        elif outcome == "requeue":
            await worker.requeue(entry)
        else:
            await worker.dead_letter(entry, "a reason")

    async def kill(self) -> None:
        await self._die(self.dice.choice(sorted(self.workers)))

    async def _die(self, name: str) -> None:
        """All that the process had is gone, and its leases expire at once."""
        del self.workers[name], self.held[name]
        if mine := [job for job, whose in (await pending(self.redis)).items() if whose == name.encode()]:
            await self.redis.xclaim(KEY, wire.GROUP, name, 0, mine, idle=LEASE * 1000, justid=True)
        self.start_worker()

    async def check(self) -> None:
        """No tenant or user has more than its maximum, whatever was lost."""
        who = await pending(self.redis)
        entries: Any = await self.redis.xrange(KEY)
        claimed = [
            names([fair_queue.entries_of([found])[0]])[0].split(".")
            for found in entries
            if who.get(found[0], ROOM) != ROOM
        ]
        assert max(Counter(tenant for tenant, _, _ in claimed).values(), default=0) <= 3
        assert max(Counter((tenant, user) for tenant, user, _ in claimed).values(), default=0) <= 2

    async def finish(self) -> None:
        """Without further failures everything comes to its end, and nothing is left."""
        self.risk = 0.0

        async def is_over() -> bool:
            await self.take_over()
            for name in list(self.workers):
                self.held[name] |= {
                    job: entry for entry in await self.workers[name].poll(4) for job in names([entry])
                }
                for job, entry in self.held[name].items():
                    await self.workers[name].acknowledge(entry.id)
                    self.ended[job] += 1
                self.held[name].clear()
            await self.check()
            return not await self.redis.xlen(KEY) and not await room(self.redis)

        await until(is_over)
        assert len(self.ended) == self.sent
        assert set(self.ended.values()) <= {1}


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as opened:
        yield opened


@pytest.mark.parametrize("seed", range(tiers.amount(3, 400)))
async def test_no_job_is_lost_or_run_twice_and_no_maximum_exceeded(
    redis: Redis, redis_url: str, stack: AsyncExitStack, seed: int
) -> None:
    machine = Machine(redis, redis_url, stack, seed)
    await redis.xgroup_create(KEY, wire.GROUP, id="0", mkstream=True)
    for _ in range(3):
        machine.start_worker()
    for _ in range(STEPS):
        await machine.step()
    assert machine.sent > 20
    await machine.finish()


@pytest.mark.parametrize("binary", BINARIES)
async def test_a_restart_of_redis_leaves_turns_and_maxima_as_they_were(binary: str) -> None:
    with redis_servers.RedisServer(BINARIES[binary], "--appendonly", "yes") as server:
        async with AsyncExitStack() as opened:
            redis, reader = clients.connect(server.url), clients.connect_reader(server.url)
            opened.push_async_callback(redis.aclose)
            opened.push_async_callback(reader.aclose)
            queue = FairQueue(redis, reader, queue="q", consumer="us", lease=LEASE, shares=SHARES)
            await queue.prepare()
            await add(redis, "a.x.1 a.x.2 a.x.3 a.y.1 a.z.1 b.x.1")
            first = await queue.poll(4)
            assert names(first) == ["a.x.1", "b.x.1", "a.y.1", "a.z.1"]
            server.kill()
            server.start()
            with pytest.raises(LostError):
                await queue.poll(4)
            assert await queue.poll(4) == []
            assert await queue.renew([entry.id for entry in first]) == set()
            await queue.acknowledge(first[0].id)
            assert names(await queue.poll(4)) == ["a.x.2"]
