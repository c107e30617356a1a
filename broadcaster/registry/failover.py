"""Detects another Redis server: data may be lost after a restart or a fail-over."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from legato.broadcaster.limits import FAILOVER_CHECK_SECONDS
from legato.protocol.redis.cluster import Cluster

if TYPE_CHECKING:
    from redis.asyncio import Redis


class Identity:
    """The identity of the server, or of all masters of a Cluster.

    It has to be polled: redis-py reconnects silently.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._known: dict[object, str] = {}

    async def changed(self) -> bool:
        """Whether a server was replaced, or has taken over slots, since the last call."""
        clients: dict[object, Redis] = {None: self._redis}
        if isinstance(self._redis, Cluster):
            clients = {address: self._redis.node(address) for address in self._redis.slots.masters}
        answers = await asyncio.gather(*(_run_id(client) for client in clients.values()))
        found = {place: name for place, name in zip(clients, answers, strict=True) if name is not None}
        changed = bool(self._known) and not found.items() <= self._known.items()
        self._known |= found
        return changed


async def _run_id(client: Redis) -> str | None:
    """None if it does not answer, or may not: a user can lack the right."""
    try:
        async with asyncio.timeout(FAILOVER_CHECK_SECONDS):
            info: dict[str, Any] = await client.info("server")
    except (RedisError, OSError, TimeoutError):
        return None
    return str(info["run_id"])
