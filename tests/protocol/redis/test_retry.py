"""Waits between attempts, and calls that are repeated until they succeed."""

from __future__ import annotations

import asyncio
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from legato.protocol import backoff
from legato.protocol.redis import retry
from legato.protocol.redis.retry import Backend, Backoff

LOG = logging.getLogger("legato.test")


class Down(Exception):  # noqa: N818 - not an error of the program
    pass


@pytest.fixture
def quick(monkeypatch):
    """Waits of no length, which are counted."""
    waits = []

    def seconds(failures, first, longest, _jitter):
        waits.append((failures, first, longest))
        return 0

    monkeypatch.setattr(retry, "seconds", seconds)
    return waits


@given(st.integers(1, 100), st.floats(0.01, 10), st.floats(0.01, 10), st.floats(0, 1))
def test_a_wait_is_random_within_its_part(failures, first, longest, jitter):
    bound = backoff.wait(failures, first, longest)
    assert bound * (1 - jitter) * 0.999 <= retry.seconds(failures, first, longest, jitter) <= bound


def test_waits_of_many_differ():
    assert len({retry.seconds(3) for _ in range(20)}) > 1


def test_waits_grow_until_an_attempt_succeeds():
    waits = Backoff(1, 4, jitter=0)
    assert [waits.next() for _ in range(4)] == [1, 2, 4, 4]
    waits.reset()
    assert waits.next() == 1


async def test_waiting_takes_its_time():
    waits, loop = Backoff(0.05, 0.05, jitter=0), asyncio.get_running_loop()
    begun = loop.time()
    await waits.wait()
    assert loop.time() - begun >= 0.045


def failing(times: int, calls: list[int]):
    async def call() -> str:
        calls.append(1)
        if len(calls) <= times:
            raise Down("no\nroute")
        return "answer"

    return call


async def test_a_call_is_repeated_until_the_server_answers_and_the_log_says_it_once(quick, caplog):
    caplog.set_level(logging.INFO)
    backend, calls = Backend("The server", (Down,), LOG), []
    assert await backend.insist(failing(3, calls)) == "answer"
    assert len(calls) == 4
    assert quick == [(count, retry.FIRST, retry.BACKEND_LONGEST) for count in (1, 2, 3)]
    assert caplog.messages == ["The server is unavailable, retrying: no route", "The server is back"]


async def test_any_other_error_is_an_answer(quick):
    backend = Backend("The server", (Down,), LOG)

    async def call() -> None:
        raise KeyError

    with pytest.raises(KeyError):
        await backend.insist(call)
    assert quick == []


def test_the_time_without_the_server_is_added_up(monkeypatch):
    now = 100.0
    monkeypatch.setattr(retry.time, "monotonic", lambda: now)
    backend = Backend("The server", (Down,), LOG)
    assert backend.away == 0
    backend.failed(Down())
    now = 103.0
    backend.failed(Down())
    assert backend.away == 3
    backend.answered()
    now = 110.0
    assert backend.away == 3
    backend.failed(Down())
    now = 111.0
    assert backend.away == 4


async def test_a_dropped_cancellation_is_obeyed_after_the_call():
    backend, went_on = Backend("The server", (Down,), LOG), []

    async def call() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            return  # as redis-py may, before Python 3.12

    async def work() -> None:
        await backend.insist(call)
        went_on.append(1)

    task = asyncio.ensure_future(work())
    await asyncio.wait({task})
    assert task.cancelled()
    assert went_on == []
