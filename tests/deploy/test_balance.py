"""How processes are shared out: bounded, step by step, and to where jobs wait longest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from legato.deploy.balance import Bounds, Load, evenly, step, wanted

IDLE = Load(0, 0)


def settle(current: dict[str, int], loads: dict[str, Load], bounds: Bounds) -> dict[str, int]:
    """As many steps as it takes."""
    for _ in range(300):
        after = step(current, loads, bounds)
        if after == current:
            return after
        current = after
    raise AssertionError("it does not come to rest")


@pytest.mark.parametrize(
    ("loads", "expected"),
    [
        ({"a": IDLE}, {"a": 1}),
        ({"a": Load(5, 0)}, {"a": 8}),
        ({"a": Load(0.9, 0)}, {"a": 1}),
        ({"a": IDLE, "b": Load(5, 0)}, {"a": 1, "b": 7}),
        ({"a": Load(10, 0), "b": Load(30, 0)}, {"a": 2, "b": 6}),
        ({"a": Load(0, 33)}, {"a": 3}),
        ({"a": Load(0, 10_000)}, {"a": 8}),
    ],
)
def test_what_a_queue_should_have(loads: dict[str, Load], expected: dict[str, int]) -> None:
    assert wanted(loads, Bounds(1, 8, 1, 16)) == expected


def test_a_step_is_bounded_in_both_directions() -> None:
    bounds = Bounds(1, 10, 2, 16)
    assert step({"a": 1}, {"a": Load(60, 0)}, bounds) == {"a": 3}
    assert step({"a": 9}, {"a": IDLE}, bounds) == {"a": 7}


def test_one_queue_gives_what_another_gets_in_the_same_step() -> None:
    loads = {"a": IDLE, "b": Load(60, 0)}
    assert step({"a": 7, "b": 1}, loads, Bounds(1, 8, 1, 16)) == {"a": 6, "b": 2}


def test_the_last_free_process_goes_to_who_waits_longest() -> None:
    loads = {"a": Load(40, 0), "b": Load(60, 0), "c": IDLE}
    assert step({"a": 3, "b": 3, "c": 1}, loads, Bounds(1, 8, 1, 16)) == {"a": 3, "b": 4, "c": 1}


@pytest.mark.parametrize(("queues", "expected"), [("ab", {"a": 3, "b": 2}), ("a", {"a": 5})])
def test_shared_out_evenly(queues: str, expected: dict[str, int]) -> None:
    assert evenly(list(queues), 5) == expected


LOADS = st.builds(Load, st.floats(0, 1e6), st.integers(0, 10_000))


@given(
    loads=st.dictionaries(st.sampled_from("abcde"), LOADS, min_size=1),
    least=st.integers(1, 4),
    extra=st.integers(0, 60),
    shift=st.integers(1, 9),
    data=st.data(),
)
def test_bounds_hold_whatever_the_load(
    loads: dict[str, Load], least: int, extra: int, shift: int, data: st.DataObject
) -> None:
    bounds = Bounds(least, least * len(loads) + extra, shift, 16)
    current = dict.fromkeys(loads, least)
    current[data.draw(st.sampled_from(sorted(loads)))] += data.draw(st.integers(0, extra))
    after = step(current, loads, bounds)
    assert sum(after.values()) <= bounds.most
    assert all(count >= least for count in after.values())
    assert all(abs(after[queue] - current[queue]) <= shift for queue in loads)
    rest = settle(current, loads, bounds)
    goal = wanted(loads, bounds)
    assert all(rest[queue] <= max(goal[queue], least) for queue in loads)
