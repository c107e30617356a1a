"""Finds the server of a Redis Cluster that owns a key.

Calls for many messages share round trips. A round trip takes as long as its slowest server, so each goes to
one server only: a server that hangs delays nothing but its own keys.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, cast

from legato.protocol.redis import slots as cluster
from legato.protocol.redis.cluster import Cluster

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from legato.protocol.redis_url import Address


def owner(redis: Redis, key: str) -> Address | None:
    """The server that owns ``key``, as far as known; always None if there is only one."""
    if not _is_cluster(type(redis)):
        return None
    return cast("Cluster", redis).slots.owner(cluster.slot_of(key.encode()))


@functools.cache
def _is_cluster(kind: type[Redis]) -> bool:
    """Whether clients of this class are clients of a Cluster.

    ``isinstance`` would ask redis-py's protocol classes each time: a seventh of a token's cost.
    """
    return issubclass(kind, Cluster)
