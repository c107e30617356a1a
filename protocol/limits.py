"""A token bucket, without a clock."""

from __future__ import annotations


class TokenBucket:
    """Lets ``rate`` events per second through, and as many at once after a pause.

    Times are seconds on any one steady clock.
    """

    __slots__ = ("_left", "_rate", "_since")

    def __init__(self, rate: int, now: float) -> None:
        self._rate = rate
        self._left = float(rate)
        self._since = now

    def take(self, now: float) -> bool:
        """Whether one more event may pass at ``now``."""
        self._left = min(self._rate, self._left + (now - self._since) * self._rate)
        self._since = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
