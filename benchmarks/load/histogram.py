"""A log-linear (HDR) histogram: values within 0.8 %, in constant memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

STEP_BITS: Final = 7
"""Every power of two is split into 2 ** this equal buckets: 128, each 0.8 % wide."""

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


class BucketCounts:
    """Counts of values, by bucket.

    :ivar counts: of the buckets that are not empty, by number.
    """

    __slots__ = ("counts",)

    def __init__(self, counts: Mapping[int, int] | None = None) -> None:
        self.counts: dict[int, int] = dict(counts or {})

    def record(self, value: int) -> None:
        """Count a value; a negative one counts as 0 (two readings of one clock may be swapped)."""
        number = bucket(max(0, value))
        self.counts[number] = self.counts.get(number, 0) + 1

    def add(self, counts: Mapping[int, int]) -> None:
        """Add the counts of another histogram."""
        for number, count in counts.items():
            self.counts[number] = self.counts.get(number, 0) + count

    @property
    def total(self) -> int:
        """Number of values."""
        return sum(self.counts.values())

    def percentile(self, share: float) -> int:
        """The percentile ``share``, as the upper bound of its bucket; 0 without values."""
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
