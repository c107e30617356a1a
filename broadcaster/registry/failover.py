"""Whether the server is still the one that it was: after a restart or a fail-over something may be lost."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import RedisError

from legato.protocol.redis.cluster import Cluster

if TYPE_CHECKING:
    from redis.asyncio import Redis

SECONDS: Final = 2.0
"""How long a server may think. One that does not answer says nothing about itself."""


class Identity:
    """Of the one server, or of all masters of a Cluster.

    It has to be asked: redis-py makes a new connection without a word.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._known: dict[object, str] = {}

    async def changed(self) -> bool:
        """Whether any is another one, or serves what another one did, since this was asked last."""
        clients: dict[object, Redis] = {None: self._redis}
        if isinstance(self._redis, Cluster):
            clients = {address: self._redis.node(address) for address in self._redis.slots.masters}
        answers = await asyncio.gather(*(_run_id(client) for client in clients.values()))
        found = {place: name for place, name in zip(clients, answers, strict=True) if name is not None}
        changed = bool(self._known) and not found.items() <= self._known.items()
        self._known |= found
        return changed


async def _run_id(client: Redis) -> str | None:
    """None if it does not answer, or not this: a user may lack the right."""
    try:
        async with asyncio.timeout(SECONDS):
            info: dict[str, Any] = await client.info("server")
    except (RedisError, OSError, TimeoutError):
        return None
    return str(info["run_id"])
