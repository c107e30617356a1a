"""Warns at the start about a Redis that may drop data, or whose clock is far from ours.

This file is in ``broadcaster`` and in ``worker``, as ``redis_connections.py`` is, and for the same reason.
"""

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
"""How long a server may think. One that does not answer is not warned about."""


async def warn(redis: Redis, logger: logging.Logger, wall: Callable[[], float] = time.time) -> None:
    """Log each warning once, whichever and however many servers it concerns."""
    clients = redis.masters() if isinstance(redis, Cluster) else [redis]
    questions = [ask(client, wall) for client in clients for ask in (_eviction, _clock)]
    for warning in dict.fromkeys(await asyncio.gather(*questions)):
        if warning is not None:
            logger.warning("%s", warning)


async def _eviction(client: Redis, wall: Callable[[], float]) -> str | None:
    del wall
    try:
        async with asyncio.timeout(SECONDS):
            return advice.eviction(await client.info("memory"))
    except (RedisError, OSError):  # the user may lack the right, which is no fault
        return None


async def _clock(client: Redis, wall: Callable[[], float]) -> str | None:
    before = wall()
    try:
        async with asyncio.timeout(SECONDS):
            seconds, microseconds = await client.time()
    except (RedisError, OSError):
        return None
    return advice.clock(advice.skew(before, seconds + microseconds / 1_000_000, wall()))
