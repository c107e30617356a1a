"""Remembers what clients say again and again, within a bound that they cannot exceed."""

from __future__ import annotations

import secrets
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def remembered(count: int, longest: int, work: Callable[[bytes], T]) -> Callable[[bytes], T]:
    """``work``; its last ``count`` answers are kept, but for what is longer than ``longest`` bytes."""
    known = lru_cache(count)(work)
    return lambda data: known(data) if len(data) <= longest else work(data)


def recognised(count: int, longest: int, work: Callable[[bytes], T]) -> Callable[[bytes], T]:
    """As :func:`remembered`, for what may hold secrets: it is known again by a keyed digest, and not kept.

    What was kept first goes first.
    """
    known: dict[bytes, T] = {}
    key = secrets.token_bytes(32)

    def recall(data: bytes) -> T:
        if len(data) > longest:
            return work(data)
        name = blake2b(data, digest_size=16, key=key).digest()
        try:
            return known[name]
        except KeyError:
            found = known[name] = work(data)
        if len(known) > count:
            del known[next(iter(known))]
        return found

    return recall
