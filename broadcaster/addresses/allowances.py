"""How much each address may still do per minute, in bounded memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from legato.broadcaster.address_limits import ADDRESS_PERIOD_SECONDS, MAX_ADDRESSES

if TYPE_CHECKING:
    from collections.abc import Callable

_ROUNDING: Final = 1e-6
"""Seconds by which sums of steps may be off."""


class Allowances:
    """A limit per minute for each address: all of it may be used at once, and comes back evenly.

    It is a token bucket, kept as one number per address: when all of it will have come back.

    :param per_minute: the limit, at least 1.
    :param now: a clock in seconds.
    """

    def __init__(self, per_minute: int, now: Callable[[], float]) -> None:
        self._step = ADDRESS_PERIOD_SECONDS / per_minute
        self._now = now
        self._whole_at: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._whole_at)

    def wait(self, address: str) -> float:
        """Seconds until the address may do one thing more; 0 if it may now."""
        whole_at = self._whole_at.get(address)
        if whole_at is None:
            return 0.0
        wait = whole_at + self._step - self._now() - ADDRESS_PERIOD_SECONDS
        return wait if wait > _ROUNDING else 0.0

    def take(self, address: str) -> None:
        """The address has done one thing more. What it does beyond the limit does not count."""
        if self.wait(address):
            return
        now, known = self._now(), self._whole_at
        known[address] = max(known.pop(address, now), now) + self._step  # at the end: it was active last
        if len(known) > MAX_ADDRESSES:
            del known[next(iter(known))]
