"""Asking again: only while nobody has seen anything, and only as long as there is time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from legato.protocol.stream import Usage
from legato.worker.providers import base
from legato.worker.replies import model
from legato.worker.replies.model import AttemptPolicy
from legato.worker.replies.stop import Control, StopReason
from tests.waiting import WAIT, until
from tests.worker.providers import sse_server as sse
from tests.worker.providers.claude import anthropic_provider
from tests.worker.providers.sse_server import SseServer
from tests.worker.replies.test_runner import Stage, spent
from tests.worker.support import END, PATIENT, STARTED, Ears, Puppet, make_job

if TYPE_CHECKING:
    from pathlib import Path

    from redis.asyncio import Redis

    from legato.worker.store.conversations import Store

JOB = make_job()
TEXT = base.Text("a")
WHOLE = ["stream.started", "token.received", "stream.completed"]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "MODEL_RETRY_FIRST_SECONDS", 0.001)
    monkeypatch.setattr(model, "MODEL_RETRY_LONGEST_SECONDS", 0.002)


@pytest.fixture
def stage(redis: Redis, store: Store, tmp_path: Path) -> Stage:
    return Stage(redis, store, tmp_path / "turns.db")


async def play(
    stage: Stage, provider: base.Provider, retries: int = 3, **options: Any
) -> tuple[list[str], str]:
    """The events that readers hear, and the code if the reply has failed. One attempt."""
    async with Ears(stage.redis, JOB) as ears:
        await stage.answer(provider, policy=AttemptPolicy(PATIENT, retries), tries=1, **options)
        await ears.all()
    return [event for event, _ in ears.heard], ears.heard[-1][1].get("code", "")


@pytest.mark.parametrize(
    "error", [base.OverloadedError, base.RateLimitedError, base.ProviderUnavailableError, base.CutError]
)
async def test_trouble_before_any_text_is_asked_again(stage: Stage, error: type[base.ProviderError]) -> None:
    puppet = Puppet(error("no"), error("no"), STARTED, TEXT, END)
    assert await play(stage, puppet) == (WHOLE, "")
    assert len(puppet.asked) == 3
    assert (stage.counters.attempts, sum(stage.counters.provider_errors.values())) == (1, 0)


async def test_started_is_told_once_over_all_requests_of_an_attempt(stage: Stage) -> None:
    puppet = Puppet(STARTED, base.CutError("no"), STARTED, TEXT, END)
    assert await play(stage, puppet) == (WHOLE, "")


async def test_after_text_nothing_is_asked_again(stage: Stage) -> None:
    puppet = Puppet(STARTED, TEXT, base.OverloadedError("no"), STARTED, TEXT, END)
    assert await play(stage, puppet) == ([*WHOLE[:2], "stream.failed"], "overloaded")
    assert len(puppet.asked) == 1
    assert stage.counters.provider_errors == {"overloaded": 1}


async def test_text_that_is_held_back_counts_as_text(stage: Stage) -> None:
    """It may have been the beginning of what a reader is to see: the next attempt has its own request."""
    puppet = Puppet(STARTED, base.Text("\ud83d"), base.OverloadedError("no"), STARTED, TEXT, END)
    assert await play(stage, puppet) == (["stream.started", "stream.failed"], "overloaded")


@pytest.mark.parametrize("error", [base.RequestRefusedError, base.TooLongError, base.ProviderError])
async def test_what_will_not_get_better_is_not_asked_again(
    stage: Stage, error: type[base.ProviderError]
) -> None:
    puppet = Puppet(error("no"))
    assert await play(stage, puppet) == (["stream.failed"], error.code)
    assert len(puppet.asked) == 1


async def test_retries_are_bounded(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    puppet = Puppet(*(base.OverloadedError(f"refusal {number}") for number in range(9)))
    assert await play(stage, puppet, retries=2) == (["stream.failed"], "overloaded")
    assert len(puppet.asked) == 3
    assert "reply m1: overloaded: refusal 2" in caplog.text


async def test_retry_after_is_waited_when_it_fits_the_budget(stage: Stage) -> None:
    puppet = Puppet(base.RateLimitedError("no", retry_after=0.2), STARTED, TEXT, END)
    begin = asyncio.get_running_loop().time()
    assert await play(stage, puppet) == (WHOLE, "")
    assert asyncio.get_running_loop().time() - begin >= 0.2


async def test_retry_after_beyond_the_budget_fails_at_once(stage: Stage) -> None:
    puppet = Puppet(base.RateLimitedError("no", retry_after=3600))
    assert await play(stage, puppet, time_limit=120) == (["stream.failed"], "rate_limited")


async def test_use_is_summed_over_the_requests_of_an_attempt(stage: Stage) -> None:
    used = base.Used(Usage(input=10, output=1))
    puppet = Puppet(STARTED, used, base.CutError("cut"), STARTED, used, TEXT, END)
    assert await play(stage, puppet) == (WHOLE, "")
    assert spent(stage) == (13, 3)


async def test_cancel_while_waiting_to_next_request(stage: Stage) -> None:
    puppet, control = Puppet(base.OverloadedError("no", retry_after=15)), Control()
    async with Ears(stage.redis, JOB) as ears, asyncio.timeout(WAIT):
        runner = stage.runner(puppet, time_limit=60, policy=AttemptPolicy(PATIENT, 3))
        task = asyncio.create_task(runner.run(JOB, control))
        await until(puppet.closed.is_set)
        control.stop(StopReason.CANCELLED)
        await task
        await ears.all()
    assert (ears.ends, len(puppet.asked)) == (["stream.cancelled"], 1)


async def test_real_sdk_gets_through_a_429_with_retry_after_and_a_529(stage: Stage) -> None:
    scripts = [
        sse.refused(429, "rate_limit_error", "retry-after: 0"),
        sse.refused(529, "overloaded_error"),
        sse.whole("Hello"),
    ]
    async with SseServer(*scripts) as server:
        provider = anthropic_provider(api_key="k", model="m", max_tokens=9, base_url=server.url)
        assert await play(stage, provider) == (WHOLE, "")
        await provider.aclose()
    assert len(server.requests) == 3
