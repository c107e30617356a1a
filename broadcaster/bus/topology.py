"""Which servers the bus listens to: the one there is, or those of a Cluster."""

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
"""Stands for the one server: where it is, its connections know."""


class Servers(Protocol):
    """Where sharded channels are.

    :ivar sharded: there are several servers, and every channel has its own slot.
    :ivar always: to be listened to also without a channel.
    """

    @property
    def sharded(self) -> bool:
        """See above."""

    @property
    def always(self) -> Sequence[Address]:
        """See above."""

    def owner(self, name: bytes) -> Address | None:
        """Who has the channel, as far as is known; None if nobody."""

    def moved(self, name: bytes, owner: Address) -> None:
        """A server says who has the channel."""

    def doubt(self, address: Address) -> None:
        """The connection to it was lost."""

    async def look(self) -> None:
        """Find out who has what.

        :raises RedisError: nobody answers.
        """

    def connection(self, address: Address) -> AbstractConnection:
        """A new connection, not connected yet."""

    async def know(self, command: str) -> bool:
        """Whether the servers have a command.

        :raises RedisError: none answers.
        """


class OneServer:
    """One server, which may be another one after a fail-over of Sentinel."""

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
    # Asked by hand: redis-py's parser breaks on "no".
    try:
        await connection.connect()  # type: ignore[no-untyped-call]
        await connection.send_command("COMMAND", "INFO", command)
        (answer,) = await connection.read_response()
    finally:
        await connection.disconnect(nowait=True)
    return answer is not None
