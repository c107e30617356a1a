"""Which server of a Redis Cluster answers for a key.

Calls for many messages share round trips. A round trip lasts as long as the slowest of those it goes to, so
each goes to one server: then a server that hangs delays what it has itself, and nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from legato.protocol.redis import slots as cluster
from legato.protocol.redis.cluster import Cluster

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from legato.protocol.redis_url import Address


def owner(redis: Redis, key: str) -> Address | None:
    """Who has ``key``, as far as is known; always None where there is one server only."""
    if not isinstance(redis, Cluster):
        return None
    return redis.slots.owner(cluster.slot_of(key.encode()))
