"""A token bucket, without a clock."""

from __future__ import annotations


class TokenBucket:
    """Lets ``rate`` events per second through, and ``burst`` at once after a pause.

    Times are seconds on any one steady clock.
    """

    __slots__ = ("_burst", "_left", "_rate", "_since")

    def __init__(self, rate: float, now: float, burst: float | None = None) -> None:
        self._rate = rate
        self._burst = rate if burst is None else burst
        self._left = float(self._burst)
        self._since = now

    def take(self, now: float) -> bool:
        """Take a token; False if none is left at ``now``."""
        self._left = min(self._burst, self._left + (now - self._since) * self._rate)
        self._since = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
