"""How many connections each application has on all nodes.

Each node writes its counts to a hash of its own, a few times a second at most. The sum is over the hashes of
the nodes whose lease stands; no node has to be asked.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import RedisError

from legato.broadcaster.limits import CONNECTION_COUNT_LEASES, CONNECTION_COUNT_SECONDS
from legato.protocol.redis.errors import reason_of
from legato.protocol.redis.retry import LONGEST

from .lease import GONE

if TYPE_CHECKING:
    from legato.protocol.redis.pipeline import Named

    from .lease import Lease
    from .other_nodes import OtherNodes

logger: Final = logging.getLogger("legato.registry")


class ConnectionCounts:
    """The counts of this node and of the others. Methods raise what redis-py raises."""

    def __init__(self, redis: Named, lease: Lease, others: OtherNodes) -> None:
        self._redis = redis
        self._names = redis.names
        self._lease = lease
        self._others = others
        self._counts: dict[str, int] = {}
        self._changed: dict[str, None] = {}
        self._told_as = ""
        self._wake = asyncio.Event()

    def set(self, app_id: str, count: int) -> None:
        """Note that this node has ``count`` connections of the application now."""
        self._counts[app_id] = count
        self._changed[app_id] = None
        self._wake.set()

    def tell_again(self) -> None:
        """Schedule a full write: Redis may have lost the counts."""
        self._told_as = ""
        self._wake.set()

    async def keep_telling(self) -> None:
        """Write what changes, and everything once per lease. Runs until it is cancelled."""
        while True:
            try:
                async with asyncio.timeout(self._lease.seconds):
                    await self._wake.wait()
            except TimeoutError:
                self.tell_again()
            try:
                await self._tell()
                await asyncio.sleep(CONNECTION_COUNT_SECONDS)
            except (RedisError, OSError) as error:  # the lease logs a warning already
                logger.debug("the counts of connections cannot be written: %s", reason_of(error))
                await self._try_later()
            except Exception:  # a bug here must not end this task
                logger.exception("writing the counts of connections failed")
                await self._try_later()

    async def _try_later(self) -> None:
        self.tell_again()
        await asyncio.sleep(LONGEST)

    async def _tell(self) -> None:
        self._wake.clear()
        node = self._lease.node
        changed, self._changed = self._changed, {}
        names = self._counts if node != self._told_as else changed
        told: dict[Any, Any] = {name: self._counts[name] for name in names}
        self._told_as = node
        if not told:
            return
        key = self._names.connections_key(node)
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.hset(key, mapping=told)
            pipeline.expire(key, round(CONNECTION_COUNT_LEASES * self._lease.seconds) + 1)
            await pipeline.execute()

    async def forget(self) -> None:
        """Delete the counts of this node, which is shutting down."""
        await self._redis.delete(self._names.connections_key(self._lease.node))

    async def everywhere(self, app_id: str) -> int:
        """The sum over all nodes."""
        states = await self._others.states()
        nodes = [name for name, state in states.items() if state not in (None, GONE)]
        async with self._redis.pipeline(transaction=False) as pipeline:
            for name in nodes:
                pipeline.hget(self._names.connections_key(name), app_id)
            others = await pipeline.execute() if nodes else []
        return self._counts.get(app_id, 0) + sum(int(count or 0) for count in others)
