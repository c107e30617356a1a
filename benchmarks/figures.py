"""Numbers out of many numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

SHARES: Final = (50, 90, 99)


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest of the ``ordered`` values that at least ``share`` percent do not exceed; 0 of none."""
    if not ordered:
        return 0.0
    rank = -(-len(ordered) * share // 100)
    return ordered[max(0, int(rank) - 1)]


def milliseconds(seconds: Sequence[float]) -> dict[str, float]:
    """Percentiles and the greatest, in milliseconds."""
    ordered = sorted(seconds)
    found = {f"p{share}": percentile(ordered, share) for share in SHARES} | {"max": percentile(ordered, 100)}
    return {name: round(value * 1000, 2) for name, value in found.items()}
