"""One job's way from the claim to its end, over real Redis and a real database."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from typing import TYPE_CHECKING, Any

import pytest

from legato.protocol import wire
from legato.protocol.jobs import Job, Turn
from legato.protocol.redis.pipeline import RedisClient
from legato.protocol.redis.retry import Backend
from legato.protocol.stream import FAILED_TEXT, Usage, decode_begun
from legato.worker.jobs.cancel import CancelFlags
from legato.worker.jobs.consumer import REDIS_DOWN
from legato.worker.jobs.queue import Entry
from legato.worker.observability.counters import Counters
from legato.worker.providers import base
from legato.worker.providers.scripted import Scripted
from legato.worker.replies import overlap
from legato.worker.replies.log import Token, TokenLog
from legato.worker.replies.model import AttemptPolicy, Model
from legato.worker.replies.reply import Decision, encode_decision
from legato.worker.replies.runner import Outcome, Runner
from legato.worker.replies.stop import Control, StopReason
from legato.worker.store.conversations import DatabaseRefusedError, DatabaseUnavailableError
from tests.waiting import WAIT, until
from tests.worker.support import END, PATIENT, STARTED, Ears, Puppet, Stubborn, keys, logged, make_job

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from pathlib import Path

    from redis.asyncio import Redis

    from legato.worker.store.conversations import Store

JOB = make_job()
MESSAGE, LOG, ACTIVE = keys(JOB)
LOGGER = logging.getLogger("legato.worker")


class Stage:
    """Runners over the same Redis and database, and what they left there."""

    def __init__(self, redis: Redis, store: Store, path: Path) -> None:
        self.redis = redis
        self.store = store
        self.counters = Counters()
        self.path = path

    def runner(
        self, provider: base.Provider, time_limit: float = WAIT, tries: int = 2, **model: Any
    ) -> Runner:
        options = {"policy": AttemptPolicy(PATIENT, 0), **model}
        return Runner(
            messages=TokenLog(self.redis, tries=tries, retention=3600),
            flags=CancelFlags(self.redis),
            store=self.store,
            model=Model(provider=provider, provider_name="puppet", tries=tries, **options),
            redis=Backend("Redis", REDIS_DOWN, LOGGER),
            database=Backend("the database", (DatabaseUnavailableError,), LOGGER),
            timeout=time_limit,
            counters=self.counters,
        )

    async def answer(self, provider: base.Provider, job: Job = JOB, **options: Any) -> Outcome:
        async with asyncio.timeout(WAIT):
            return await self.runner(provider, **options).run(job, Control())

    async def state(self) -> str:
        return (await self.redis.hget(MESSAGE, "state") or b"").decode()

    def turns(self) -> list[tuple[str, str, str]]:
        """Role, content and status of every row."""
        with sqlite3.connect(self.path) as connection:
            rows = connection.execute("SELECT role, content, status FROM messages ORDER BY id").fetchall()
        connection.close()
        return rows


@pytest.fixture
def stage(redis: Redis, store: Store, tmp_path: Path) -> Stage:
    return Stage(redis, store, tmp_path / "turns.db")


def spoken(*texts: str) -> list[base.Event]:
    return [STARTED, *map(base.Text, texts), END]


async def append_under_a_dead_claim(
    redis: Redis, *texts: str, decision: bytes = b"", usage: bytes = b""
) -> None:
    """What a worker that crashed in the middle leaves."""
    message = TokenLog(redis, tries=2, retention=3600).open(JOB, "dead")
    await message.claim()
    await message.publish(b"", usage)
    await message.append([Token(index, text, b"{}") for index, text in enumerate(texts)])
    if decision:
        await message.decide(decision)


def ended(caplog: pytest.LogCaptureFixture) -> dict[str, Any]:
    """The fields of the line about the end of the reply."""
    (fields,) = [vars(record)["fields"] for record in caplog.records if record.msg == "reply ended"]
    return dict(fields)


async def test_reply_is_streamed_persisted_and_completed(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "legato.worker")
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
    begun = decode_begun(await stage.redis.hget(MESSAGE, "begun"))
    assert (begun.model, begun.provider, begun.attempt) == ("puppet-1", "puppet", 1)
    assert abs(begun.at - time.time()) < 60
    assert stage.turns() == [("user", "Hello", "complete"), ("assistant", "Hello", "complete")]
    assert puppet.asked == [base.ProviderRequest("Hello", job.history, message_id="m1")]
    assert await stage.state() == "complete"
    assert await stage.redis.smembers(ACTIVE) == set()
    told = ended(caplog)
    assert 0 <= told.pop("seconds") < 60
    assert told == {"reply": "m1", "state": "complete", "code": "end_turn", "tokens": 2}


async def test_short_reply_takes_three_round_trips(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each costs more than ten tokens. The model says all at once; the scripts are loaded."""
    await stage.answer(Puppet(*spoken("a")), make_job(message_id="before"))
    exchange, trips = RedisClient.exchange, list[list[str]]()

    async def counted(self: RedisClient, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        trips.append([words[0] for words in commands])
        return await exchange(self, commands)

    monkeypatch.setattr(RedisClient, "exchange", counted)
    assert await stage.answer(Puppet(*spoken("a", "b"))) is Outcome.DONE
    assert trips == [["EXISTS", "EXISTS", "EVALSHA"], ["EVALSHA"], ["EVALSHA"]]


async def test_persisted_before_the_terminal_event(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the database is down there is no terminal event; once it is back, all is well."""
    save, refused = stage.store.save, asyncio.Event()
    down = True

    async def failing_save(job: Job, text: str, decision: Decision) -> None:
        if down:
            refused.set()
            raise DatabaseUnavailableError("down")
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


@pytest.mark.parametrize("fault", [DatabaseRefusedError("value too long"), OverflowError("too large")])
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
        ("tokens=5 fail=overloaded@0", "overloaded", 0),
        ("tokens=5 fail=overloaded@3/always", "overloaded", 3),
        ("tokens=5 fail=disconnect@3/always", "interrupted", 3),
        ("tokens=5 fail=eof@3/always", "interrupted", 3),
        ("tokens=5 fail=refusal@0", "refusal", 0),
        ("tokens=5 fail=refusal@3", "refusal", 3),
        ("tokens=0", "empty", 0),
    ],
)
async def test_failure_is_told_once_and_never_persisted_as_a_normal_turn(
    stage: Stage, script: str, code: str, count: int
) -> None:
    async with Ears(stage.redis, JOB) as ears:
        job = make_job(f"#script rate=0 {script}")
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
        async def stream(self, request: base.ProviderRequest) -> Any:
            yield base.RequestAccepted(request.message)
            raise ZeroDivisionError

    async with Ears(stage.redis, JOB) as ears:
        assert await stage.answer(Broken()) is Outcome.DONE
        await ears.all()
    assert (ears.ends, ears.heard[-1][1]["code"]) == (["stream.failed"], "internal")


async def test_emoji_that_the_model_splits_is_whole_for_readers_and_in_the_database(stage: Stage) -> None:
    puppet = Puppet(*spoken("Hi \ud83d", "\ude00!", "\ude00", " bye \ud83d"))
    async with Ears(stage.redis, JOB) as ears:
        assert await stage.answer(puppet) is Outcome.DONE
        await ears.all()
    text = "Hi \U0001f600!\ufffd bye \ufffd"
    assert "".join(ears.tokens) == "".join(await logged(stage.redis, JOB)) == text
    assert ears.ends == ["stream.completed"]
    assert stage.turns()[1] == ("assistant", text, "complete")


async def test_text_behind_the_models_end_is_not_of_the_reply(stage: Stage) -> None:
    class Chatty(Puppet):
        async def stream(self, _request: base.ProviderRequest) -> AsyncGenerator[base.Event, None]:
            for event in (STARTED, base.Text("a"), END, base.Text("b")):
                yield event

    async with Ears(stage.redis, JOB) as ears:
        await stage.answer(Chatty())
        await ears.all()
    assert (ears.tokens, ears.heard[-1][1]["totalTokens"]) == (["a"], 1)
    assert stage.turns()[1] == ("assistant", "a", "complete")


async def test_what_no_reader_got_is_not_in_the_database(stage: Stage) -> None:
    """A fault of ours between two tokens that the model said together."""

    class Odd(base.Text):
        @property
        def text(self) -> str:  # type: ignore[override]
            raise ValueError

    gate = asyncio.Event()

    class Sudden(Puppet):
        async def stream(self, _request: base.ProviderRequest) -> AsyncGenerator[base.Event, None]:
            yield base.Text("read")
            await gate.wait()
            yield base.Text("unread")
            yield Odd("")

    async with Ears(stage.redis, JOB) as ears:
        task = asyncio.create_task(stage.answer(Sudden()))
        await ears.until("token.received")
        gate.set()
        assert await task is Outcome.DONE
        await ears.all()
    assert ears.tokens == await logged(stage.redis, JOB) == ["read"]
    assert ears.ends == ["stream.failed"]
    assert stage.turns()[1] == ("assistant", "read", "failed")


async def test_time_is_up(stage: Stage) -> None:
    puppet = Puppet(STARTED, base.Text("a"))
    async with Ears(stage.redis, JOB) as ears:
        assert await stage.answer(puppet, time_limit=0.5) is Outcome.DONE
        await ears.all()
    await until(puppet.closed.is_set)
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
    stage: Stage, said: list[base.Event], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "legato.worker")
    puppet, control = Puppet(*said), Control()
    texts = [event.text for event in said if isinstance(event, base.Text)]
    async with Ears(stage.redis, JOB) as ears, asyncio.timeout(WAIT):
        task = asyncio.create_task(stage.runner(puppet).run(JOB, control))
        await until(lambda: bool(puppet.asked))
        if texts:
            await ears.until("token.received")
        control.stop(StopReason.CANCELLED)
        control.stop(StopReason.TIMEOUT)
        await puppet.closed.wait()
        assert await task is Outcome.DONE
        await ears.all()
    assert ears.ends == ["stream.cancelled"]
    assert stage.turns()[1] == ("assistant", "".join(ears.tokens), "cancelled")
    assert await stage.state() == "cancelled"
    told = ended(caplog)
    assert (told["state"], told["code"], told["tokens"]) == ("cancelled", "", len(texts))


@pytest.mark.parametrize(
    ("reason", "end", "code"),
    [(StopReason.CANCELLED, "stream.cancelled", None), (StopReason.TIMEOUT, "stream.failed", "timeout")],
)
async def test_end_is_told_while_the_request_does_not_close(
    stage: Stage, reason: StopReason, end: str, code: str | None
) -> None:
    puppet, control = Stubborn(STARTED, base.Text("par"), base.Text("tial")), Control()
    async with Ears(stage.redis, JOB) as ears, asyncio.timeout(WAIT):
        task = asyncio.create_task(stage.runner(puppet).run(JOB, control))
        await ears.until("token.received")
        control.stop(reason)
        assert await task is Outcome.DONE
        await ears.all()
        assert (ears.ends, ears.heard[-1][1].get("code")) == ([end], code)
        assert control.request is not None
        assert not control.request.closed
        puppet.gives_in.set()
        assert await control.request.close(WAIT)
    assert "".join(ears.tokens) == "partial"
    assert stage.turns()[1][1] == "partial"


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


async def test_cancel_after_the_end_changes_nothing(stage: Stage) -> None:
    await stage.answer(Puppet(*spoken("a")))
    await stage.redis.hset(MESSAGE, "cancel", "1")
    await stage.redis.set(wire.cancel_flags("m1")[0], "1", ex=300)
    async with Ears(stage.redis, JOB) as ears:
        assert await stage.answer(Puppet(*spoken("b"))) is Outcome.DONE
        assert await ears.all() == []
    assert await stage.state() == "complete"


async def test_cancel_asked_for_twice_ends_it_once(stage: Stage) -> None:
    puppet, control = Puppet(STARTED, base.Text("a")), Control()
    async with Ears(stage.redis, JOB) as ears, asyncio.timeout(WAIT):
        task = asyncio.create_task(stage.runner(puppet).run(JOB, control))
        await ears.until("token.received")
        await stage.redis.hset(MESSAGE, "cancel", "1")
        control.stop(StopReason.CANCELLED)
        control.stop(StopReason.CANCELLED)
        assert await task is Outcome.DONE
        assert await stage.answer(Puppet()) is Outcome.DONE
        await ears.all()
    assert ears.ends == ["stream.cancelled"]
    assert stage.counters.ended == {"cancelled": 1}


# Taking over.


async def test_takeover_of_an_untouched_message_runs_it(stage: Stage) -> None:
    await TokenLog(stage.redis, tries=2, retention=9).open(JOB, "dead").claim()
    async with Ears(stage.redis, JOB) as ears:
        await stage.answer(Puppet(*spoken("a")))
        await ears.all()
    assert ears.heard[0] == ("stream.started", {"messageId": "m1", "attempt": 2, "model": "puppet-1"})
    assert ears.ends == ["stream.completed"]


async def test_takeover_in_the_middle_goes_on_from_the_next_index(stage: Stage) -> None:
    """The model gets the text so far; what it repeats is not told again; the first worker's use counts."""
    await append_under_a_dead_claim(stage.redis, "The quick ", "brown", usage=b'{"input":5,"cacheRead":1}')
    puppet = Puppet(*spoken("The quick", " brown fox", "."))
    async with Ears(stage.redis, JOB) as ears:
        assert await stage.answer(puppet) is Outcome.DONE
        await ears.all()
    assert puppet.asked == [
        base.ProviderRequest(
            "Hello", (), "The quick brown", overlap.continuation("The quick brown"), 2, message_id="m1"
        )
    ]
    assert await logged(stage.redis, JOB) == ["The quick ", "brown", " fox", "."]
    started, *tokens, completed = ears.heard
    assert started == ("stream.started", {"messageId": "m1", "attempt": 2, "model": "puppet-1"})
    assert [data["tokenIndex"] for _, data in tokens] == [2, 3]
    assert completed[0] == "stream.completed"
    assert completed[1]["totalTokens"] == 4
    assert completed[1]["usage"] == {"input": 8, "output": 2, "cacheRead": 1, "cacheWrite": 0}
    assert stage.turns()[1] == ("assistant", "The quick brown fox.", "complete")


async def test_takeover_in_the_middle_fails_where_nothing_is_to_go_on(stage: Stage) -> None:
    await append_under_a_dead_claim(stage.redis, "par", "tial")
    puppet = Puppet(*spoken("x"))
    async with Ears(stage.redis, JOB) as ears:
        assert await stage.answer(puppet, continues=False) is Outcome.DONE
        await ears.all()
    assert puppet.asked == []
    assert ears.ends == ["stream.failed"]
    assert (ears.heard[-1][1]["partial"], ears.heard[-1][1]["code"]) == (True, "interrupted")
    assert stage.turns()[1] == ("assistant", "partial", "failed")


async def test_marker_that_nobody_can_read_ends_as_failed_once(stage: Stage) -> None:
    await append_under_a_dead_claim(stage.redis, "a", decision=b"\xff nonsense")
    async with Ears(stage.redis, JOB) as ears:
        assert await stage.answer(Puppet()) is Outcome.DONE
        assert await stage.answer(Puppet()) is Outcome.DONE
        await ears.all()
    assert (ears.ends, ears.heard[-1][1]["code"]) == (["stream.failed"], "internal")


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
        assert await stage.answer(puppet) is Outcome.EXHAUSTED
        await ears.all()
    assert puppet.asked == []
    assert (ears.ends, ears.heard[-1][1]["code"]) == (["stream.failed"], "interrupted")


async def test_zombie_stops_writing_and_leaves_the_end_to_the_new_owner(stage: Stage) -> None:
    zombie = Puppet(STARTED, base.Text("a"))
    async with Ears(stage.redis, JOB) as ears, asyncio.timeout(WAIT):
        task = asyncio.create_task(stage.runner(zombie).run(JOB, Control()))
        await ears.until("token.received")
        assert await stage.answer(Puppet(*spoken("c"))) is Outcome.DONE
        for event in (base.Text("b"), END):
            zombie.says.put_nowait(event)
        assert await task is Outcome.FENCED
        await ears.all()
    assert (ears.tokens, ears.ends) == (["a", "c"], ["stream.completed"])
    assert zombie.closed.is_set()
    assert stage.counters.handovers.fenced == 1


async def test_worker_that_slept_before_its_claim_cannot_take_the_message_back(stage: Stage) -> None:
    """Redis gave it the job while it was stopped; the job was taken over; then it wakes and claims."""
    early, late = Entry(b"5-0", b""), Entry(b"5-0", b"", deliveries=2)
    owner = Puppet(STARTED, base.Text("a"))
    async with Ears(stage.redis, JOB) as ears, asyncio.timeout(WAIT):
        task = asyncio.create_task(stage.runner(owner).run(JOB, Control(), late.ticket))
        await ears.until("token.received")
        sleeper = Puppet(*spoken("x"))
        assert await stage.runner(sleeper).run(JOB, Control(), early.ticket) is Outcome.FENCED
        owner.says.put_nowait(END)
        assert await task is Outcome.DONE
        await ears.all()
    assert sleeper.asked == []
    assert (ears.tokens, ears.ends) == (["a"], ["stream.completed"])


# Going on.


@pytest.mark.parametrize("overlap", [0, 1, 3, 500])
@pytest.mark.parametrize("fault", ["disconnect", "eof", "overloaded", "hang"])
async def test_reply_that_the_provider_cut_off_goes_on_with_each_token_once(
    stage: Stage, fault: str, overlap: int
) -> None:
    job = make_job(f"#script tokens=300 rate=0 overlap={overlap} fail={fault}@120")
    policy = AttemptPolicy(base.Patience(WAIT, 0.3), 0)
    async with Ears(stage.redis, job) as ears:
        assert await stage.answer(Scripted(), job, policy=policy) is Outcome.DONE
        await ears.all()
    assert ears.tokens == await logged(stage.redis, job) == [f"w{index} " for index in range(300)]
    assert ears.ends == ["stream.completed"]
    started = [data["attempt"] for event, data in ears.heard if event == "stream.started"]
    assert started == [1, 2]
    assert (stage.counters.attempts, stage.counters.continued) == (2, 1)
    assert await stage.redis.hget(MESSAGE, "attempt") == b"2"


async def test_reply_that_is_cut_off_too_often_fails_with_its_text(stage: Stage) -> None:
    job = make_job("#script tokens=9 rate=0 fail=eof@3 fail=disconnect@5/2 fail=overloaded@7/3")
    async with Ears(stage.redis, job) as ears:
        await stage.answer(Scripted(), job)
        await ears.all()
    assert len(ears.tokens) == 5
    assert (ears.ends, ears.heard[-1][1]["code"]) == (["stream.failed"], "interrupted")
    assert ears.heard[-1][1]["partial"] is True


async def test_more_tries_go_on_more_often(stage: Stage) -> None:
    job = make_job("#script tokens=9 rate=0 fail=eof@3 fail=eof@5/2 fail=eof@5/3")
    async with Ears(stage.redis, job) as ears:
        await stage.answer(Scripted(), job, tries=4)
        await ears.all()
    assert (len(ears.tokens), ears.ends) == (9, ["stream.completed"])


async def test_what_will_not_get_better_in_the_middle_is_not_gone_on_with(stage: Stage) -> None:
    puppet = Puppet(STARTED, base.Text("a"), base.RequestRefusedError("no"))
    async with Ears(stage.redis, JOB) as ears:
        await stage.answer(puppet)
        await ears.all()
    assert (ears.ends, len(puppet.asked)) == (["stream.failed"], 1)


async def test_with_fail_a_cut_off_reply_fails(stage: Stage) -> None:
    job = make_job("#script tokens=9 rate=0 fail=disconnect@3")
    async with Ears(stage.redis, job) as ears:
        await stage.answer(Scripted(), job, continues=False)
        await ears.all()
    assert (len(ears.tokens), ears.ends) == (3, ["stream.failed"])
    assert ears.heard[-1][1]["code"] == "interrupted"


async def test_model_that_only_repeats_the_end_adds_nothing(stage: Stage) -> None:
    puppet = Puppet(STARTED, base.Text("That is all."), base.CutError("cut"), *spoken("That is all."))
    async with Ears(stage.redis, JOB) as ears:
        await stage.answer(puppet)
        await ears.all()
    assert (ears.tokens, ears.ends) == (["That is all."], ["stream.completed"])


async def test_cancel_while_waiting_to_go_on(stage: Stage) -> None:
    puppet, control = Puppet(STARTED, base.Text("a"), base.OverloadedError("no", retry_after=15)), Control()
    async with Ears(stage.redis, JOB) as ears, asyncio.timeout(WAIT):
        task = asyncio.create_task(stage.runner(puppet, time_limit=60).run(JOB, control))
        await until(lambda: stage.counters.continued == 1)
        control.stop(StopReason.CANCELLED)
        assert await task is Outcome.DONE
        await ears.all()
    assert (ears.tokens, ears.ends, len(puppet.asked)) == (["a"], ["stream.cancelled"], 1)


async def test_retry_after_beyond_the_time_left_ends_the_reply_at_once(stage: Stage) -> None:
    puppet = Puppet(STARTED, base.Text("a"), base.OverloadedError("no", retry_after=3600))
    async with Ears(stage.redis, JOB) as ears:
        await stage.answer(puppet)
        await ears.all()
    assert (ears.ends, ears.heard[-1][1]["code"]) == (["stream.failed"], "overloaded")


# What was used.


def spent(stage: Stage) -> tuple[int, int]:
    with sqlite3.connect(stage.path) as connection:
        query = "SELECT input_tokens, output_tokens FROM messages WHERE role = 'assistant'"
        (row,) = connection.execute(query).fetchall()
    connection.close()
    return row


async def test_use_is_summed_over_attempts(stage: Stage) -> None:
    used = base.Used(Usage(input=10, output=1))
    puppet = Puppet(STARTED, used, base.Text("a"), base.CutError("cut"), STARTED, used, base.Text("b"), END)
    await stage.answer(puppet)
    assert spent(stage) == (13, 3)
    assert stage.counters.used == {"puppet-1": Usage(input=13, output=3)}


async def test_use_of_a_failed_reply_is_recorded(stage: Stage) -> None:
    used = base.Used(Usage(input=10, output=1))
    await stage.answer(Puppet(STARTED, used, base.Text("a"), base.RequestRefusedError("no")))
    assert spent(stage) == (10, 1)


async def test_use_of_a_cancelled_reply_is_recorded(stage: Stage) -> None:
    puppet, control = Puppet(STARTED, base.Used(Usage(input=10, output=1))), Control()
    async with asyncio.timeout(WAIT):
        task = asyncio.create_task(stage.runner(puppet).run(JOB, control))
        await until(lambda: stage.redis.hexists(MESSAGE, "usage"))
        control.stop(StopReason.CANCELLED)
        await task
    assert spent(stage) == (10, 1)


# Draining.


@pytest.mark.parametrize("said", [[], [STARTED]])
async def test_drained_before_any_text_is_handed_back_as_if_new(stage: Stage, said: list[base.Event]) -> None:
    puppet, control = Puppet(*said), Control()
    async with asyncio.timeout(WAIT):
        task = asyncio.create_task(stage.runner(puppet).run(JOB, control))
        await until(lambda: bool(puppet.asked))
        control.stop(StopReason.DRAIN)
        assert await task is Outcome.REQUEUED
    assert puppet.closed.is_set()
    assert await stage.redis.hget(MESSAGE, "attempt") == b"0"
    assert await stage.state() == "queued"


@pytest.mark.parametrize(
    ("reason", "outcome", "state"),
    [(StopReason.DRAIN, Outcome.REQUEUED, "queued"), (StopReason.TIMEOUT, Outcome.DONE, "failed")],
)
async def test_stopped_before_it_asks_the_model_writes_nothing(
    stage: Stage, reason: StopReason, outcome: Outcome, state: str
) -> None:
    puppet, control = Puppet(STARTED, base.Text("a"), END), Control()
    control.stop(reason)
    async with Ears(stage.redis, JOB) as ears, asyncio.timeout(WAIT):
        assert await stage.runner(puppet).run(JOB, control) is outcome
        await ears.all()
    assert (ears.tokens, await stage.state()) == ([], state)


async def test_drained_in_the_middle_is_left_to_another_worker_without_an_end(stage: Stage) -> None:
    puppet, control = Puppet(STARTED, base.Text("a")), Control()
    async with Ears(stage.redis, JOB) as ears, asyncio.timeout(WAIT):
        task = asyncio.create_task(stage.runner(puppet).run(JOB, control))
        await ears.until("token.received")
        control.stop(StopReason.DRAIN)
        assert await task is Outcome.RELEASED
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
