"""Exponential back-off: how long to wait after a number of failures.

A pure rule. :mod:`legato.protocol.redis.retry` adds the random part and does the waiting.
"""

from __future__ import annotations

from typing import Final

_MOST_DOUBLINGS: Final = 60
"""Beyond this the power of two is only a risk of overflow: any bound is reached long before."""


def wait(failures: int, first: float, longest: float) -> float:
    """Seconds from the last failure to the next attempt.

    ``first`` after one failure, doubled with each further one, and ``longest`` at most.

    :param failures: attempts that have failed in a row; at least 1.
    """
    return min(first * 2.0 ** min(failures - 1, _MOST_DOUBLINGS), longest)
