"""Many connections at once: a few start per turn of the loop, in order, and none waits for ever."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest

from legato.broadcaster.composition import running
from legato.broadcaster.limits import READ_SLICE_MESSAGES
from legato.broadcaster.transport import throttle
from legato.broadcaster.transport.throttle import StartThrottle
from tests.broadcaster.conftest import APP, client, local_settings
from tests.broadcaster.fake_loop import run_turn
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable


class Loop:
    def __init__(self) -> None:
        self.scheduled: list[Callable[[], None]] = []
        self.begun: list[int] = []
        self.throttle = StartThrottle(self.scheduled.append)

    def come(self, number: int) -> None:
        if self.throttle.put(lambda: self.begun.append(number)):
            self.begun.append(number)

    def turn(self) -> None:
        run_turn(self.scheduled)


@pytest.fixture
def loop(monkeypatch) -> Loop:
    monkeypatch.setattr(throttle, "CONNECTION_STARTS_PER_TURN", 2)
    return Loop()


def test_a_few_start_at_once(loop):
    for number in range(2):
        loop.come(number)
    assert loop.begun == [0, 1]
    assert not loop.throttle
    loop.turn()
    assert not loop.scheduled


def test_a_single_start_costs_no_callback(loop):
    loop.come(0)
    assert not loop.scheduled
    loop.come(1)
    assert len(loop.scheduled) == 1


def test_the_others_start_in_order_a_few_per_turn(loop):
    for number in range(7):
        loop.come(number)
    seen = [len(loop.begun)]
    while loop.scheduled:
        loop.turn()
        seen.append(len(loop.begun))
    assert seen == [2, 4, 6, 7, 7]  # the last turn finds nobody, and there is no other
    assert loop.begun == list(range(7))


def test_a_new_start_comes_after_waiting_ones(loop):
    for number in range(4):
        loop.come(number)
    loop.turn()
    for number in range(4, 6):
        loop.come(number)
    while loop.scheduled:
        loop.turn()
    assert loop.begun == list(range(6))


def test_a_failing_start_does_not_stop_the_others(loop):
    def broken() -> None:
        raise LookupError

    for number in range(2):
        loop.come(number)
    loop.throttle.put(broken)
    loop.come(2)
    with pytest.raises(LookupError):
        loop.turn()
    loop.turn()
    assert loop.begun == [0, 1, 2]


async def test_a_crowd_is_accepted_and_removed_over_several_turns(monkeypatch):
    """Every client is accepted, and every departure is noticed."""
    monkeypatch.setattr(throttle, "CONNECTION_STARTS_PER_TURN", 1)
    async with running(local_settings()) as server:
        most = 0
        put = server.node.throttle.put

        def seen(begin: Callable[[], None]) -> bool:
            nonlocal most
            at_once = put(begin)
            most = max(most, len(server.node.throttle))
            return at_once

        monkeypatch.setattr(server.node.throttle, "put", seen)
        async with contextlib.AsyncExitStack() as stack:
            people = await asyncio.gather(
                *(stack.enter_async_context(client(server.port)) for _ in range(50))
            )
            for person in people:
                await person.subscribe("news")
            budget, gone = server.node.context.budget, []
            monkeypatch.setattr(budget, "refill", lambda: False)  # each turn's time is used up
            put_off = budget.put
            monkeypatch.setattr(budget, "put", lambda one: (put_off(one), gone.append(one)))
            await asyncio.gather(*(person.connection.close() for person in people))
        assert most > 0
        assert len(gone) >= 50 - READ_SLICE_MESSAGES
        await until(lambda: server.node.connections.by_app[APP.id] == 0 and not server.node.throttle)
