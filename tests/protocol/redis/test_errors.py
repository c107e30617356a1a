"""Errors as text: one line, without what a user has sent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio.client import Pipeline
from redis.exceptions import ResponseError

from legato.protocol.redis.errors import reason_of


def of_a_pipeline(error: Exception, *command: str) -> Exception:
    """As redis-py rewrites it."""
    Pipeline.annotate_exception(None, error, 1, command)  # type: ignore[arg-type]
    return error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ResponseError("OOM command not allowed"), "OOM command not allowed"),
        (OSError("a\n  b"), "a b"),
        (TimeoutError(), "TimeoutError"),
        (of_a_pipeline(ResponseError("NOPERM 'sadd'"), "SADD", "k", "a\nsecret"), "NOPERM 'sadd'"),
        (of_a_pipeline(ResponseError("one", 2), "SET", "k", "secret"), "('one', 2)"),
    ],
)
def test_an_error_is_one_line(error, said):
    assert reason_of(error) == said


@given(st.text(max_size=40))
def test_what_a_pipeline_was_told_is_left_out(argument):
    reason = reason_of(of_a_pipeline(ResponseError("no"), "SET", "key", argument))
    assert reason == "no"
