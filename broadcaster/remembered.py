"""Remembers what clients say again and again, within a bound that they cannot exceed."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def remembered(count: int, longest: int, work: Callable[[bytes], T]) -> Callable[[bytes], T]:
    """``work``; its last ``count`` answers are kept, but for what is longer than ``longest`` bytes."""
    known = lru_cache(count)(work)
    return lambda data: known(data) if len(data) <= longest else work(data)
