"""Warns at the start about a Redis that may drop data, or whose clock is far from ours."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from redis.exceptions import RedisError

from legato.protocol import advice

from .cluster import Cluster

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

    from redis.asyncio import Redis

SECONDS: Final = 2.0
"""Timeout of each query. There is no warning about a server that does not answer in time."""


async def warn(redis: Redis, logger: logging.Logger, wall: Callable[[], float] = time.time) -> None:
    """Log the :func:`warnings`. Never raises."""
    for warning in await warnings(redis, wall):
        logger.warning("%s", warning)


async def warnings(redis: Redis, wall: Callable[[], float] = time.time) -> list[str]:
    """At most one warning of each kind, however many servers it concerns. Never raises.

    :param redis: one server's client, or that of a Cluster, whose masters are all asked.
    :param wall: this machine's clock, in Unix seconds.
    """
    clients = redis.masters() if isinstance(redis, Cluster) else [redis]
    evictions = await asyncio.gather(*map(_eviction, clients))
    skews = await asyncio.gather(*(_skew(client, wall) for client in clients))
    found = (*dict.fromkeys(evictions), advice.clock(max(skews, key=abs, default=0.0)))
    return [warning for warning in found if warning is not None]


async def _eviction(client: Redis) -> str | None:
    try:
        async with asyncio.timeout(SECONDS):
            return advice.eviction(await client.info("memory"))
    except (RedisError, OSError):  # the user may lack the permission, which is fine
        return None


async def _skew(client: Redis, wall: Callable[[], float]) -> float:
    """Seconds by which the server's clock is ahead of ours; 0 if it does not say."""
    before = wall()
    try:
        async with asyncio.timeout(SECONDS):
            seconds, microseconds = await client.time()
    except (RedisError, OSError):
        return 0.0
    return advice.skew(before, seconds + microseconds / 1_000_000, wall())
