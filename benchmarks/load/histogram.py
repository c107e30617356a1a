"""A log-linear (HDR) histogram: any value within 0.8 %, in memory that does not grow with the count."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

STEP_BITS: Final = 7
"""Every power of two is cut into this power of two of equal buckets: 128, so that one is 0.8 % wide."""

EXACT: Final = 2 << STEP_BITS
"""Values below this have a bucket of their own."""


def bucket(value: int) -> int:
    """The number of the bucket that holds ``value``, which is not negative."""
    if value < EXACT:
        return value
    shift = value.bit_length() - STEP_BITS - 1
    return (shift << STEP_BITS) + (value >> shift)


def greatest(number: int) -> int:
    """The greatest value that bucket ``number`` holds."""
    if number < EXACT:
        return number
    shift = (number >> STEP_BITS) - 1
    return ((number - (shift << STEP_BITS) + 1) << shift) - 1


class Histogram:
    """Counts of values, by bucket.

    :ivar counts: of the buckets that are not empty, by number.
    """

    __slots__ = ("counts",)

    def __init__(self, counts: Mapping[int, int] | None = None) -> None:
        self.counts: dict[int, int] = dict(counts or {})

    def record(self, value: int) -> None:
        """Count a value; one below 0 is 0 (two clocks that are one may still be read in another order)."""
        number = bucket(max(0, value))
        self.counts[number] = self.counts.get(number, 0) + 1

    def add(self, counts: Mapping[int, int]) -> None:
        """Count what another one has counted."""
        for number, count in counts.items():
            self.counts[number] = self.counts.get(number, 0) + count

    @property
    def total(self) -> int:
        """How many values."""
        return sum(self.counts.values())

    def percentile(self, share: float) -> int:
        """The smallest bound that at least ``share`` percent of the values do not exceed; 0 of none."""
        wanted = self.total * share / 100
        seen = 0
        for number in sorted(self.counts):
            seen += self.counts[number]
            if seen >= wanted:
                return greatest(number)
        return 0

    def curve(self) -> Iterator[tuple[float, int]]:
        """Share of the values up to each bucket, in percent, and that bucket's greatest value."""
        total, seen = self.total, 0
        for number in sorted(self.counts):
            seen += self.counts[number]
            yield seen * 100 / total, greatest(number)
