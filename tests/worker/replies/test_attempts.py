"""Asking again: only while nobody has seen anything, and only as long as there is time."""

from __future__ import annotations

import asyncio

import pytest

from legato.worker.providers import base
from legato.worker.providers.anthropic import Anthropic
from legato.worker.replies import attempts as module
from legato.worker.replies.attempts import Policy, attempt
from tests.waiting import WAIT
from tests.worker.providers import sse_server as sse
from tests.worker.providers.sse_server import SseServer
from tests.worker.support import END, PATIENT, STARTED, Puppet

REQUEST = base.Request("x")
TEXT = base.Text("a")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_DELAY", 0.001)
    monkeypatch.setattr(module, "LONGEST_DELAY", 0.002)


async def play(
    provider: base.Provider, retries: int = 3, budget: float = WAIT
) -> tuple[list[base.Event], base.ProviderError | None]:
    seen: list[base.Event] = []
    deadline = asyncio.get_running_loop().time() + budget
    try:
        async with asyncio.timeout(WAIT):
            async for event in attempt(provider, REQUEST, Policy(PATIENT, retries), deadline):
                seen.append(event)  # noqa: PERF401 - an error may come in the middle
    except base.ProviderError as error:
        return seen, error
    return seen, None


@pytest.mark.parametrize(
    "error", [base.OverloadedError, base.RateLimitedError, base.UnavailableError, base.CutError]
)
async def test_trouble_before_any_text_is_asked_again(error: type[base.ProviderError]) -> None:
    puppet = Puppet(error("no"), error("no"), STARTED, TEXT, END)
    assert await play(puppet) == ([STARTED, TEXT, END], None)
    assert len(puppet.asked) == 3


async def test_started_is_told_once_over_all_attempts() -> None:
    puppet = Puppet(STARTED, base.CutError("no"), STARTED, TEXT, END)
    assert await play(puppet) == ([STARTED, TEXT, END], None)


async def test_after_text_nothing_is_asked_again() -> None:
    puppet = Puppet(STARTED, TEXT, base.OverloadedError("no"), STARTED, TEXT, END)
    seen, error = await play(puppet)
    assert (seen, type(error)) == ([STARTED, TEXT], base.OverloadedError)
    assert len(puppet.asked) == 1


@pytest.mark.parametrize("error", [base.RequestRefusedError, base.TooLongError, base.ProviderError])
async def test_what_will_not_get_better_is_not_asked_again(error: type[base.ProviderError]) -> None:
    puppet = Puppet(error("no"))
    assert isinstance((await play(puppet))[1], error)
    assert len(puppet.asked) == 1


async def test_retries_are_bounded() -> None:
    puppet = Puppet(*(base.OverloadedError(f"{number}") for number in range(9)))
    _, error = await play(puppet, retries=2)
    assert str(error) == "2"
    assert len(puppet.asked) == 3


async def test_retry_after_is_waited_when_it_fits_the_budget() -> None:
    puppet = Puppet(base.RateLimitedError("no", retry_after=0.2), STARTED, TEXT, END)
    begin = asyncio.get_running_loop().time()
    assert (await play(puppet))[1] is None
    assert asyncio.get_running_loop().time() - begin >= 0.2


async def test_retry_after_beyond_the_budget_fails_at_once() -> None:
    puppet = Puppet(base.RateLimitedError("no", retry_after=3600))
    seen, error = await play(puppet, budget=120)
    assert (seen, type(error)) == ([], base.RateLimitedError)


async def test_real_sdk_gets_through_a_429_with_retry_after_and_a_529() -> None:
    scripts = [
        sse.refused(429, "rate_limit_error", "retry-after: 0"),
        sse.refused(529, "overloaded_error"),
        sse.whole("Hello"),
    ]
    async with SseServer(*scripts) as server:
        provider = Anthropic(api_key="k", model="m", max_tokens=9, base_url=server.url)
        seen, error = await play(provider)
        await provider.aclose()
    assert error is None
    assert base.Text("Hello") in seen
    assert len(server.requests) == 3
