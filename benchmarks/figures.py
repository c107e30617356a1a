"""Percentiles and summaries of samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

SHARES: Final = (50, 90, 99)


def percentile(ordered: Sequence[float], share: float) -> float:
    """The percentile ``share`` of the ``ordered`` values; 0 without values."""
    if not ordered:
        return 0.0
    rank = -(-len(ordered) * share // 100)
    return ordered[max(0, int(rank) - 1)]


def milliseconds(seconds: Sequence[float]) -> dict[str, float]:
    """Percentiles and the maximum, in milliseconds."""
    ordered = sorted(seconds)
    found = {f"p{share}": percentile(ordered, share) for share in SHARES} | {"max": percentile(ordered, 100)}
    return {name: round(value * 1000, 2) for name, value in found.items()}
