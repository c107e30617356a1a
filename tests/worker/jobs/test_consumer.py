"""The loop of a process: what it takes on, how it lets go, what it survives."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest.mock import Mock

import msgspec
import pytest

from legato.protocol import wire
from legato.protocol.redis.pipeline import LeanPipeline
from legato.worker import cli, config
from legato.worker import redis_clients as clients
from legato.worker.agents.loading import Agents
from legato.worker.jobs import consumer
from legato.worker.jobs import queue as jobs
from legato.worker.jobs.cancel import CancelFlags
from legato.worker.jobs.consumer import Consumer
from legato.worker.jobs.priority_queues import PriorityQueues
from legato.worker.jobs.queue import JobQueue
from legato.worker.providers import base
from legato.worker.providers.scripted import Scripted
from legato.worker.replies.stop import Control, StopReason
from legato.worker.store.conversations import DatabaseRefusedError, DatabaseUnavailableError
from legato.worker.supervisor.heartbeat import UNLIMITED, Heartbeat, RecyclingLimits
from tests import redis_servers
from tests.waiting import WAIT, until
from tests.worker.support import END, STARTED, Ears, Puppet, Stubborn, enqueue, keys, make_job

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection

    from redis.asyncio import Redis

    from legato.protocol.jobs import Job
    from legato.worker.replies.reply import Decision
    from legato.worker.store.conversations import Store

CANCEL_POLL = consumer.CANCEL_POLL_SECONDS
KEY = wire.jobs_key("q")
JOB = make_job()
MESSAGE, _, _ = keys(JOB)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "QUEUE_BLOCK_MS", 20)
    monkeypatch.setattr("legato.worker.jobs.priority_queues.QUEUE_BLOCK_MS", 20)
    monkeypatch.setattr(consumer, "CANCEL_POLL_SECONDS", 0.02)
    monkeypatch.setattr(consumer, "TAKE_OVER_SECONDS", 0.02)
    monkeypatch.setattr(consumer, "DRAIN_SETTLE_SECONDS", 5)


class Process(NamedTuple):
    """One worker process, as far as Redis can tell."""

    consumer: Consumer
    task: asyncio.Task[None]

    async def drained(self) -> None:
        self.consumer.drain()
        async with asyncio.timeout(WAIT):
            await self.task


@asynccontextmanager
async def process(
    url: str, store: Store, provider: base.Provider, name: str = "us", **limits: Any
) -> AsyncIterator[Process]:
    worker = config.Worker(**{"queue": "q", "drain_seconds": 0, **limits})
    patient = config.ProviderSettings(retries=0, no_token_seconds=2 * WAIT)  # silence stops no reply
    settings = config.Settings(worker=worker, provider=patient)
    async with AsyncExitStack() as stack:
        redis, reader = clients.connect(url), clients.connect_reader(url)
        stack.push_async_callback(redis.aclose)
        stack.push_async_callback(reader.aclose)
        queue = JobQueue(redis, reader, queue="q", consumer=name, lease=worker.lease)
        await queue.prepare()
        made = cli.compose(settings, redis, queue, store, provider, Agents({}))
        task = asyncio.create_task(made.run())
        yield Process(made, task)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def empty(redis: Redis) -> bool:
    return await redis.xlen(KEY) == 0


async def letters(redis: Redis) -> list[tuple[bytes, bytes]]:
    """The dead letters: job and reason."""
    entries: Any = await redis.xrange(wire.dead_key("q"))
    return [(fields[b"job"], fields[b"reason"]) for _, fields in entries]


async def test_job_of_another_program_is_answered_and_gone(
    redis: Redis, redis_url: str, store: Store
) -> None:
    """It knows the job's fields and nothing else of Legato."""
    text = (
        '{"message_id":"m1","app_id":"1","user_id":"ann","message":"#script tokens=2 rate=0","queued_at":1}'
    )
    async with Ears(redis, make_job(user_id="ann")) as ears:
        await redis.xadd(KEY, {"job": text})
        async with process(redis_url, store, Scripted()):
            await ears.until("stream.completed")
            await until(lambda: empty(redis))
    assert ears.tokens == ["w0 ", "w1 "]


async def test_another_program_chooses_the_channel_of_the_reply(
    redis: Redis, redis_url: str, store: Store
) -> None:
    text = (
        '{"message_id":"m1","app_id":"1","user_id":7,"message":"#script tokens=2 rate=0","queued_at":1,'
        '"channel":"presence-room.1","metadata":{"any":["thing"]}}'
    )
    async with Ears(redis, make_job(reply_channel="presence-room.1")) as ears:
        await redis.xadd(KEY, {"job": text})
        async with process(redis_url, store, Scripted()):
            await ears.until("stream.completed")
            await until(lambda: empty(redis))
    assert ears.tokens == ["w0 ", "w1 "]


BAD_CHANNEL = (
    '{"message_id":"m1","app_id":"1","user_id":7,"message":"Hi","queued_at":1,'
    '"channel":"private-encrypted-a"}'
)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"job": "nonsense"}, b"$: the body is not JSON"),
        ({"other": "x"}, b"$: the body is not JSON"),
        ({"job": "[]"}, b"$: Expected `object`, got `array`"),
        ({"job": '{"message_id":"m1"}'}, b"app_id: "),
        ({"job": b"\xff"}, b"$: the body is not JSON"),
        ({"job": BAD_CHANNEL}, b"channel: Expected a private or presence channel"),
    ],
)
async def test_what_is_no_job_goes_to_the_dead_letters_and_the_next_is_answered(
    redis: Redis, redis_url: str, store: Store, fields: dict[Any, Any], reason: bytes
) -> None:
    await redis.xadd(KEY, fields)
    await enqueue(redis, make_job("#script tokens=1 rate=0"))
    async with process(redis_url, store, Scripted()):
        await until(lambda: empty(redis))
    ((body, why),) = await letters(redis)
    assert (
        body == msgspec.to_builtins(fields.get("job", b"")).encode()
        if isinstance(fields.get("job", ""), str)
        else body == fields["job"]
    )
    assert why.startswith(reason)
    assert await redis.hget(MESSAGE, "state") == b"complete"


async def test_job_claimed_too_often_is_buried(redis: Redis, redis_url: str, store: Store) -> None:
    await redis.hset(MESSAGE, mapping={"attempt": "2", "state": "streaming"})
    await enqueue(redis, JOB)
    async with process(redis_url, store, Scripted()):
        await until(lambda: empty(redis))
    assert [reason for _, reason in await letters(redis)] == [b"claimed too often"]
    assert await redis.hget(MESSAGE, "state") == b"failed"


async def test_job_that_the_database_never_takes_is_buried_and_the_next_is_answered(
    redis: Redis, redis_url: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = store.save

    async def refuse(job: Job, text: str, decision: Decision) -> None:
        if job.message_id == "m1":
            raise DatabaseRefusedError("value too long")
        await save(job, text, decision)

    monkeypatch.setattr(store, "save", refuse)
    job, other = (make_job("#script tokens=1 rate=0", message_id) for message_id in ("m1", "m2"))
    await enqueue(redis, job)
    await enqueue(redis, other)
    async with process(redis_url, store, Scripted(), concurrency=1):
        await until(lambda: empty(redis))
    assert [reason for _, reason in await letters(redis)] == [b"not persisted"]
    assert await redis.hget(MESSAGE, "state") == b"failed"
    assert await redis.hget(keys(other)[0], "state") == b"complete"


async def test_chore_goes_on_after_an_error_that_nobody_foresaw(
    redis: Redis,
    redis_url: str,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """uvloop raises a bare RuntimeError where it writes to a connection that is being closed."""
    look, failed = CancelFlags.those_set, asyncio.Event()

    async def failing_once(self: CancelFlags, ids: Collection[str]) -> set[str]:
        if failed.is_set():
            return await look(self, ids)
        failed.set()
        raise RuntimeError("the handler is closed")

    puppet = Puppet(STARTED, base.Text("a"))
    await enqueue(redis, JOB)
    async with Ears(redis, JOB) as ears, process(redis_url, store, puppet):
        await ears.until("token.received")
        monkeypatch.setattr(CancelFlags, "those_set", failing_once)
        async with asyncio.timeout(WAIT):
            await failed.wait()
        await redis.set(wire.cancel_flags("m1")[0], "1")
        await ears.until("stream.cancelled")
    assert "reading cancel flags failed" in caplog.text
    assert "the handler is closed" in caplog.text


async def test_claiming_goes_on_after_an_error_that_nobody_foresaw(
    redis: Redis,
    redis_url: str,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    take_over, failed = JobQueue.take_over, asyncio.Event()

    async def failing_once(self: JobQueue, count: int) -> list[jobs.Entry]:
        if failed.is_set():
            return await take_over(self, count)
        failed.set()
        raise RuntimeError("the handler is closed")

    monkeypatch.setattr(JobQueue, "take_over", failing_once)
    await enqueue(redis, make_job("#script tokens=1 rate=0"))
    async with Ears(redis, JOB) as ears, process(redis_url, store, Scripted()):
        await ears.until("stream.completed")
    assert "claiming failed" in caplog.text


async def test_job_that_breaks_off_again_and_again_is_buried(
    redis: Redis, redis_url: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its hash is no hash, so no claim can ever be made: else it would go round for ever."""
    monkeypatch.setattr(consumer, "MAX_JOB_DELIVERIES", 3)
    await redis.set(MESSAGE, "not a hash")
    await enqueue(redis, JOB)
    async with process(redis_url, store, Scripted(), lease=0.1):
        await until(lambda: empty(redis))
    assert [reason for _, reason in await letters(redis)] == [b"broke off again and again"]


async def leave_behind(redis: Redis, reader: Redis) -> None:
    """A job whose process is dead, under a lease of 0.3 s."""
    dead = JobQueue(redis, reader, queue="q", consumer="dead", lease=0.3)
    await dead.prepare()
    await enqueue(redis, make_job("#script tokens=1 rate=0"))
    await dead.read(1)


async def test_queue_wait_and_takeovers_are_counted(
    redis: Redis, redis_url: str, reader: Redis, store: Store
) -> None:
    await leave_behind(redis, reader)
    await enqueue(redis, make_job("#script tokens=1 rate=0", "m2"))
    async with process(redis_url, store, Scripted(), lease=0.3) as worker:
        await until(lambda: empty(redis))
        counters = worker.consumer.counters
        assert (
            counters.handovers.takeovers,
            sum(counters.latencies.queue_wait.counts),
            counters.ended["complete"],
        ) == (1, 1, 2)


@pytest.mark.parametrize("flag", wire.cancel_flags("m1"))
async def test_flag_of_another_program_stops_a_silent_model(
    redis: Redis, redis_url: str, store: Store, flag: str
) -> None:
    puppet = Puppet(STARTED, base.Text("a"))
    await enqueue(redis, JOB)
    async with Ears(redis, JOB) as ears, process(redis_url, store, puppet):
        await ears.until("token.received")
        await redis.set(flag, "1", ex=300)
        await ears.until("stream.cancelled")
        assert puppet.closed.is_set()
        await until(lambda: empty(redis))


async def test_cancel_of_a_silent_model_is_noticed_by_the_very_next_look(
    redis: Redis, redis_url: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pause of 250 ms at most, then one round trip for all replies, and the request is told to close: far
    less than 500 ms. No clock is asked here; what counts is that nothing else stands between.
    """
    every, look, execute, stop = Consumer._every, CancelFlags.those_set, LeanPipeline.execute, Control.stop
    pauses: dict[str, float] = {}
    seen: list[str] = []

    async def noted_every(self: Consumer, seconds: float, action: Any, name: str) -> None:
        pauses[name] = seconds
        await every(self, seconds, action, name)

    async def noted_look(self: CancelFlags, ids: Collection[str]) -> set[str]:
        seen.append(f"look at {len(ids)}")
        return await look(self, ids)

    async def noted_execute(self: Any, *args: Any) -> Any:
        if [words[0] for words, _ in self.command_stack] == ["EXISTS"] * 12:
            seen.append("round trip")
        return await execute(self, *args)

    def noted_stop(self: Control, reason: StopReason) -> None:
        seen.append(reason.value)
        stop(self, reason)

    monkeypatch.setattr(Consumer, "_every", noted_every)
    puppet = Puppet(STARTED, base.Text("a"))
    async with Ears(redis, JOB) as ears, process(redis_url, store, puppet):
        await enqueue(redis, JOB)
        await ears.until("token.received")
        for number in range(5):
            await enqueue(redis, make_job(message_id=f"other{number}"))
        await until(lambda: len(puppet.asked) == 6)
        await redis.set(wire.cancel_flags("m1")[0], "1", ex=300)
        monkeypatch.setattr(CancelFlags, "those_set", noted_look)
        monkeypatch.setattr(LeanPipeline, "execute", noted_execute)
        monkeypatch.setattr(Control, "stop", noted_stop)
        await ears.until("stream.cancelled")
    seen = seen[: seen.index("cancelled") + 1]
    # A look may have begun before anybody noted it, and seen the flag.
    assert seen == ["look at 6", "round trip", "cancelled"][-len(seen) :]
    assert pauses["reading cancel flags"] == consumer.CANCEL_POLL_SECONDS
    assert CANCEL_POLL <= 0.25


async def test_reply_whose_request_does_not_close_keeps_its_place_after_its_end(
    redis: Redis, redis_url: str, store: Store
) -> None:
    puppet = Stubborn(STARTED, base.Text("a"))
    await enqueue(redis, JOB)
    async with Ears(redis, JOB) as ears, process(redis_url, store, puppet, concurrency=1) as worker:
        await ears.until("token.received")
        await redis.set(wire.cancel_flags("m1")[0], "1", ex=300)
        await ears.until("stream.cancelled")
        await until(lambda: empty(redis))
        await enqueue(redis, make_job(message_id="m2"))
        for _ in range(50):  # a free place would be taken meanwhile
            await redis.ping()
        assert (worker.consumer.running, worker.consumer.oldest, len(puppet.asked)) == (1, 0, 1)
        puppet.gives_in.set()
        await until(lambda: len(puppet.asked) == 2)
        assert worker.consumer.abandoned == worker.consumer.counters.abandoned == 0


async def test_request_that_does_not_close_is_left_and_its_process_is_worn(
    redis: Redis,
    redis_url: str,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(consumer, "MODEL_CLOSE_SECONDS", 0.05)
    puppet, other = Stubborn(STARTED, base.Text("a")), make_job(message_id="m2")
    await enqueue(redis, JOB)
    async with Ears(redis, JOB) as ears, process(redis_url, store, puppet, concurrency=1) as worker:
        us = worker.consumer
        await ears.until("token.received")
        for event in (STARTED, base.Text("b"), END):
            puppet.says.put_nowait(event)
        await enqueue(redis, other)
        await redis.set(wire.cancel_flags("m1")[0], "1", ex=300)
        await until(lambda: empty(redis))
        assert await redis.hget(keys(other)[0], "state") == b"complete"
        await until(lambda: us.running == 0)
        assert (us.abandoned, us.counters.abandoned) == (1, 1)
        assert "reply m1: the request to the model does not close, left open" in caplog.text
        worn = Heartbeat(
            Mock(), us, PriorityQueues({}), Mock(), RecyclingLimits(0, 0, abandoned=1)
        )._recycling_reason()
        assert worn == "1 of its requests to the model do not close"
        assert Heartbeat(Mock(), us, PriorityQueues({}), Mock(), UNLIMITED)._recycling_reason() == ""
        puppet.gives_in.set()
        await until(lambda: us.abandoned == 0)
        assert us.counters.abandoned == 1


async def test_loop_ends_though_a_request_does_not_close(
    redis: Redis, redis_url: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer, "DRAIN_SETTLE_SECONDS", 0.05)
    monkeypatch.setattr(consumer, "MODEL_CLOSE_SECONDS", 10 * WAIT)
    puppet = Stubborn(STARTED, base.Text("a"))
    await enqueue(redis, JOB)
    async with Ears(redis, JOB) as ears, asyncio.timeout(WAIT):
        async with process(redis_url, store, puppet):
            await ears.until("token.received")
        await puppet.refused.wait()
    puppet.gives_in.set()


async def test_age_of_the_oldest_claim_stands_still_while_there_is_only_waiting_to_do(
    redis: Redis, redis_url: str, store: Store
) -> None:
    """Nobody shall be killed for a database or a Redis that is down."""
    puppet = Puppet(STARTED, base.Text("a"))
    async with Ears(redis, JOB) as ears, process(redis_url, store, puppet) as worker:
        us = worker.consumer
        assert us.oldest == 0
        await enqueue(redis, JOB)
        await ears.until("token.received")
        before = us.oldest
        await until(lambda: us.oldest > before + 0.05)
        database = us._runner.database
        least = us.oldest
        database.failed(DatabaseUnavailableError("down"))
        then, most = time.monotonic(), us.oldest
        await until(lambda: time.monotonic() > then + 0.2)
        assert least - 0.1 < us.oldest < most + 0.1  # several clocks are read, not in one moment
        database.answered()
        assert us.oldest < most + time.monotonic() - then - 0.1
        await until(lambda: us.oldest > most + 0.05)


async def test_no_more_replies_at_once_than_allowed(
    redis: Redis, redis_url: str, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    puppet = Puppet()
    for number in range(5):
        await enqueue(redis, make_job(message_id=f"m{number}"))
    async with process(redis_url, store, puppet, concurrency=2):
        await until(lambda: len(puppet.asked) == 2)
        pending: Any = await redis.xpending(KEY, wire.GROUP)
        assert pending["pending"] == 2
        for event in (STARTED, base.Text("a"), END):  # whoever gets them, one reply at least goes on
            puppet.says.put_nowait(event)
            puppet.says.put_nowait(event)
        await until(lambda: len(puppet.asked) > 2)
    assert "Redis is unavailable" not in caplog.text


async def test_job_of_a_dead_process_is_taken_over_when_its_lease_is_out(
    redis: Redis, redis_url: str, reader: Redis, store: Store
) -> None:
    await leave_behind(redis, reader)
    async with Ears(redis, JOB) as ears, process(redis_url, store, Scripted(), lease=0.3):
        await ears.until("stream.completed")
        await until(lambda: empty(redis))


async def test_lease_is_renewed_while_a_reply_runs(
    redis: Redis, redis_url: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much of it is used up, it is soon new again, and who looks for expired ones gets nothing."""
    monkeypatch.setattr(consumer, "RENEWALS_PER_LEASE", 100_000)
    puppet, rival = Puppet(STARTED, base.Text("a")), Puppet()
    entry = await enqueue(redis, JOB)

    async def renewed() -> bool:
        (pending,) = await redis.xpending_range(KEY, wire.GROUP, "-", "+", 1)
        return bool(pending["consumer"] == b"us" and pending["time_since_delivered"] < 1_000_000)

    async with Ears(redis, JOB) as ears, process(redis_url, store, puppet, lease=3600):
        await ears.until("token.received")
        async with process(redis_url, store, rival, "them", lease=3600):
            for _ in range(3):
                await redis.xclaim(KEY, wire.GROUP, "us", 0, [entry], idle=3_000_000, justid=True)
                await until(renewed)
            puppet.says.put_nowait(END)
            await ears.until("stream.completed")
    assert rival.asked == []


async def test_reply_whose_job_another_has_is_stopped_without_an_end(
    redis: Redis, redis_url: str, store: Store
) -> None:
    puppet = Puppet(STARTED, base.Text("a"))
    entry = await enqueue(redis, JOB)
    async with Ears(redis, JOB) as ears, process(redis_url, store, puppet, lease=0.3):
        await ears.until("token.received")
        await redis.xclaim(KEY, wire.GROUP, "them", 0, [entry])
        async with asyncio.timeout(WAIT):
            await puppet.closed.wait()
        await ears.all()
    assert ears.ends == []


async def test_own_job_whose_lease_ran_out_unnoticed_is_not_answered_twice(
    redis: Redis, redis_url: str, store: Store
) -> None:
    puppet = Puppet(STARTED, base.Text("a"))
    entry = await enqueue(redis, JOB)

    async def taken_back() -> bool:
        (pending,) = await redis.xpending_range(KEY, wire.GROUP, "-", "+", 1)
        return bool(pending["time_since_delivered"] < 60_000)

    async with Ears(redis, JOB) as ears, process(redis_url, store, puppet):
        await ears.until("token.received")
        await redis.xclaim(KEY, wire.GROUP, "us", 0, [entry], idle=60_000)
        await until(taken_back)
        puppet.says.put_nowait(END)
        await ears.until("stream.completed")
        await until(lambda: empty(redis))
    assert len(puppet.asked) == 1
    assert await redis.hget(MESSAGE, "attempt") == b"1"


async def test_drain_lets_running_replies_end_and_claims_no_more(
    redis: Redis, redis_url: str, store: Store
) -> None:
    puppet = Puppet(STARTED, base.Text("a"))
    await enqueue(redis, JOB)
    async with (
        Ears(redis, JOB) as ears,
        process(redis_url, store, puppet, drain_seconds=WAIT, concurrency=1) as worker,
    ):
        await ears.until("token.received")
        worker.consumer.drain()
        await enqueue(redis, make_job(message_id="m2"))
        puppet.says.put_nowait(END)
        await worker.drained()
        await ears.all()
    assert ears.ends == ["stream.completed"]
    assert len(puppet.asked) == 1
    assert await redis.xlen(KEY) == 1
    assert await redis.xinfo_consumers(KEY, wire.GROUP) == []


async def test_drained_before_any_text_goes_to_another_process_at_once_as_a_first_attempt(
    redis: Redis, redis_url: str, store: Store
) -> None:
    """The lease is 30 s: were the job merely left, this would take that long."""
    puppet = Puppet()
    await enqueue(redis, JOB)
    async with Ears(redis, JOB) as ears:
        async with process(redis_url, store, puppet) as worker:
            await until(lambda: bool(puppet.asked))
            await worker.drained()
        async with process(redis_url, store, Puppet(STARTED, base.Text("a"), END), "them"):
            await ears.until("stream.completed")
    assert ears.heard[0][1]["attempt"] == 1


async def test_drained_in_the_middle_is_taken_over_at_once(
    redis: Redis, redis_url: str, store: Store
) -> None:
    puppet = Puppet(STARTED, base.Text("a"))
    await enqueue(redis, JOB)
    async with Ears(redis, JOB) as ears:
        async with process(redis_url, store, puppet) as worker:
            await ears.until("token.received")
            await worker.drained()
            await ears.all()
            assert ears.ends == []
        async with process(redis_url, store, Puppet(STARTED, base.Text("b"), END), "them"):
            await ears.until("stream.completed")
    assert ears.tokens == ["a", "b"]


async def test_cancelling_the_loop_closes_every_request(redis: Redis, redis_url: str, store: Store) -> None:
    puppet = Puppet(STARTED, base.Text("a"))
    await enqueue(redis, JOB)
    async with Ears(redis, JOB) as ears:
        async with process(redis_url, store, puppet):
            await ears.until("token.received")
        await ears.all()
    assert puppet.closed.is_set()
    assert ears.ends == []


async def test_redis_that_comes_back_empty_is_served_again(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """Group and scripts are gone; the loop makes them anew, and the log says both once."""
    caplog.set_level("INFO", "legato.worker")
    with redis_servers.RedisServer(redis_servers.binaries()["valkey"]) as server:
        async with process(server.url, store, Scripted()):
            server.kill()
            await until(lambda: "Redis is unavailable" in caplog.text)
            server.start()
            redis = clients.connect(server.url)
            await enqueue(redis, make_job("#script tokens=1 rate=0"))
            await until(lambda: empty(redis))
            assert await redis.hget(MESSAGE, "state") == b"complete"
            await redis.aclose()
    assert "Redis is back" in caplog.text


async def test_reply_goes_on_after_redis_was_frozen(redis: Redis, redis_url: str, store: Store) -> None:
    """Appends wait, nothing is lost or doubled."""
    job = make_job("#script tokens=300 rate=1000")
    await enqueue(redis, job)
    async with Ears(redis, job) as ears, process(redis_url, store, Scripted()):
        await ears.until("token.received")
        await redis.execute_command("CLIENT", "PAUSE", 300, "ALL")
        await ears.until("stream.completed")
    assert ears.tokens == [f"w{index} " for index in range(300)]
