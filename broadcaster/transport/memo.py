"""Bounded caches for the results of parsing what clients send repeatedly."""

from __future__ import annotations

import secrets
from functools import lru_cache, partial
from hashlib import blake2b
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def remembered(count: int, longest: int, work: Callable[[bytes], T]) -> Callable[[bytes], T]:
    """Cache the last ``count`` results of ``work``. Inputs over ``longest`` bytes are not cached."""
    known = lru_cache(count)(work)
    return lambda data: known(data) if len(data) <= longest else work(data)


def recognised(count: int, longest: int, work: Callable[[bytes], T]) -> Callable[[bytes], T]:
    """As :func:`remembered`, for inputs that may contain secrets: the keys are keyed digests of the inputs.

    Evicts in the order of insertion.
    """
    known: dict[bytes, T] = {}
    digest = partial(blake2b, digest_size=16, key=secrets.token_bytes(32))

    def recall(data: bytes) -> T:
        if len(data) > longest:
            return work(data)
        name = digest(data).digest()
        try:
            return known[name]
        except KeyError:
            found = known[name] = work(data)
        if len(known) > count:
            del known[next(iter(known))]
        return found

    return recall
