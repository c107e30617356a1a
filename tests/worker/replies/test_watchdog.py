"""Silence ends a request: only text counts, and only the model's own time."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from legato.worker.providers.base import Patience, StalledError
from legato.worker.replies.watchdog import Watchdog
from tests.waiting import WAIT


async def forever() -> None:
    await asyncio.Event().wait()


async def silent(patience: Patience, *, text: bool = False, pause: float = 0) -> None:
    """Nothing, or one text, or something else that takes ``pause`` seconds; then silence."""
    async with Watchdog(patience) as watchdog:
        if text:
            watchdog.text_at(now())
        with watchdog.paused():
            await asyncio.sleep(pause)
        assert not watchdog.expired
        await forever()


def now() -> float:
    return asyncio.get_running_loop().time()


@pytest.fixture(autouse=True)
async def _bounded():
    async with asyncio.timeout(WAIT):
        yield


async def test_silence_before_the_first_text() -> None:
    begin = now()
    with pytest.raises(StalledError):
        await silent(Patience(first=0.05, next=WAIT))
    assert now() - begin >= 0.04
    assert asyncio.current_task().cancelling() == 0


async def test_silence_after_text_ends_though_the_time_for_the_first_text_is_longer() -> None:
    with pytest.raises(StalledError):
        await silent(Patience(first=2 * WAIT, next=0.02), text=True)


async def test_each_text_moves_the_deadline() -> None:
    async with Watchdog(Patience(first=0.05, next=WAIT)) as watchdog:
        watchdog.text_at(now())
        await asyncio.sleep(0.1)
    assert not watchdog.expired


async def test_deadline_that_has_moved_is_kept() -> None:
    begin = now()
    with pytest.raises(StalledError):
        await silent(Patience(first=0.05, next=0.2), text=True)
    assert now() - begin >= 0.19


async def test_time_that_is_not_the_models_does_not_count() -> None:
    begin = now()
    with pytest.raises(StalledError):
        await silent(Patience(first=0.05, next=0.03), pause=0.2)
    assert now() - begin >= 0.23


async def test_timeout_of_the_provider_is_silence_too() -> None:
    with pytest.raises(StalledError):
        async with Watchdog(Patience(WAIT, WAIT)):
            raise TimeoutError


async def test_other_errors_pass() -> None:
    with pytest.raises(ZeroDivisionError):
        async with Watchdog(Patience(WAIT, WAIT)):
            raise ZeroDivisionError


async def test_cancellation_from_outside_stays_one() -> None:
    async def body() -> None:
        async with Watchdog(Patience(WAIT, WAIT)):
            await forever()

    task = asyncio.create_task(body())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_body_that_survives_its_cancellation_can_see_it() -> None:
    async with Watchdog(Patience(first=0.01, next=WAIT)) as watchdog:
        with suppress(asyncio.CancelledError):
            await forever()
        assert watchdog.expired
