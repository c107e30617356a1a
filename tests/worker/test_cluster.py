"""JobQueue, the token log and what workers say of themselves, once more: on a Redis Cluster."""

from __future__ import annotations

import pytest

from legato.protocol.jobs import encode_job
from legato.worker.jobs import backlog
from legato.worker.jobs.dead_letters import DeadLetters
from legato.worker.replies.reply import Decision
from legato.worker.replies.titles import Titles
from legato.worker.supervisor.directory import Status, WorkerDirectory
from tests.worker.jobs.test_cancels import *  # noqa: F403 - its tests, as they are
from tests.worker.jobs.test_cancels import _patience  # noqa: F401
from tests.worker.jobs.test_jobs import *  # noqa: F403
from tests.worker.jobs.test_jobs import _short_block  # noqa: F401
from tests.worker.replies.test_token_log import *  # noqa: F403
from tests.worker.support import Ears, make_job


@pytest.fixture
def redis_url(redis_cluster):
    """Instead of one server, for everything in this module."""
    return redis_cluster.url


async def test_scripts_return_after_the_server_forgot_them(log, redis, redis_cluster):
    message = await claimed(log)  # noqa: F405
    redis_cluster.forget_scripts()
    await message.append(tokens("a"))  # noqa: F405
    assert await logged(redis, JOB) == ["a"]  # noqa: F405


async def test_workers_are_seen_paused_and_drained(redis):
    workers = WorkerDirectory(redis)
    processes = [Status(f"w{n}", "process", "host", n, (f"q{n}",), 0) for n in range(9)]
    for process in processes:
        await workers.register(process.queues)
        assert await workers.report(process) == (frozenset(), False)
    assert len(await workers.workers()) == 9
    assert await workers.queues() == [f"q{n}" for n in range(9)]
    await workers.pause(["q1", "q2"])
    await workers.drain([process.id for process in processes])
    assert await workers.report(processes[3]) == (frozenset({"q1", "q2"}), True)
    await workers.resume(())
    await workers.unregister("w3")
    assert await workers.paused() == {}
    assert len(await workers.workers()) == 8


async def test_dead_letters_of_many_queues_come_back(redis):
    for queue in (f"q{n}" for n in range(9)):
        dead = DeadLetters(redis, queue)
        body = encode_job(make_job(queue))
        await redis.xadd(wire.dead_key(queue), {wire.JOB_FIELD: body, "reason": "x"})  # noqa: F405
        (letter,) = await dead.newest(10)
        assert await dead.revive(letter, anew=False) == "queued"
        assert (await backlog.measure(redis, queue)).waiting == 1
        assert await dead.purge() == 0


async def test_titles_are_heard_by_their_users(redis, store):
    titles = Titles(redis, store)
    for user in range(9):
        job = make_job("Hello", f"m{user}", user_id=user, conversation_id=f"c{user}")
        async with Ears(redis, job) as ears:
            titles.made(job, "x", await store.save(job, "x", Decision("end_turn")))
            await ears.until("conversation.changed")
    await titles.aclose()
