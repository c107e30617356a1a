"""Exponential back-off."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from legato.protocol import backoff

SECONDS = st.floats(0.001, 1000)


def test_waits_double_up_to_the_longest():
    assert [backoff.wait(failures, 0.5, 3.0) for failures in range(1, 6)] == [0.5, 1.0, 2.0, 3.0, 3.0]


@given(st.integers(1, 10**9), SECONDS, SECONDS)
def test_any_number_of_failures_waits_no_longer_than_the_longest(failures, first, longest):
    wait = backoff.wait(failures, first, longest)
    assert min(first, longest) <= wait <= longest
    assert wait <= backoff.wait(failures + 1, first, longest)
