"""Long lists in slices, with a turn of the event loop between two: nobody else waits for the whole."""

from __future__ import annotations

import asyncio
import heapq
from itertools import islice
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

T = TypeVar("T")

SLICE: Final = 1000
"""Items that are worked on in one turn."""


async def slices(items: Sequence[T], size: int = SLICE) -> AsyncIterator[Sequence[T]]:
    """Parts of ``items`` in their order, each in a turn of its own."""
    for start in range(0, len(items), size):
        if start:
            await asyncio.sleep(0)
        yield items[start : start + size]


async def in_order(names: Sequence[str]) -> list[str]:
    """Sort: each slice by itself, then merge them slice by slice."""
    runs = [sorted(part) async for part in slices(names)]
    if len(runs) < 2:
        return runs[0] if runs else []
    found: list[str] = []
    merged = heapq.merge(*runs)
    while part := list(islice(merged, SLICE)):
        found += part
        await asyncio.sleep(0)
    return found
