"""The histogram: every value within 0.8 %, and percentiles that values bear out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from legato.benchmarks.figures import percentile
from legato.benchmarks.load.histogram import BucketCounts, bucket, greatest
from legato.benchmarks.load.result import waits
from legato.benchmarks.load.tally import Tally, count

MICROSECONDS = st.integers(0, 10**10)


@given(MICROSECONDS)
def test_bucket_holds_its_value_and_is_narrow(value: int) -> None:
    number = bucket(value)
    assert value <= greatest(number) <= value * (1 + 1 / 128)
    assert greatest(number - 1) < value if number else value == 0
    assert bucket(greatest(number)) == number


@given(st.lists(MICROSECONDS, min_size=1), st.sampled_from([0.1, 50, 90, 99, 99.9, 100]))
def test_percentile_is_that_of_the_values(values: list[int], share: float) -> None:
    histogram = BucketCounts()
    for value in values:
        histogram.record(value)
    assert histogram.total == len(values)
    assert histogram.percentile(share) == greatest(bucket(int(percentile(sorted(values), share))))


@given(st.lists(MICROSECONDS), st.lists(MICROSECONDS))
def test_histograms_add_up(one: list[int], other: list[int]) -> None:
    parts, whole = [BucketCounts(), BucketCounts()], BucketCounts()
    for part, values in zip(parts, (one, other), strict=True):
        for value in values:
            part.record(value)
            whole.record(value)
    parts[0].add(parts[1].counts)
    assert parts[0].counts == whole.counts


def test_nothing_counted_is_no_figure_and_a_time_before_its_own_is_zero() -> None:
    assert waits("latency", BucketCounts()) == {}
    assert BucketCounts().percentile(99) == 0
    histogram = BucketCounts()
    histogram.record(-5)
    assert histogram.counts == {0: 1}


def test_figures_are_milliseconds() -> None:
    histogram = BucketCounts({100: 99, bucket(2_000_000): 1})
    assert waits("latency", histogram)["latency_p99_ms"] == 0.1
    assert 2000 <= waits("latency", histogram)["latency_max_ms"] <= 2016


def test_reasons_are_bounded() -> None:
    tally = Tally()
    for number in range(1000):
        count(tally.counts.failed, f"reason {number}")
    assert len(tally.counts.failed) == 21
    assert tally.counts.failed["others"] == 980
