"""The shared circuit breaker: processes with one key pause together when the provider is overloaded."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest

from legato.protocol import wire
from legato.protocol.redis.retry import Backend
from legato.worker.jobs.consumer import REDIS_DOWN
from legato.worker.providers import base
from legato.worker.providers import circuit_breaker as module
from legato.worker.providers.circuit_breaker import SharedCircuitBreaker
from legato.worker.replies import model
from legato.worker.replies.model import AttemptPolicy
from legato.worker.replies.runner import Outcome
from tests.waiting import WAIT
from tests.worker.replies.test_runner import Stage
from tests.worker.support import END, PATIENT, STARTED, Puppet, make_job

if TYPE_CHECKING:
    from pathlib import Path

    from redis.asyncio import Redis

    from legato.worker.store.conversations import Store

KEY = "sk-secret-key"
FULL = base.OverloadedError("full")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BREAKER_PROBE_SECONDS", 0.3)
    monkeypatch.setattr(model, "MODEL_RETRY_FIRST_SECONDS", 0.001)
    monkeypatch.setattr(model, "MODEL_RETRY_LONGEST_SECONDS", 0.002)


def breaker(redis: Redis, key: str = KEY) -> SharedCircuitBreaker:
    return SharedCircuitBreaker(
        redis, Backend("Redis", REDIS_DOWN, logging.getLogger("legato.worker")), "", key
    )


def later(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


async def waits(shared: SharedCircuitBreaker) -> bool:
    """Whether it lets nobody in right now."""
    try:
        await shared.acquire(later(0))
    except base.ProviderError:
        return True
    return False


async def test_open_until_somebody_is_refused(redis: Redis) -> None:
    assert await breaker(redis).acquire(later(0)) is False
    assert await redis.keys("*") == []


async def test_one_process_refused_holds_another_with_the_same_key_alone(redis: Redis) -> None:
    await breaker(redis).overloaded(FULL)
    assert await waits(breaker(redis))
    assert not await waits(breaker(redis, "another key"))


@pytest.mark.parametrize("seconds", [0, 2 * WAIT])
async def test_closed_breaker_is_asked_again_after_a_moment_or_an_own_refusal(
    redis: Redis, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setattr(module, "BREAKER_CLOSED_SECONDS", seconds)
    one = breaker(redis)
    assert not await waits(one)
    await breaker(redis).overloaded(FULL)
    assert await waits(one) is (not seconds)
    await one.overloaded(FULL)
    assert await waits(one)


async def test_key_is_nowhere_in_redis(redis: Redis) -> None:
    await breaker(redis).overloaded(FULL)
    (name,) = await redis.keys("*")
    assert name.startswith(wire.backoff_key("").encode()[:-1])
    assert KEY.encode() not in name + b"".join((await redis.hgetall(name)).values())
    assert 0 < await redis.ttl(name) < 200


@pytest.mark.parametrize("error", [base.OverloadedError("no"), base.RateLimitedError("no")])
async def test_turn_that_would_come_too_late_is_refused_as_the_others_were(
    redis: Redis, error: base.ProviderError
) -> None:
    await breaker(redis).overloaded(error)
    with pytest.raises(type(error)):
        await breaker(redis).acquire(later(0.1))


async def test_pause_doubles_with_each_refused_probe_but_not_with_refusals_at_once(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BREAKER_FIRST_PAUSE_SECONDS", 0.1)
    shared = breaker(redis)
    for _ in range(20):
        await shared.overloaded(FULL)
    (name,) = await redis.keys("*")
    assert await redis.hget(name, "strikes") == b"1"
    assert await shared.acquire(later(WAIT)) is True
    await shared.overloaded(FULL)
    assert await redis.hget(name, "strikes") == b"2"


async def test_pause_is_as_long_as_the_provider_says_within_reason(redis: Redis) -> None:
    shared = breaker(redis)
    begin = asyncio.get_running_loop().time()
    await shared.overloaded(base.RateLimitedError("no", retry_after=0.4))
    assert await shared.acquire(later(WAIT)) is True
    assert asyncio.get_running_loop().time() - begin >= 0.4
    await shared.overloaded(base.RateLimitedError("no", retry_after=86400))
    (name,) = await redis.keys("*")
    assert await redis.pttl(name) <= (module.BREAKER_LONGEST_REQUESTED_SECONDS + 60) * 1000


async def test_after_the_pause_one_asks_and_its_answer_opens_for_the_others(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BREAKER_FIRST_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(module, "BREAKER_PROBE_SECONDS", 60)
    ours, theirs = breaker(redis), breaker(redis)
    await ours.overloaded(FULL)
    assert await ours.acquire(later(WAIT)) is True
    assert await waits(theirs)
    await ours.succeeded()
    assert await theirs.acquire(later(0)) is False


async def test_reply_that_is_the_probe_opens_for_the_others(
    redis: Redis, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BREAKER_FIRST_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(module, "BREAKER_PROBE_SECONDS", 60)
    shared = breaker(redis)
    await shared.overloaded(FULL)
    stage = Stage(redis, store, tmp_path / "turns.db")
    assert await stage.answer(Puppet(STARTED, base.Text("a"), END), breaker=shared) == Outcome.DONE
    assert await shared.acquire(later(0)) is False


async def test_two_processes_do_not_hammer(
    redis: Redis, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of ten replies in two processes that find no room, few ask again before the provider has recovered."""
    monkeypatch.setattr(module, "BREAKER_FIRST_PAUSE_SECONDS", 0.5)
    begin, loop = later(0), asyncio.get_running_loop()
    asked: list[float] = []

    class Crowded(Puppet):
        async def stream(self, request: base.ProviderRequest) -> Any:
            asked.append(loop.time() - begin)
            if loop.time() - begin < 1.0:
                raise base.OverloadedError("full")
            yield base.RequestAccepted(request.message)
            yield base.Text("a")
            yield END

    stage = Stage(redis, store, tmp_path / "turns.db")
    breakers = [breaker(redis), breaker(redis)]
    async with asyncio.timeout(WAIT):
        outcomes = await asyncio.gather(
            *(
                stage.answer(
                    Crowded(),
                    make_job(message_id=f"m{number}"),
                    policy=AttemptPolicy(PATIENT, 50),
                    breaker=breakers[number % 2],
                )
                for number in range(10)
            )
        )
    assert outcomes == [Outcome.DONE] * 10
    assert stage.counters.ended == {"complete": 10}
    early = [at for at in asked if at < 1.0]
    assert len(early) <= 10 + 4
