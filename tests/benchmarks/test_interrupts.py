"""Ctrl-C ends work in order."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from typing import Any

import pytest

from legato.benchmarks import interrupts
from legato.benchmarks.errors import BenchmarkError


def interrupt() -> None:
    assert threading.current_thread() is threading.main_thread()
    signal.raise_signal(signal.SIGINT)


async def until_interrupted(cleaned: list[str], times: int = 1) -> None:
    try:
        for _ in range(times):
            interrupt()
        await asyncio.sleep(60)
    finally:
        await asyncio.sleep(0)
        cleaned.append("all")


def test_work_that_is_not_interrupted_is_run() -> None:
    async def work() -> int:
        await asyncio.sleep(0)
        return 5

    assert interrupts.run(work()) == 5


@pytest.mark.parametrize("times", [1, 3])
def test_work_ends_what_it_started_however_often_the_signal_comes_at_once(times: int) -> None:
    cleaned: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        interrupts.run(until_interrupted(cleaned, times))
    assert cleaned == ["all"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_fails_on_the_way_out_is_no_other_end() -> None:
    async def work() -> None:
        try:
            await until_interrupted([])
        except asyncio.CancelledError:
            raise BenchmarkError("a generator has ended") from None

    with pytest.raises(KeyboardInterrupt):
        interrupts.run(work())


def test_errors_without_an_interrupt_stay_what_they_are() -> None:
    async def work() -> None:
        raise BenchmarkError("no")

    with pytest.raises(BenchmarkError, match="no"):
        interrupts.run(work())


def test_second_ctrl_c_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[Any] = []

    async def work() -> None:
        try:
            await until_interrupted([])
        finally:
            while not ended:
                interrupt()
                await asyncio.sleep(0.01)

    monkeypatch.setattr(interrupts, "SAME_SECONDS", 0.0)
    monkeypatch.setattr(os, "_exit", ended.append)
    with pytest.raises(KeyboardInterrupt):
        interrupts.run(work())
    assert ended == [130]


def test_another_thread_has_no_signals_and_works() -> None:
    async def outside() -> int:
        return await asyncio.to_thread(interrupts.run, asyncio.sleep(0, 7))

    assert asyncio.run(outside()) == 7
