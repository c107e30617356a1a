"""Where a generator counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .histogram import EXACT, STEP_BITS, Histogram
from .orders import Counts

if TYPE_CHECKING:
    from .frames import Piece

NAMES: Final = ("latency", "connected", "subscribed", "request", "late")

REASONS: Final = 20
"""Different reasons that are kept apart."""


class Tally:
    """Counts of one process. ``counts.histograms`` is filled when asked for."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin anew."""
        self.counts = Counts()
        self.histograms = {name: Histogram() for name in NAMES}

    def told(self) -> Counts:
        """All, as it is sent."""
        self.counts.histograms = {name: h.counts for name, h in self.histograms.items() if h.counts}
        return self.counts

    def delivered(self, piece: Piece, now: int) -> None:
        """Events have come to one client: count them, and how long after their time they came."""
        self.counts.received += len(piece.times)
        counts = self.histograms["latency"].counts
        for moment in piece.times:
            # Histogram.record, written out: this runs for every delivery.
            value = now - moment
            if value >= EXACT:
                shift = value.bit_length() - STEP_BITS - 1
                value = (shift << STEP_BITS) + (value >> shift)
            elif value < 0:
                value = 0
            counts[value] = counts.get(value, 0) + 1


class Place:
    """Where one client is in each stream. Sees what is missing, repeated or out of order."""

    __slots__ = ("_late", "_next")

    def __init__(self, *, late: bool) -> None:
        self._next: dict[int, int] = {}
        self._late = late

    def follow(self, piece: Piece, counts: Counts) -> None:
        """Count what is not the next of its stream."""
        expected = self._next
        for stream, first, last in piece.runs:
            want = expected.get(stream, first if self._late else 0)
            if first > want:
                counts.gaps += first - want
            elif first < want:
                counts.backwards += min(want, last + 1) - first
            expected[stream] = max(want, last + 1)


def count(reasons: dict[str, int], reason: str) -> None:
    """One more for a reason; those beyond :data:`REASONS` are one."""
    if reason not in reasons and len(reasons) >= REASONS:
        reason = "others"
    reasons[reason] = reasons.get(reason, 0) + 1
