"""The read budget, called directly: a list replaces the loop, and a number the clock."""

from __future__ import annotations

import asyncio
import gc
import weakref
from functools import partial

import pytest

from legato.broadcaster.limits import READ_SLICE_BYTES, READ_SLICE_MESSAGES
from legato.broadcaster.transport import budget
from legato.broadcaster.transport.budget import Budget
from legato.broadcaster.transport.cut import Cutter
from tests.broadcaster.fake_loop import run_turn


class Loop:
    """``cost`` is the duration of a slice in seconds; the budget of a turn is one second."""

    def __init__(self, cost: float = 0.0) -> None:
        self.scheduled: list = []
        self.now = 0.0
        self.cost = cost
        self.log: list[str] = []
        self.budget = Budget(self.scheduled.append, lambda: self.now, 1.0)

    def turn(self) -> list[str]:
        """Run one turn. Returns the readers that had a slice, in order."""
        self.log.clear()
        run_turn(self.scheduled)
        return list(self.log)


class Reader:
    def __init__(self, loop: Loop, name: str, slices: int) -> None:
        self.loop, self.name, self.slices = loop, name, slices
        self.aborted = False

    def go_on(self) -> bool:
        self.loop.log.append(self.name)
        self.loop.now += self.loop.cost
        self.slices -= 1
        return self.slices > 0

    def abort(self) -> None:
        self.aborted = True


def test_readers_get_slices_in_rotation_until_the_budget_is_used_up():
    loop = Loop(cost=1 / 4)
    for name, slices in (("a", 100), ("b", 3), ("c", 1)):
        loop.budget.put(Reader(loop, name, slices))
    assert loop.turn() == ["a", "b", "c", "a"]
    assert loop.turn() == ["b", "a", "b", "a"]
    assert loop.turn() == ["a"] * 4


def test_a_thousand_floods_take_no_longer_in_one_turn_than_one():
    loop = Loop(cost=1 / 8)
    for number in range(1000):
        loop.budget.put(Reader(loop, str(number), 100))
    seen = [name for _ in range(125) for name in loop.turn()]
    assert seen == [str(number) for number in range(1000)]
    assert loop.now == 125.0


def test_putting_a_queued_reader_again_has_no_effect():
    loop = Loop()
    reader = Reader(loop, "a", 1)
    for _ in range(3):
        loop.budget.put(reader)
    assert len(loop.budget) == 1
    assert loop.turn() == ["a"]
    loop.turn()
    assert loop.scheduled == []


def test_a_failing_reader_is_cut_and_the_others_continue(caplog, monkeypatch):
    monkeypatch.setattr(budget, "cut", Cutter())  # the process' own may have said so just before
    loop = Loop()

    class Broken(Reader):
        def go_on(self) -> bool:
            raise LookupError("secret")

    broken, well = Broken(loop, "x", 1), Reader(loop, "a", 2)
    loop.budget.put(broken)
    loop.budget.put(well)
    assert loop.turn() == ["a", "a"]
    assert (broken.aborted, well.aborted) == (True, False)
    assert "reading from it failed" in caplog.text


def test_a_quiet_connection_costs_no_callback_and_no_clock_read():
    loop = Loop()
    loop.budget._clock = pytest.fail
    assert all(loop.budget.spend() for _ in range(READ_SLICE_MESSAGES))
    assert loop.scheduled == []


def test_immediate_reads_have_a_budget_per_turn():
    loop = Loop()

    def at_once() -> int:
        count = 0
        while loop.budget.spend():
            count += 1
            loop.now += 1 / 16
            assert count < 1000
        return count

    assert at_once() <= 16 + 2 * READ_SLICE_MESSAGES
    assert not loop.budget.spend()
    loop.turn()
    assert 16 <= at_once() <= 16 + 2 * READ_SLICE_MESSAGES


def test_immediate_reads_do_not_wait_for_floods():
    loop = Loop(cost=1.0)
    loop.budget.put(Reader(loop, "flood", 100))
    for _ in range(10):
        assert loop.turn() == ["flood"]
        assert all(loop.budget.spend() for _ in range(READ_SLICE_MESSAGES))


async def test_input_that_cannot_be_split_is_a_slice_of_its_own():
    """Many large bodies that arrive at the same time are not parsed in the same turn."""
    loop = Loop(cost=1.0)
    done: list[str] = []

    def read(name: str) -> str:
        loop.now += 1.0
        done.append(name)
        return name.upper()

    loop.budget.put(Reader(loop, "flood", 100))
    pieces = [
        asyncio.create_task(loop.budget.in_turn(partial(read, name), READ_SLICE_BYTES + 1)) for name in "abc"
    ]
    await asyncio.sleep(0)
    assert not done
    assert (loop.turn(), done) == (["flood"], [])
    loop.turn()
    assert done == ["a"]
    pieces[1].cancel()
    await asyncio.sleep(0)
    for _ in range(4):
        loop.turn()
    assert done == ["a", "c"]
    assert [await pieces[0], await pieces[2]] == ["A", "C"]
    assert pieces[1].cancelled()


async def test_small_input_is_read_at_once_within_the_budget():
    loop = Loop()
    assert await loop.budget.in_turn(lambda: "read", 100) == "read"
    assert not loop.budget
    assert loop.budget.refill()  # the turn has begun
    loop.now, loop.budget.left = 2.0, 0  # and has had its time
    late = asyncio.create_task(loop.budget.in_turn(lambda: "read", 100))
    await asyncio.sleep(0)
    assert (late.done(), len(loop.budget)) == (False, 1)
    loop.turn()
    assert await late == "read"


async def test_an_error_in_a_slice_is_raised_to_its_caller():
    """The error does not keep the input in memory, which may be a megabyte: cycles are rarely collected."""
    loop = Loop()

    class Body(str):
        __slots__ = ("__weakref__",)

    async def scenario() -> weakref.ref[Body]:
        body = Body("no number")
        asyncio.get_running_loop().call_soon(loop.turn)
        try:
            await loop.budget.in_turn(partial(int, body), READ_SLICE_BYTES + 1)
        except ValueError as error:
            assert "no number" in str(error)  # noqa: PT017 - pytest.raises would keep the traceback
            return weakref.ref(body)
        raise AssertionError("it was a number")

    gc.disable()
    try:
        body = await scenario()
        await asyncio.sleep(0)  # the loop has it as long as the task runs that it has woken
        assert body() is None
    finally:
        gc.enable()
