"""The counts of a load generator."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Final

from .histogram import BucketCounts, bucket
from .orders import GeneratorCounts

if TYPE_CHECKING:
    from .frames import Piece

NAMES: Final = ("latency", "connected", "subscribed", "request", "late")

REASONS: Final = 20
"""Largest number of separate reasons."""


FEW: Final = 2
"""A piece with at most this many events is counted event by event, with exact delays."""

TOGETHER_BITS: Final = 5
"""Arrivals of one piece within 32 microseconds are counted together, as the latest of them."""

PENDING: Final = 512


class Tally:
    """Counts of one process. ``counts.histograms`` is filled when asked for."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Reset all counts."""
        self.counts = GeneratorCounts()
        self.histograms = {name: BucketCounts() for name in NAMES}
        self._pending: list[Piece] = []

    def told(self) -> GeneratorCounts:
        """All counts, in the form of an answer."""
        self._settle()
        self.counts.histograms = {name: h.counts for name, h in self.histograms.items() if h.counts}
        return self.counts

    def delivered(self, piece: Piece, now: int) -> None:
        """Count the events that arrived at a client, with their latency."""
        self.counts.received += len(piece.times)
        if len(piece.times) <= FEW:
            for moment in piece.times:
                self.histograms["latency"].record(now - moment)
            return
        arrivals, moment = piece.arrivals, now >> TOGETHER_BITS
        if not arrivals:
            if len(self._pending) >= PENDING:
                self._settle()
            self._pending.append(piece)
        arrivals[moment] = arrivals.get(moment, 0) + 1

    def _settle(self) -> None:
        """Add the pending pieces to the histogram."""
        counts = self.histograms["latency"].counts
        for piece in self._pending:
            for moment, times in piece.arrivals.items():
                latest = (moment + 1 << TOGETHER_BITS) - 1
                for sent in piece.times:
                    number = bucket(max(0, latest - sent))
                    counts[number] = counts.get(number, 0) + times
            piece.arrivals.clear()
        self._pending.clear()


class _State:
    """A position in all streams: one object for all clients at the same position.

    ``after`` caches the position after each piece, with its faults, as long as a client is at this position.
    """

    __slots__ = ("__weakref__", "after", "expected")

    def __init__(self, expected: dict[int, int]) -> None:
        self.expected = expected
        self.after: dict[Piece, tuple[weakref.ref[_State], int, int]] = {}


_BEGINNING: Final = {late: _State({}) for late in (False, True)}
_BRANCHES: Final = 16


class StreamPosition:
    """The position of one client in each stream. Detects missing, repeated and reordered events."""

    __slots__ = ("_late", "_state")

    def __init__(self, *, late: bool) -> None:
        self._late = late
        self._state = _BEGINNING[late]

    def follow(self, piece: Piece, counts: GeneratorCounts) -> None:
        """Count the events that are not the next of their stream."""
        known = self._state.after.get(piece)
        state = known[0]() if known else None
        if known is None or state is None:
            state, gaps, backwards = self._next(piece)
            if len(self._state.after) >= _BRANCHES:
                self._state.after.clear()
            self._state.after[piece] = (weakref.ref(state), gaps, backwards)
        else:
            _, gaps, backwards = known
        self._state = state
        if gaps or backwards:
            counts.gaps += gaps
            counts.backwards += backwards

    def _next(self, piece: Piece) -> tuple[_State, int, int]:
        """The position after ``piece``, missing events, and repeated or reordered events."""
        expected, gaps, backwards = self._state.expected.copy(), 0, 0
        for stream, first, last in piece.runs:
            want = expected.get(stream, first if self._late else 0)
            if first > want:
                gaps += first - want
            elif first < want:
                backwards += min(want, last + 1) - first
            expected[stream] = max(want, last + 1)
        return _State(expected), gaps, backwards


def count(reasons: dict[str, int], reason: str) -> None:
    """Count a reason; those beyond :data:`REASONS` are counted together."""
    if reason not in reasons and len(reasons) >= REASONS:
        reason = "others"
    reasons[reason] = reasons.get(reason, 0) + 1
