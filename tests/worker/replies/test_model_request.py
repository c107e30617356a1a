"""Reading ahead: everything in order, bounded, and closed at once when stopped."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from legato.worker.providers import base
from legato.worker.replies.model_request import ModelRequest
from tests.waiting import WAIT, until
from tests.worker.support import END, STARTED, Puppet, Stubborn, model_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

REQUEST = base.ProviderRequest("x")


async def rest(request: ModelRequest) -> list[base.Event]:
    events: list[base.Event] = []
    async with asyncio.timeout(WAIT):
        while batch := await taken(request):
            events += batch
    return events


async def taken(request: ModelRequest) -> list[base.Event]:
    """The next batch. When each event came is checked on the way: never after it is taken, and in order."""
    arrivals = await request.take()
    times = [at for at, _ in arrivals]
    assert times == sorted(times)
    assert all(at <= asyncio.get_running_loop().time() for at in times)
    return [event for _, event in arrivals]


async def test_all_events_in_order_then_the_end() -> None:
    events = [STARTED, *(base.Text(f"{number}") for number in range(500)), END]
    request = ModelRequest(model_of(Puppet(*events)), REQUEST, ahead=7)
    assert await rest(request) == events
    assert await request.take() == []
    assert await request.close(WAIT)


async def test_what_waits_is_taken_in_one_batch() -> None:
    puppet = Puppet(STARTED, base.Text("a"), base.Text("b"))
    request = ModelRequest(model_of(puppet), REQUEST)
    await until(lambda: len(request._waiting) == 3)
    assert await taken(request) == [STARTED, base.Text("a"), base.Text("b")]
    assert await request.close(WAIT)


async def test_model_is_read_no_further_than_the_bound() -> None:
    puppet = Puppet(*(base.Text(f"{number}") for number in range(100)))
    request = ModelRequest(model_of(puppet), REQUEST, ahead=10)
    await until(lambda: len(request._waiting) == 10)
    for _ in range(20):
        await asyncio.sleep(0)  # the reader could go on, were it not held
    assert puppet.says.qsize() == 90
    assert len(await request.take()) == 10
    await until(lambda: puppet.says.qsize() == 80)
    assert await request.close(WAIT)


async def test_error_comes_after_the_events_before_it() -> None:
    puppet = Puppet(base.Text("a"), base.CutError("gone"))
    request = ModelRequest(model_of(puppet), REQUEST)
    assert await taken(request) == [base.Text("a")]
    with pytest.raises(base.CutError):
        await request.take()
    assert await request.close(WAIT)


async def test_silence_after_text_ends_the_request_though_the_first_text_had_longer() -> None:
    patience = base.Patience(first=2 * WAIT, next=0.02)
    request = ModelRequest(model_of(Puppet(STARTED, base.Text("a")), patience), REQUEST)
    with pytest.raises(base.StalledError):
        await rest(request)


async def test_text_in_time_ends_the_wait_for_the_first_text() -> None:
    puppet = Puppet(STARTED, base.Text("a"))
    request = ModelRequest(model_of(puppet, base.Patience(first=0.1, next=2 * WAIT)), REQUEST)
    assert await taken(request) == [STARTED, base.Text("a")]
    await asyncio.sleep(0.2)  # past the limit of the first text
    puppet.says.put_nowait(END)
    assert await rest(request) == [END]


async def test_stop_ends_a_waiting_take_and_closes_the_request() -> None:
    puppet = Puppet(STARTED)
    request = ModelRequest(model_of(puppet), REQUEST)
    assert await taken(request) == [STARTED]
    waiting = asyncio.create_task(request.take())
    await asyncio.sleep(0)
    request.stop()
    async with asyncio.timeout(WAIT):
        assert await waiting == []
        await puppet.closed.wait()
    assert await request.close(WAIT)


async def test_stop_drops_what_waits() -> None:
    request = ModelRequest(model_of(Puppet(STARTED, base.Text("a"), END)), REQUEST)
    await until(lambda: len(request._waiting) == 3)
    request.stop()
    assert await request.take() == []
    assert await request.close(WAIT)


async def test_stream_without_an_end_is_cut_off() -> None:
    class Unfinished(Puppet):
        async def stream(self, _request: base.ProviderRequest) -> AsyncGenerator[base.Event, None]:
            yield STARTED
            yield base.Text("a")

    request = ModelRequest(model_of(Unfinished()), REQUEST)
    assert await taken(request) == [STARTED, base.Text("a")]
    with pytest.raises(base.CutError):
        await request.take()


async def test_stop_ends_a_waiting_take_though_the_request_does_not_close() -> None:
    puppet = Stubborn(STARTED)
    request = ModelRequest(model_of(puppet), REQUEST)
    assert await taken(request) == [STARTED]
    waiting = asyncio.create_task(request.take())
    await asyncio.sleep(0)
    request.stop()
    async with asyncio.timeout(WAIT):
        assert await waiting == []
    assert not request.closed
    puppet.gives_in.set()
    assert await request.close(WAIT)


async def test_error_nobody_takes_is_no_trouble() -> None:
    request = ModelRequest(model_of(Puppet(base.CutError("gone"))), REQUEST)
    await until(request._task.done)
    assert await request.close(WAIT)


async def test_request_that_does_not_close_is_waited_for_no_longer_than_asked() -> None:
    puppet = Stubborn(STARTED)
    request = ModelRequest(model_of(puppet), REQUEST)
    assert await taken(request) == [STARTED]
    async with asyncio.timeout(WAIT):
        assert not await request.close(0.01)
        assert await request.take() == []
        await puppet.refused.wait()
    assert not request.closed
    puppet.gives_in.set()
    assert await request.close(WAIT)


async def test_provider_that_goes_on_after_its_end_is_closed_with_its_next_event() -> None:
    class Talkative(Puppet):
        async def stream(self, request: base.ProviderRequest) -> AsyncGenerator[base.Event, None]:
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
    request = ModelRequest(model_of(puppet), REQUEST, ahead=10)
    assert await taken(request) == [STARTED]
    assert await request.close(WAIT)
    assert puppet.closed.is_set()
    assert request._waiting == []
