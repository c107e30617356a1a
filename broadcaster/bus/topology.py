"""The Redis servers that the bus listens to: a single one, or the masters of a Cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from legato.protocol.redis.slots import slot_of
from legato.protocol.redis_url import Address

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis
    from redis.asyncio.connection import AbstractConnection

    from legato.protocol.redis.cluster import Cluster

THE_SERVER: Final = Address("", 0)
"""Placeholder for the single server. Its connections know the real address."""


class Servers(Protocol):
    """Knows which server owns which sharded channel.

    :ivar sharded: whether there are several servers, and every channel has its own slot.
    :ivar always: the servers that get a feed even without a channel.
    """

    @property
    def sharded(self) -> bool:
        """See above."""

    @property
    def always(self) -> Sequence[Address]:
        """See above."""

    def owner(self, name: bytes) -> Address | None:
        """Return the server that owns the channel, as far as is known; None if unknown."""

    def moved(self, name: bytes, owner: Address) -> None:
        """Note that a server has redirected the channel to ``owner``."""

    def doubt(self, address: Address) -> None:
        """Note that the connection to this server was lost."""

    async def look(self) -> None:
        """Refresh the map of owners, if it is stale.

        :raises RedisError: no server answers.
        """

    def connection(self, address: Address) -> AbstractConnection:
        """Return a new connection that is not connected yet."""

    async def know(self, command: str) -> bool:
        """Whether the servers support a command.

        :raises RedisError: no server answers.
        """


class OneServer:
    """A single server. After a fail-over by Sentinel it may be another one."""

    sharded = False
    always = (THE_SERVER,)

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def owner(self, name: bytes) -> Address | None:
        """See :class:`Servers`."""
        del name
        return THE_SERVER

    def moved(self, name: bytes, owner: Address) -> None:
        """See :class:`Servers`."""

    def doubt(self, address: Address) -> None:
        """See :class:`Servers`."""

    async def look(self) -> None:
        """See :class:`Servers`."""

    def connection(self, address: Address) -> AbstractConnection:
        """See :class:`Servers`."""
        del address
        return _connection(self._redis)

    async def know(self, command: str) -> bool:
        """See :class:`Servers`."""
        return await _knows(_connection(self._redis), command)


class Shards:
    """The masters of a Cluster."""

    sharded = True
    always: tuple[Address, ...] = ()

    def __init__(self, redis: Cluster) -> None:
        self._redis = redis

    def owner(self, name: bytes) -> Address | None:
        """See :class:`Servers`."""
        return self._redis.slots.owner(slot_of(name))

    def moved(self, name: bytes, owner: Address) -> None:
        """See :class:`Servers`."""
        self._redis.slots.moved(slot_of(name), owner)

    def doubt(self, address: Address) -> None:
        """See :class:`Servers`."""
        self._redis.slots.suspect(address)

    async def look(self) -> None:
        """See :class:`Servers`."""
        if self._redis.slots.stale:
            await self._redis.learn()

    def connection(self, address: Address) -> AbstractConnection:
        """See :class:`Servers`."""
        return _connection(self._redis.node(address))

    async def know(self, command: str) -> bool:
        """See :class:`Servers`."""
        return await _knows(self.connection(self._redis.slots.masters[0]), command)


def _connection(redis: Redis) -> AbstractConnection:
    connection: AbstractConnection = redis.connection_pool.make_connection()  # type: ignore[no-untyped-call]
    return connection


async def _knows(connection: AbstractConnection, command: str) -> bool:
    # Sent as a raw command: redis-py's parser fails on the answer for an unknown command.
    try:
        await connection.connect()  # type: ignore[no-untyped-call]
        await connection.send_command("COMMAND", "INFO", command)
        (answer,) = await connection.read_response()
    finally:
        await connection.disconnect(nowait=True)
    return answer is not None
