"""Warnings at the start about Redis, the clock and the file limit, one line each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_SKEW: Final = 30.0
"""Largest difference between our clock and Redis' without a warning, in seconds."""

RESERVED_FILES: Final = 128
"""Files that a broadcaster needs beside its clients' sockets: Redis, webhooks, listeners, its own."""


def eviction(memory: Mapping[str, Any]) -> str | None:
    """A warning if Redis may evict keys.

    :param memory: the section ``memory`` of ``INFO``. A missing field causes no warning.
    """
    policy, limit = memory.get("maxmemory_policy"), memory.get("maxmemory")
    if policy in (None, "noeviction") or not limit:
        return None
    return (
        f"Redis drops data when its memory is full (maxmemory-policy {policy}), jobs and replies too: "
        "set maxmemory-policy noeviction"
    )


def skew(before: float, redis: float, after: float) -> float:
    """Seconds by which Redis' clock is ahead of ours; 0 if the round trip explains the difference.

    :param before: our clock when the request for Redis' time was sent; ``after``: when the answer arrived.
    """
    return redis - min(max(redis, before), after)


def clock(ahead: float) -> str | None:
    """A warning if Redis' clock is more than :data:`MAX_SKEW` ahead of ours or behind it."""
    if abs(ahead) <= MAX_SKEW:
        return None
    where = "behind" if ahead > 0 else "ahead of"
    return (
        f"this machine's clock is {abs(ahead):.0f} seconds {where} Redis': time limits of replies and API "
        "requests will be wrong: synchronise both clocks (NTP)"
    )


def files(limit: int, max_connections: int) -> str | None:
    """A warning if ``limit`` open files are too few for ``max_connections`` (0: no bound)."""
    if not max_connections or limit >= max_connections + RESERVED_FILES:
        return None
    return (
        f"the limit of {limit} open files is too low for server.max_connections = {max_connections}: "
        f"raise it to {max_connections + RESERVED_FILES} or more (LimitNOFILE= in systemd, or ulimit -n)"
    )
