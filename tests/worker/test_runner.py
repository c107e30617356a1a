"""One job's way from the claim to its end, over real Redis and a real database."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from protocol import wire
from protocol.stream import FAILED_TEXT, Job, Turn
from worker.attempts import Policy
from worker.backoff import Backend
from worker.cancels import CancelFlags
from worker.consumer import REDIS_DOWN
from worker.providers import base
from worker.providers.scripted import Scripted
from worker.reply import Decision, encode_decision
from worker.runner import Control, Outcome, Runner, Stop
from worker.store import RefusedError, UnavailableError
from worker.token_log import Token, TokenLog

from .support import END, PATIENT, STARTED, WAIT, Ears, Puppet, eventually, keys, logged, make_job

if TYPE_CHECKING:
    from pathlib import Path

    from redis.asyncio import Redis

    from worker.store import Store

JOB = make_job()
MESSAGE, LOG, ACTIVE = keys(JOB)


class Stage:
    """Runners over the same Redis and database, and what they left there."""

    def __init__(self, redis: Redis, store: Store, path: Path) -> None:
        self.redis = redis
        self.store = store
        self._path = path

    def runner(self, provider: base.Provider, retries: int = 0, time_limit: float = WAIT) -> Runner:
        return Runner(
            messages=TokenLog(self.redis, tries=2, retention=3600),
            flags=CancelFlags(self.redis),
            store=self.store,
            provider=provider,
            policy=Policy(PATIENT, retries),
            redis=Backend("Redis", REDIS_DOWN),
            database=Backend("the database", (UnavailableError,)),
            timeout=time_limit,
        )

    async def answer(self, provider: base.Provider, job: Job = JOB, **options: Any) -> Outcome:
        async with asyncio.timeout(WAIT):
            return await self.runner(provider, **options).run(job, Control())

    async def state(self) -> str:
        return (await self.redis.hget(MESSAGE, "state") or b"").decode()

    def turns(self) -> list[tuple[str, str, str]]:
        """Role, content and status of every row."""
        with sqlite3.connect(self._path) as connection:
            rows = connection.execute("SELECT role, content, status FROM messages ORDER BY id").fetchall()
        connection.close()
        return rows


@pytest.fixture
def stage(redis: Redis, store: Store, tmp_path: Path) -> Stage:
    return Stage(redis, store, tmp_path / "turns.db")


def spoken(*texts: str) -> list[base.Event]:
    return [STARTED, *map(base.Text, texts), END]


async def append_under_a_dead_claim(redis: Redis, *texts: str, decision: bytes = b"") -> None:
    """What a worker that crashed in the middle leaves."""
    message = TokenLog(redis, tries=2, retention=3600).open(JOB, "dead")
    await message.claim()
    await message.append([Token(index, text, b"{}") for index, text in enumerate(texts)])
    if decision:
        await message.decide(decision)


async def test_reply_is_streamed_persisted_and_completed(stage: Stage) -> None:
    puppet = Puppet(*spoken("Hel", "lo"))
    job = make_job(history=(Turn("user", "before"), Turn("assistant", "answer")))
    async with Ears(stage.redis, job) as ears:
        assert await stage.answer(puppet, job) is Outcome.DONE
        await ears.all()
    assert [event for event, _ in ears.heard] == [
        "stream.started",
        "token.received",
        "token.received",
        "stream.completed",
    ]
    assert ears.tokens == await logged(stage.redis, job) == ["Hel", "lo"]
    assert ears.heard[-1][1]["totalTokens"] == 2
    assert ears.heard[-1][1]["usage"]["input"] == 3
    assert stage.turns() == [("user", "Hello", "complete"), ("assistant", "Hello", "complete")]
    assert puppet.asked == [base.Request("Hello", job.history)]
    assert await stage.state() == "complete"
    assert await stage.redis.smembers(ACTIVE) == set()


async def test_persisted_before_the_terminal_event(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the database is down there is no terminal event; once it is back, all is well."""
    save, refused = stage.store.save, asyncio.Event()
    down = True

    async def failing_save(job: Job, text: str, decision: Decision) -> None:
        if down:
            refused.set()
            raise UnavailableError("down")
        await save(job, text, decision)

    monkeypatch.setattr(stage.store, "save", failing_save)
    async with Ears(stage.redis, JOB) as ears:
        task = asyncio.create_task(stage.answer(Puppet(*spoken("a"))))
        async with asyncio.timeout(WAIT):
            await refused.wait()
        await ears.all()
        assert (ears.tokens, ears.ends, await stage.state()) == (["a"], [], "streaming")
        down = False
        assert await task is Outcome.DONE
        await ears.all()
    assert ears.ends == ["stream.completed"]
    assert len(stage.turns()) == 2


@pytest.mark.parametrize("fault", [RefusedError("value too long"), OverflowError("too large")])
async def test_turns_that_can_never_be_persisted_end_as_failed(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fault: Exception
) -> None:
    """Neither retried for ever nor told as complete. The log has a traceback only for faults of our own."""

    async def refuse(*_: object) -> None:
        raise fault

    monkeypatch.setattr(stage.store, "save", refuse)
    async with Ears(stage.redis, JOB) as ears:
        assert await stage.answer(Puppet(*spoken("a"))) is Outcome.UNSAVED
        await ears.all()
    failed = ears.heard[-1][1]
    assert (ears.ends, failed["code"], failed["partial"]) == (["stream.failed"], "internal", True)
    assert await stage.state() == "failed"
    assert "reply m1: " in caplog.text
    assert str(fault) in caplog.text
    assert ("Traceback" in caplog.text) is isinstance(fault, OverflowError)


@pytest.mark.parametrize("earlier_claims", [0, 5])
async def test_takeover_of_turns_that_can_never_be_persisted_ends_them(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, earlier_claims: int
) -> None:
    """The decision is in the log, however often it was claimed: without an end, it goes round for ever."""

    async def refuse(*_: object) -> None:
        raise OverflowError

    monkeypatch.setattr(stage.store, "save", refuse)
    await append_under_a_dead_claim(stage.redis, "a", decision=encode_decision(Decision(state="cancelled")))
    await stage.redis.hincrby(MESSAGE, "attempt", earlier_claims)
    async with Ears(stage.redis, JOB) as ears:
        assert await stage.answer(Puppet()) is Outcome.UNSAVED
        await ears.all()
    assert (ears.ends, await stage.state()) == (["stream.cancelled"], "cancelled")


@pytest.mark.parametrize(
    ("script", "code", "count"),
    [
        ("fail=overloaded@0", "overloaded", 0),
        ("fail=overloaded@3", "overloaded", 3),
        ("fail=disconnect@3", "interrupted", 3),
        ("fail=eof@3", "interrupted", 3),
        ("fail=refusal@0", "refusal", 0),
        ("fail=refusal@3", "refusal", 3),
        ("tokens=0", "empty", 0),
    ],
)
async def test_failure_is_told_once_and_never_persisted_as_a_normal_turn(
    stage: Stage, script: str, code: str, count: int
) -> None:
    async with Ears(stage.redis, JOB) as ears:
        job = make_job(f"#script tokens=5 rate=0 {script}")
        assert await stage.answer(Scripted(), job) is Outcome.DONE
        await ears.all()
    assert len(ears.tokens) == count
    assert ears.ends == ["stream.failed"]
    failed = ears.heard[-1][1]
    assert (failed["error"], failed["partial"], failed["code"]) == (FAILED_TEXT, count > 0, code)
    assert stage.turns()[1] == ("assistant", "".join(ears.tokens), "failed")
    assert await stage.redis.hget(MESSAGE, "error") == FAILED_TEXT.encode()


async def test_fault_of_our_own_still_ends_the_reply_for_the_user(stage: Stage) -> None:
    class Broken(Puppet):
        async def stream(self, request: base.Request) -> Any:
            yield base.Started(request.message)
            raise ZeroDivisionError

    async with Ears(stage.redis, JOB) as ears:
        assert await stage.answer(Broken()) is Outcome.DONE
        await ears.all()
    assert (ears.ends, ears.heard[-1][1]["code"]) == (["stream.failed"], "internal")


async def test_time_is_up(stage: Stage) -> None:
    puppet = Puppet(STARTED, base.Text("a"))
    async with Ears(stage.redis, JOB) as ears:
        assert await stage.answer(puppet, time_limit=0.1) is Outcome.DONE
        await ears.all()
    assert puppet.closed.is_set()
    assert (ears.tokens, ears.ends, ears.heard[-1][1]["code"]) == (["a"], ["stream.failed"], "timeout")


# Cancelling.


@pytest.mark.parametrize("flag", wire.cancel_flags("m1"))
async def test_cancelled_while_queued_by_a_flag_never_asks_the_model(stage: Stage, flag: str) -> None:
    puppet = Puppet(*spoken("a"))
    await stage.redis.set(flag, "1", ex=300)
    async with Ears(stage.redis, JOB) as ears:
        assert await stage.answer(puppet) is Outcome.DONE
        assert await ears.all() == [("stream.cancelled", {"messageId": "m1", "totalTokens": 0})]
    assert puppet.asked == []
    assert await stage.state() == "cancelled"


async def test_cancelled_while_queued_by_the_hash_never_asks_the_model(stage: Stage) -> None:
    puppet = Puppet(*spoken("a"))
    await stage.redis.hset(MESSAGE, "cancel", "1")
    async with Ears(stage.redis, JOB) as ears:
        await stage.answer(puppet)
        await ears.all()
    assert (ears.ends, puppet.asked) == (["stream.cancelled"], [])


@pytest.mark.parametrize("said", [[], [STARTED], [STARTED, base.Text("par"), base.Text("tial")]])
async def test_cancel_closes_the_request_of_a_silent_model_and_keeps_the_text(
    stage: Stage, said: list[base.Event]
) -> None:
    puppet, control = Puppet(*said), Control()
    texts = [event.text for event in said if isinstance(event, base.Text)]
    async with Ears(stage.redis, JOB) as ears, asyncio.timeout(WAIT):
        task = asyncio.create_task(stage.runner(puppet).run(JOB, control))
        await eventually(lambda: bool(puppet.asked))
        if texts:
            await ears.until("token.received")
        control.stop(Stop.CANCELLED)
        control.stop(Stop.TIMEOUT)
        await puppet.closed.wait()
        assert await task is Outcome.DONE
        await ears.all()
    assert ears.ends == ["stream.cancelled"]
    assert stage.turns()[1] == ("assistant", "".join(ears.tokens), "cancelled")
    assert await stage.state() == "cancelled"


async def test_cancel_in_the_hash_is_noticed_with_the_next_token(stage: Stage) -> None:
    puppet = Puppet(STARTED, base.Text("a"))
    async with Ears(stage.redis, JOB) as ears, asyncio.timeout(WAIT):
        task = asyncio.create_task(stage.runner(puppet).run(JOB, Control()))
        await ears.until("token.received")
        await stage.redis.hset(MESSAGE, "cancel", "1")
        puppet.says.put_nowait(base.Text("b"))
        assert await task is Outcome.DONE
        await ears.all()
    assert puppet.closed.is_set()
    assert ears.tokens == ["a", "b"]
    assert ears.ends == ["stream.cancelled"]


# Taking over.


async def test_takeover_of_an_untouched_message_runs_it(stage: Stage) -> None:
    await TokenLog(stage.redis, tries=2, retention=9).open(JOB, "dead").claim()
    async with Ears(stage.redis, JOB) as ears:
        await stage.answer(Puppet(*spoken("a")))
        await ears.all()
    assert ears.heard[0] == ("stream.started", {"messageId": "m1", "attempt": 2, "model": "puppet-1"})
    assert ears.ends == ["stream.completed"]


async def test_takeover_in_the_middle_fails_as_interrupted_with_the_text_kept(stage: Stage) -> None:
    await append_under_a_dead_claim(stage.redis, "par", "tial")
    puppet = Puppet(*spoken("x"))
    async with Ears(stage.redis, JOB) as ears:
        assert await stage.answer(puppet) is Outcome.DONE
        await ears.all()
    assert puppet.asked == []
    assert ears.ends == ["stream.failed"]
    assert (ears.heard[-1][1]["partial"], ears.heard[-1][1]["code"]) == (True, "interrupted")
    assert stage.turns()[1] == ("assistant", "partial", "failed")


@pytest.mark.parametrize(
    ("decision", "end"),
    [
        (Decision("end_turn", END.usage, "puppet-1"), "stream.completed"),
        (Decision(state="failed", code="overloaded"), "stream.failed"),
        (Decision(state="cancelled"), "stream.cancelled"),
    ],
)
@pytest.mark.parametrize("earlier_claims", [0, 5])
async def test_takeover_after_the_decision_carries_it_out_without_the_model(
    stage: Stage, decision: Decision, end: str, earlier_claims: int
) -> None:
    """However often it was claimed: the work is done."""
    await append_under_a_dead_claim(stage.redis, "wh", "ole", decision=encode_decision(decision))
    await stage.redis.hincrby(MESSAGE, "attempt", earlier_claims)
    puppet = Puppet(*spoken("x"))
    async with Ears(stage.redis, JOB) as ears:
        assert await stage.answer(puppet) is Outcome.DONE
        await ears.all()
    assert puppet.asked == []
    assert ears.ends == [end]
    assert stage.turns()[1] == ("assistant", "whole", decision.state)


async def test_crash_between_persisting_and_telling_is_completed_without_a_second_row(stage: Stage) -> None:
    decision = Decision("end_turn", END.usage, "puppet-1")
    await append_under_a_dead_claim(stage.redis, "whole", decision=encode_decision(decision))
    await stage.store.save(JOB, "whole", decision)
    await stage.answer(Puppet())
    assert len(stage.turns()) == 2
    assert await stage.state() == "complete"


async def test_finished_message_is_done_without_a_second_end(stage: Stage) -> None:
    await stage.answer(Puppet(*spoken("a")))
    puppet = Puppet(*spoken("b"))
    async with Ears(stage.redis, JOB) as ears:
        assert await stage.answer(puppet) is Outcome.DONE
        assert await ears.all() == []
    assert puppet.asked == []


async def test_job_claimed_too_often_is_given_up_with_its_terminal_event(stage: Stage) -> None:
    log = TokenLog(stage.redis, tries=2, retention=9)
    await log.open(JOB, "dead").claim()
    await log.open(JOB, "dead too").claim()
    puppet = Puppet(*spoken("a"))
    async with Ears(stage.redis, JOB) as ears:
        assert await stage.answer(puppet) is Outcome.GIVEN_UP
        await ears.all()
    assert puppet.asked == []
    assert (ears.ends, ears.heard[-1][1]["code"]) == (["stream.failed"], "interrupted")


async def test_zombie_stops_writing_and_leaves_the_end_to_the_new_owner(stage: Stage) -> None:
    zombie = Puppet(STARTED, base.Text("a"))
    async with Ears(stage.redis, JOB) as ears, asyncio.timeout(WAIT):
        task = asyncio.create_task(stage.runner(zombie).run(JOB, Control()))
        await ears.until("token.received")
        assert await stage.answer(Puppet()) is Outcome.DONE
        for event in (base.Text("b"), END):
            zombie.says.put_nowait(event)
        assert await task is Outcome.FENCED
        await ears.all()
    assert (ears.tokens, ears.ends) == (["a"], ["stream.failed"])
    assert zombie.closed.is_set()


# Draining.


@pytest.mark.parametrize("said", [[], [STARTED]])
async def test_drained_before_any_text_is_handed_back_as_if_new(stage: Stage, said: list[base.Event]) -> None:
    puppet, control = Puppet(*said), Control()
    async with asyncio.timeout(WAIT):
        task = asyncio.create_task(stage.runner(puppet).run(JOB, control))
        await eventually(lambda: bool(puppet.asked))
        control.stop(Stop.DRAIN)
        assert await task is Outcome.HANDED_BACK
    assert puppet.closed.is_set()
    assert await stage.redis.hget(MESSAGE, "attempt") == b"0"
    assert await stage.state() == "queued"


async def test_drained_in_the_middle_is_left_to_another_worker_without_an_end(stage: Stage) -> None:
    puppet, control = Puppet(STARTED, base.Text("a")), Control()
    async with Ears(stage.redis, JOB) as ears, asyncio.timeout(WAIT):
        task = asyncio.create_task(stage.runner(puppet).run(JOB, control))
        await ears.until("token.received")
        control.stop(Stop.DRAIN)
        assert await task is Outcome.LEFT
        await ears.all()
    assert (ears.ends, await stage.state()) == ([], "streaming")


async def test_cancelling_the_task_closes_the_request_and_writes_nothing_more(stage: Stage) -> None:
    puppet = Puppet(STARTED, base.Text("a"))
    async with Ears(stage.redis, JOB) as ears, asyncio.timeout(WAIT):
        task = asyncio.create_task(stage.runner(puppet).run(JOB, Control()))
        await ears.until("token.received")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await ears.all()
    assert puppet.closed.is_set()
    assert ears.ends == []


async def test_fast_model_meets_back_pressure_and_every_token_arrives_in_order(stage: Stage) -> None:
    job = make_job("#script tokens=2000 rate=0")
    async with Ears(stage.redis, job) as ears:
        await stage.answer(Scripted(), job)
        await ears.all()
    assert ears.tokens == await logged(stage.redis, job) == [f"w{index} " for index in range(2000)]
