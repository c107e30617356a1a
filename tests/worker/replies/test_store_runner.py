"""What the store means for a reply: the history it is answered with, and a database that goes away."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from legato.protocol.jobs import Turn
from legato.worker.replies.reply import Decision
from legato.worker.replies.runner import Control, Outcome
from legato.worker.store.conversations import HistoryLimits, Store
from tests.database_servers import Postgres
from tests.waiting import WAIT, until
from tests.worker.replies.test_runner import Stage, spoken
from tests.worker.store.test_store import rows
from tests.worker.support import Ears, Puppet, make_job

if TYPE_CHECKING:
    from pathlib import Path

    from redis.asyncio import Redis

DONE = Decision("end_turn")


@pytest.fixture
def stage(redis: Redis, store: Store, tmp_path: Path) -> Stage:
    return Stage(redis, store, tmp_path / "turns.db")


async def test_conversation_is_told_to_the_model(stage: Stage) -> None:
    for number, message in enumerate(("Hello", "And then?")):
        puppet = Puppet(*spoken(f"answer {number}"))
        job = make_job(message, f"m{number}", conversation_id="c1")
        assert await stage.answer(puppet, job) is Outcome.DONE
    assert (puppet.asked[0].message, puppet.asked[0].history) == (
        "And then?",
        (Turn("user", "Hello"), Turn("assistant", "answer 0")),
    )


async def test_readers_are_told_of_a_conversation_that_is_too_long(stage: Stage, tmp_path: Path) -> None:
    stage.store = Store(f"sqlite:///{tmp_path}/turns.db", limits=HistoryLimits(turns=2))
    cut: list[bool] = []
    for number in range(3):
        job = make_job(f"question {number}", f"m{number}", conversation_id="c1")
        async with Ears(stage.redis, job) as ears:
            assert await stage.answer(Puppet(*spoken(f"answer {number}")), job) is Outcome.DONE
            await ears.all()
        cut.append(ears.heard[0][1].get("historyCut", False))
    assert cut == [False, False, True]
    await stage.store.aclose()


async def test_another_users_conversation_ends_as_failed_without_asking_the_model(stage: Stage) -> None:
    await stage.store.save(make_job("secret", "m0", conversation_id="c1"), "yes", DONE)
    puppet, job = Puppet(*spoken("x")), make_job(user_id="ann", conversation_id="c1")
    async with Ears(stage.redis, job) as ears:
        assert await stage.answer(puppet, job) is Outcome.DONE
        await ears.all()
    assert puppet.asked == []
    assert (ears.ends, ears.heard[-1][1]["code"]) == (["stream.failed"], "conversation_denied")
    assert [role for role, _, _ in stage.turns()] == ["user", "assistant", "user", "assistant"]


async def test_reply_waits_for_a_database_that_went_away_and_is_not_lost(
    redis: Redis, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A real server, stopped while the model speaks and started again later."""
    with Postgres() as server:
        url = server.database()
        store = Store(url)
        await store.prepare()
        stage = Stage(redis, store, tmp_path / "none")
        await store.save(make_job("Hello", "m0", conversation_id="c1"), "Hi", DONE)
        puppet, job = Puppet(*spoken("a")[:-1]), make_job(conversation_id="c1")
        async with Ears(redis, job) as ears:
            task = asyncio.create_task(stage.runner(puppet).run(job, Control()))
            await ears.until("token.received")
            server.kill()
            puppet.says.put_nowait(spoken()[-1])
            await until(lambda: "the database is unavailable, retrying" in caplog.text)
            await ears.all()
            assert (task.done(), ears.ends) == (False, [])
            await asyncio.to_thread(server.start)
            async with asyncio.timeout(WAIT):
                assert await task is Outcome.DONE
            await ears.all()
        assert ears.ends == ["stream.completed"]
        assert puppet.asked[0].history == (Turn("user", "Hello"), Turn("assistant", "Hi"))
        assert [row["content"] for row in await rows(url)] == ["Hello", "Hi", "Hello", "a"]
        await store.aclose()
