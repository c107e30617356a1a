"""What is worth a warning at the start, and what is not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from legato.protocol import advice


@pytest.mark.parametrize(
    ("memory", "warned"),
    [
        ({"maxmemory": 1000, "maxmemory_policy": "allkeys-lru"}, True),
        ({"maxmemory": 1000, "maxmemory_policy": "volatile-ttl"}, True),
        ({"maxmemory": 1000, "maxmemory_policy": "noeviction"}, False),
        ({"maxmemory": 0, "maxmemory_policy": "allkeys-lru"}, False),  # no limit: nothing is ever dropped
        ({"maxmemory": 1000}, False),
        ({"maxmemory_policy": "allkeys-lru"}, False),
        ({}, False),
    ],
)
def test_eviction(memory, warned):
    warning = advice.eviction(memory)
    assert bool(warning) == warned
    if warning is not None:
        assert f"maxmemory-policy {memory['maxmemory_policy']})" in warning
        assert "set maxmemory-policy noeviction" in warning


@given(st.floats(0, 1e9), st.floats(0, 1e9), st.floats(0, 60))
def test_the_way_of_an_answer_is_no_skew(before, redis, took):
    skew = advice.skew(before, redis, before + took)
    if skew == 0:
        assert before <= redis <= before + took
    else:
        assert skew == (redis - before if skew < 0 else redis - (before + took))


def test_clock():
    assert advice.clock(0) is advice.clock(30) is advice.clock(-30) is None
    assert "clock is 31 seconds behind Redis'" in str(advice.clock(31))
    assert "clock is 31 seconds ahead of Redis'" in str(advice.clock(-31))


def test_files():
    assert advice.files(1024, 0) is advice.files(1024, 1024 - advice.RESERVED_FILES) is None
    warning = advice.files(1024, 1025 - advice.RESERVED_FILES)
    assert "limit of 1024 open files is too low for server.max_connections = 897" in str(warning)
    assert "raise it to 1025 or more" in str(warning)
