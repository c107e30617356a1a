"""Reading ahead: everything in order, bounded, and closed at once when stopped."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from legato.worker.providers import base
from legato.worker.replies.pump import Pump
from tests.waiting import WAIT, until
from tests.worker.support import END, STARTED, Puppet, Stubborn

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

REQUEST = base.Request("x")


async def rest(pump: Pump) -> list[base.Event]:
    events: list[base.Event] = []
    async with asyncio.timeout(WAIT):
        while batch := await taken(pump):
            events += batch
    return events


async def taken(pump: Pump) -> list[base.Event]:
    """The next batch. When each event came is checked on the way: never after it is taken, and in order."""
    arrivals = await pump.take()
    times = [arrival.at for arrival in arrivals]
    assert times == sorted(times)
    assert all(at <= asyncio.get_running_loop().time() for at in times)
    return [arrival.event for arrival in arrivals]


async def test_all_events_in_order_then_the_end() -> None:
    events = [STARTED, *(base.Text(f"{number}") for number in range(500)), END]
    pump = Pump(Puppet(*events).stream(REQUEST), ahead=7)
    assert await rest(pump) == events
    assert await pump.take() == []
    assert await pump.close(WAIT)


async def test_what_waits_is_taken_in_one_batch() -> None:
    puppet = Puppet(STARTED, base.Text("a"), base.Text("b"))
    pump = Pump(puppet.stream(REQUEST))
    await until(lambda: len(pump._waiting) == 3)
    assert await taken(pump) == [STARTED, base.Text("a"), base.Text("b")]
    assert await pump.close(WAIT)


async def test_model_is_read_no_further_than_the_bound() -> None:
    puppet = Puppet(*(base.Text(f"{number}") for number in range(100)))
    pump = Pump(puppet.stream(REQUEST), ahead=10)
    await until(lambda: len(pump._waiting) == 10)
    for _ in range(20):
        await asyncio.sleep(0)  # the reader could go on, were it not held
    assert puppet.says.qsize() == 90
    assert len(await pump.take()) == 10
    await until(lambda: puppet.says.qsize() == 80)
    assert await pump.close(WAIT)


async def test_error_comes_after_the_events_before_it() -> None:
    puppet = Puppet(base.Text("a"), base.CutError("gone"))
    pump = Pump(puppet.stream(REQUEST))
    assert await taken(pump) == [base.Text("a")]
    with pytest.raises(base.CutError):
        await pump.take()
    assert await pump.close(WAIT)


async def test_stop_ends_a_waiting_take_and_closes_the_request() -> None:
    puppet = Puppet(STARTED)
    pump = Pump(puppet.stream(REQUEST))
    assert await taken(pump) == [STARTED]
    waiting = asyncio.create_task(pump.take())
    await asyncio.sleep(0)
    pump.stop()
    async with asyncio.timeout(WAIT):
        assert await waiting == []
        await puppet.closed.wait()
    assert await pump.close(WAIT)


async def test_stop_drops_what_waits() -> None:
    pump = Pump(Puppet(STARTED, base.Text("a"), END).stream(REQUEST))
    await until(lambda: len(pump._waiting) == 3)
    pump.stop()
    assert await pump.take() == []
    assert await pump.close(WAIT)


async def test_error_nobody_takes_is_no_trouble() -> None:
    pump = Pump(Puppet(base.CutError("gone")).stream(REQUEST))
    await until(pump._task.done)
    assert await pump.close(WAIT)


async def test_request_that_does_not_close_is_waited_for_no_longer_than_asked() -> None:
    puppet = Stubborn(STARTED)
    pump = Pump(puppet.stream(REQUEST))
    assert await taken(pump) == [STARTED]
    async with asyncio.timeout(WAIT):
        assert not await pump.close(0.01)
        assert await pump.take() == []
        await puppet.refused.wait()
    assert not pump.closed
    puppet.gives_in.set()
    assert await pump.close(WAIT)


async def test_provider_that_goes_on_after_its_end_is_closed_with_its_next_event() -> None:
    class Talkative(Puppet):
        async def stream(self, request: base.Request) -> AsyncGenerator[base.Event, None]:
            self.asked.append(request)
            try:
                yield STARTED
                with suppress(asyncio.CancelledError):
                    await asyncio.Event().wait()
                for number in range(1000):
                    yield base.Text(f"{number}")
            finally:
                self.closed.set()

    puppet = Talkative()
    pump = Pump(puppet.stream(REQUEST), ahead=10)
    assert await taken(pump) == [STARTED]
    assert await pump.close(WAIT)
    assert puppet.closed.is_set()
    assert pump._waiting == []
