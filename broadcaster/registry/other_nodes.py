"""The other nodes of the cluster, by their leases: which live, and which are dead.

A node that was cut off from Redis, or was stopped, declares nobody dead for the time of one lease: after a
failure of Redis all leases have lapsed, and their nodes need that time to renew them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from legato.broadcaster.limits import DEAD_LEASE_SECONDS

from .lease import GONE

if TYPE_CHECKING:
    from legato.protocol.redis.pipeline import Named

    from .lease import Lease


class OtherNodes:
    """The states of the others. Methods raise what redis-py raises."""

    def __init__(self, redis: Named, lease: Lease) -> None:
        self._redis = redis
        self._lease = lease

    async def states(self) -> dict[str, str | None]:
        """The state of every other listed node, by name; None without a lease."""
        listed = [_text(name) for name in await self._redis.smembers(self._redis.names.nodes_key)]
        names = [name for name in listed if name != self._lease.node]
        async with self._redis.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.get(self._redis.names.lease_key(name))
            values: list[Any] = await pipeline.execute() if names else []
        return {
            name: None if value is None else _text(value) for name, value in zip(names, values, strict=True)
        }

    async def dead(self) -> list[str]:
        """Nodes whose entries are to be taken back. One without a lease is declared dead, once allowed."""
        found = []
        for name, state in (await self.states()).items():
            if state == GONE or (state is None and self._may_judge() and await self._declare_dead(name)):
                found.append(name)
        return found

    def _may_judge(self) -> bool:
        lease = self._lease
        return not lease.doubtful and lease.contact.lasts(lease.clock()) >= lease.seconds

    async def _declare_dead(self, name: str) -> bool:
        """Declare it dead. Returns whether it is: it may just have come back."""
        lease = self._redis.names.lease_key(name)
        await self._redis.set(lease, GONE, nx=True, ex=DEAD_LEASE_SECONDS)
        state = await self._redis.get(lease)
        return state is not None and _text(state) == GONE

    async def forget(self, name: str) -> None:
        """Remove a dead node from the list. If it has added an entry meanwhile, it is cleaned up again."""
        await self._redis.srem(self._redis.names.nodes_key, name)
        if await self._redis.exists(self._redis.names.entries_key(name)):
            await self._redis.sadd(self._redis.names.nodes_key, name)


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
