"""Schedules: moments are fixed beforehand, shared out without change, and nobody is woken too early."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from legato.benchmarks.load.agents import shares, together
from legato.benchmarks.load.orders import GeneratorCounts, Join
from legato.benchmarks.load.schedule import MICRO, Alarm, Pace, now


def test_moments_do_not_drift() -> None:
    moments = list(Pace(1000, 3.0).until(1000 + 100 * MICRO))
    assert len(moments) == 300
    assert moments[:4] == [1000, 334_333, 667_667, 1_001_000]
    assert moments[-1] == 1000 + round(299 * MICRO / 3)


def test_lanes_take_turns() -> None:
    lanes = [list(Pace(0, 25.0, number / 4).until(MICRO)) for number in range(4)]
    assert sorted(moment for lane in lanes for moment in lane) == list(Pace(0, 100.0).until(MICRO))


@given(st.integers(1, 200), st.integers(1, 7), st.sampled_from([0.0, 0.5, 3.0, 1000.0]))
def test_clients_are_shared_out_at_their_moments(count: int, processes: int, rate: float) -> None:
    parts = shares(Join(7, count, "c", rate=rate, begin=100), processes)
    numbers = [number for part in parts for number in range(part.first, part.first + part.count)]
    assert sorted(numbers) == list(range(7, 7 + count))
    if rate:
        found = sorted(Pace(p.begin, p.rate).due(n) for p in parts for n in range(p.count))
        wanted = [Pace(100, rate).due(number) for number in range(count)]
        assert all(abs(one - other) <= 2 for one, other in zip(found, wanted, strict=True))


def test_counts_of_processes_are_summed_by_kind() -> None:
    parts = [
        GeneratorCounts(received=2, failed={"a": 1}, histograms={"latency": {5: 1}}),
        GeneratorCounts(
            received=3, failed={"a": 2, "b": 1}, histograms={"latency": {5: 2, 9: 1}, "late": {1: 1}}
        ),
    ]
    total = together(parts)
    assert (total.received, total.failed) == (5, {"a": 3, "b": 1})
    assert total.histograms == {"latency": {5: 3, 9: 1}, "late": {1: 1}}
    assert parts[0].failed == {"a": 1}


async def test_alarm_wakes_in_order_and_never_before_the_moment() -> None:
    alarm, woken = Alarm(), []
    base = now() + 20_000

    async def sleeper(offset: int) -> None:
        await alarm.until(base + offset)
        woken.append((offset, now() - base - offset))

    try:
        await asyncio.gather(*(sleeper(offset) for offset in (3000, 1000, 2000, 1500, -10 * MICRO)))
    finally:
        alarm.close()
    assert [offset for offset, _ in woken] == [-10 * MICRO, 1000, 1500, 2000, 3000]
    assert all(late >= 0 for _, late in woken)
