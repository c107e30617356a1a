"""Process long lists in slices, and let the event loop run between two slices."""

from __future__ import annotations

import asyncio
import heapq
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from .limits import ITEMS_PER_TURN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

T = TypeVar("T")


async def slices(items: Sequence[T], size: int = ITEMS_PER_TURN) -> AsyncIterator[Sequence[T]]:
    """Yield consecutive slices of ``items``, each in its own turn of the event loop."""
    for start in range(0, len(items), size):
        if start:
            await asyncio.sleep(0)
        yield items[start : start + size]


async def in_order(names: Sequence[str]) -> list[str]:
    """Return ``names`` sorted: sort each slice, then merge the sorted slices."""
    runs = [sorted(part) async for part in slices(names)]
    if len(runs) < 2:
        return runs[0] if runs else []
    found: list[str] = []
    merged = heapq.merge(*runs)
    while part := list(islice(merged, ITEMS_PER_TURN)):
        found += part
        await asyncio.sleep(0)
    return found
