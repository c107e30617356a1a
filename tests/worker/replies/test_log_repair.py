"""Redis falls back to an older state in the middle of a reply: the reply ends whole, each token once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from legato.protocol import wire
from legato.worker.providers import base
from legato.worker.replies import log_repair as whole
from legato.worker.replies.log import MessageLog
from legato.worker.replies.runner import Outcome
from legato.worker.replies.stop import Control, StopReason
from tests.waiting import WAIT, until
from tests.worker.replies.test_runner import Stage, append_under_a_dead_claim
from tests.worker.support import END, STARTED, Ears, Puppet, keys, logged, make_job

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from redis.asyncio import Redis

    from legato.protocol.jobs import Job
    from legato.worker.replies.log import Token
    from legato.worker.replies.reply import Decision
    from legato.worker.store.conversations import Store


JOB = make_job()
MESSAGE, LOG, ACTIVE = keys(JOB)


@pytest.fixture
def stage(redis: Redis, store: Store, tmp_path: Path) -> Stage:
    return Stage(redis, store, tmp_path / "turns.db")


class Past:
    """What Redis has of the message now, to be brought back later."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._dumps: dict[str, Any] = {}

    @classmethod
    async def of(cls, redis: Redis) -> Past:
        past = cls(redis)
        for key in (MESSAGE, LOG, ACTIVE):
            past._dumps[key] = await redis.dump(key)
        return past

    async def comes_back(self) -> None:
        async with self._redis.pipeline(transaction=True) as pipe:
            for key, dump in self._dumps.items():
                pipe.delete(key)
                if dump is not None:
                    pipe.restore(key, 0, dump)
            await pipe.execute()


class Scene:
    """One reply in the middle."""

    def __init__(self, stage: Stage, **options: Any) -> None:
        self.stage = stage
        self.redis = stage.redis
        self.control = Control()
        self.puppet = Puppet(STARTED)
        self.task = asyncio.create_task(stage.runner(self.puppet, **options).run(JOB, self.control))

    async def says(self, *texts: str) -> None:
        """Say each, and wait until it is in the log."""
        for text in texts:
            self.puppet.says.put_nowait(base.Text(text))

            async def there(text: str = text) -> bool:
                return text in await logged(self.redis, JOB)

            await until(there)

    async def asked(self, times: int = 1) -> None:
        """Wait until the model was asked, and has said that it begins."""
        await until(lambda: len(self.puppet.asked) == times and self.puppet.says.empty())
        await until(lambda: self.redis.exists(MESSAGE))

    async def ends(self, *events: base.Event | base.ProviderError) -> Outcome:
        for event in events:
            self.puppet.says.put_nowait(event)
        async with asyncio.timeout(WAIT):
            return await self.task

    async def is_whole(self, ears: Ears, *texts: str) -> None:
        """Complete in the log, in the database, and for a reader that drops what it has."""
        await ears.all()
        assert await logged(self.redis, JOB) == list(texts)
        seen: list[str] = []
        for event, data in ears.heard:
            if event == "token.received":
                index = data["tokenIndex"]
                assert index <= len(seen), "a gap"
                seen += [data["token"]] if index == len(seen) else []
                assert seen[index] == data["token"]
        assert seen == list(texts)
        assert ears.ends == ["stream.completed"]
        assert ears.heard[-1][1]["totalTokens"] == len(texts)
        assert self.stage.turns()[1] == ("assistant", "".join(texts), "complete")
        state = await self.redis.hmget(MESSAGE, "state", "next")
        assert state == [b"complete", str(len(texts)).encode()]
        assert len(await self.redis.xrange(LOG, wire.LOG_FINAL_ID)) == 1
        assert await self.redis.smembers(ACTIVE) == set()


@pytest.mark.parametrize("kept", [(), ("a",), ("a", "b")])
@pytest.mark.parametrize("later", [(), ("e",), ("e", "f")])
async def test_lost_tokens_are_written_again(
    stage: Stage,
    kept: tuple[str, ...],
    later: tuple[str, ...],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whether another token comes then, or the end."""
    async with Ears(stage.redis, JOB) as ears:
        scene = Scene(stage)
        await scene.asked()
        await scene.says(*kept)
        past = await Past.of(stage.redis)
        rest = [text for text in "abcd" if text not in kept]
        await scene.says(*rest)
        await past.comes_back()
        await scene.says(*later)
        assert await scene.ends(END) is Outcome.DONE
        await scene.is_whole(ears, *"abcd", *later)
    assert f"Redis has lost {len(rest) + len(later[:1])} entries, writing them again" in caplog.text


async def test_tokens_lost_between_the_decision_and_the_end_are_written_again(
    stage: Stage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    save, decided, continuation = stage.store.save, asyncio.Event(), asyncio.Event()

    async def slow(job: Job, text: str, decision: Decision) -> None:
        decided.set()
        await continuation.wait()
        await save(job, text, decision)

    monkeypatch.setattr(stage.store, "save", slow)
    async with Ears(stage.redis, JOB) as ears, asyncio.timeout(WAIT):
        scene = Scene(stage)
        await scene.says("a")
        past = await Past.of(stage.redis)
        await scene.says("b", "c")
        scene.puppet.says.put_nowait(END)
        await decided.wait()
        await past.comes_back()
        continuation.set()
        assert await scene.ends() is Outcome.DONE
        await scene.is_whole(ears, "a", "b", "c")


async def test_many_tokens_are_written_again_in_several_calls_though_they_are_lost_anew(
    stage: Stage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(whole, "TOKENS_PER_REPAIR", 2)
    append, calls = MessageLog.append, list[list[int]]()
    async with Ears(stage.redis, JOB) as ears:
        scene = Scene(stage)
        await scene.asked()
        nothing = await Past.of(stage.redis)
        await scene.says("a", "b")
        past = await Past.of(stage.redis)
        await scene.says(*"cdefg")

        async def noted(self: MessageLog, tokens: Sequence[Token], *beside: Any) -> bool:
            calls.append([token.index for token in tokens])
            if len(calls) == 3:
                await past.comes_back()
            if len(calls) == 6:
                await nothing.comes_back()
            return await append(self, tokens, *beside)

        await past.comes_back()
        monkeypatch.setattr(MessageLog, "append", noted)
        await scene.says("h")
        assert await scene.ends(END) is Outcome.DONE
        await scene.is_whole(ears, *"abcdefgh")
    first, second, third = [[7], [2, 3], [4, 5]], [[2, 3], [4, 5], [6, 7]], [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert calls == [*first, *second, *third, [7]]


async def test_reply_that_was_drained_after_a_loss_is_no_untouched_one(stage: Stage) -> None:
    """Readers have its tokens: another worker must go on from them, not say something else in their place."""
    scene = Scene(stage)
    await scene.asked()
    past = await Past.of(stage.redis)
    await scene.says("a", "b")
    await past.comes_back()
    scene.control.stop(StopReason.DRAIN)
    assert await scene.ends() is Outcome.RELEASED
    assert await logged(stage.redis, JOB) == ["a", "b"]


@pytest.mark.parametrize("later", [(), ("d",)])
async def test_another_attempt_goes_on_from_all_that_was_said(stage: Stage, later: tuple[str, ...]) -> None:
    """Redis goes back to before this worker had the message; then the provider cuts it off."""
    await append_under_a_dead_claim(stage.redis, "a")
    past = await Past.of(stage.redis)
    await append_under_a_dead_claim(stage.redis, "a", "b")
    async with Ears(stage.redis, JOB) as ears:
        scene = Scene(stage, tries=4)
        await scene.says("c")
        await past.comes_back()
        again = [STARTED, *map(base.Text, later), END]
        assert await scene.ends(base.CutError("cut"), *again) is Outcome.DONE
        await ears.all()
    assert await logged(stage.redis, JOB) == ["a", "b", "c", *later]
    assert [request.so_far for request in scene.puppet.asked] == ["ab", "abc"]
    assert (ears.ends, ears.heard[-1][1]["totalTokens"]) == (["stream.completed"], 3 + len(later))


@pytest.mark.parametrize("claimed", [False, True])
async def test_reply_whose_claim_is_lost_is_fenced(stage: Stage, claimed: bool) -> None:
    if claimed:
        await append_under_a_dead_claim(stage.redis, "a")
    past = await Past.of(stage.redis)
    scene = Scene(stage)
    await scene.says("b", "c")
    await past.comes_back()
    before = await stage.redis.hgetall(MESSAGE)
    assert await scene.ends(base.Text("d")) is Outcome.FENCED
    assert scene.puppet.closed.is_set()
    assert await stage.redis.hgetall(MESSAGE) == before
    assert await logged(stage.redis, JOB) == (["a"] if claimed else [])
