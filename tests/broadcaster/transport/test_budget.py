"""The scheduler of slices, by plain calls: a list stands in for the loop, and a number for the clock."""

from __future__ import annotations

import pytest

from legato.broadcaster.transport.budget import SLICE, Budget


class Loop:
    """``cost`` is how long a slice takes, in seconds; a turn has one second."""

    def __init__(self, cost: float = 0.0) -> None:
        self.scheduled: list = []
        self.now = 0.0
        self.cost = cost
        self.log: list[str] = []
        self.budget = Budget(self.scheduled.append, lambda: self.now, 1.0)

    def turn(self) -> list[str]:
        """Who has had a slice in it, in order."""
        scheduled, self.scheduled[:], self.log[:] = list(self.scheduled), [], []
        for function in scheduled:
            function()
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


def test_readers_have_slices_in_turn_until_the_time_is_over():
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


def test_what_is_put_again_is_not_queued_twice():
    loop = Loop()
    reader = Reader(loop, "a", 1)
    for _ in range(3):
        loop.budget.put(reader)
    assert len(loop.budget) == 1
    assert loop.turn() == ["a"]
    loop.turn()
    assert loop.scheduled == []


def test_one_that_fails_is_cut_and_the_others_go_on(caplog):
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


def test_a_quiet_connection_costs_no_turn_and_no_look_at_the_clock():
    loop = Loop()
    loop.budget._clock = pytest.fail
    assert all(loop.budget.spend() for _ in range(SLICE))
    assert loop.scheduled == []


def test_what_is_read_at_once_is_bounded_in_a_turn_and_begins_anew_in_the_next():
    loop = Loop()

    def at_once() -> int:
        count = 0
        while loop.budget.spend():
            count += 1
            loop.now += 1 / 16
            assert count < 1000
        return count

    assert at_once() <= 16 + 2 * SLICE
    assert not loop.budget.spend()
    loop.turn()
    assert 16 <= at_once() <= 16 + 2 * SLICE


def test_what_is_read_at_once_does_not_wait_for_floods():
    loop = Loop(cost=1.0)
    loop.budget.put(Reader(loop, "flood", 100))
    for _ in range(10):
        assert loop.turn() == ["flood"]
        assert all(loop.budget.spend() for _ in range(SLICE))
