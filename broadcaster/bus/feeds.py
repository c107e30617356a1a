"""Keeps every channel subscribed on the Redis server that owns it, across reconnects and slot moves."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final, Protocol

from redis.exceptions import RedisError

from legato.protocol.redis import retry
from legato.protocol.redis.cancellation import end_task
from legato.protocol.redis.cluster import Cluster
from legato.protocol.redis.errors import reason_of

from .base import BusError
from .reader import Feed
from .topology import OneServer, Servers, Shards

if TYPE_CHECKING:
    from collections.abc import Collection, Coroutine

    from legato.broadcaster.channels.subscriber import Key
    from legato.protocol.redis.pipeline import Named
    from legato.protocol.redis_url import Address

    from .base import BusChannel

logger: Final = logging.getLogger("legato.bus")


class FeedsHandler(Protocol):
    """Receives the messages and the state changes. Names are those of sharded channels."""

    def heard(self, channel: BusChannel, data: bytes) -> None:
        """Take a message as it was published."""

    def confirmed(self, name: bytes) -> None:
        """Every message of the channel is received from now on."""

    def dropped(self, names: Collection[bytes]) -> None:
        """These channels are not received now. Some of them may not have been confirmed.

        The call may unsubscribe from them. The others are subscribed again.
        """

    def cut_off(self, names: Collection[bytes]) -> None:
        """As :meth:`dropped`, because an established connection was lost."""


class Feeds:
    """One :class:`.reader.Feed` per server that owns subscribed channels, and a task that finds the servers.

    :ivar keys: the subscribed channels, by their names.
    """

    def __init__(self, redis: Named, handler: FeedsHandler) -> None:
        self.keys: dict[bytes, Key] = {}
        self.heard = handler.heard
        self.confirmed = handler.confirmed
        self._handler = handler
        self._servers: Servers = Shards(redis) if isinstance(redis, Cluster) else OneServer(redis)
        self._feeds: dict[Address, Feed] = {}
        self._unplaced: dict[bytes, None] = {}
        self._to_place = asyncio.Event()
        self._reached = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._attempt = 0

    async def start(self) -> None:
        """Connect, and reconnect whenever the connection is lost.

        :raises BusError: the server has no sharded pub/sub.
        :raises RedisError: the server cannot be reached.
        """
        if not await self._servers.know("SSUBSCRIBE"):
            raise BusError("this Redis has no SSUBSCRIBE; use Redis 7.0 or newer, or Valkey")
        self._to_place.set()
        self._spawn(self._place())
        await self._reached.wait()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Close all feeds."""
        for task in list(self._tasks):
            await end_task(task)

    @property
    def connected(self) -> bool:
        """Whether every feed is connected, and every channel has a server."""
        return not self._to_place.is_set() and all(feed.connected for feed in self._feeds.values())

    def subscribe(self, name: bytes, key: Key) -> None:
        """Request a channel. It is confirmed when Redis answers."""
        self.keys[name] = key
        self._subscribe(name)

    def unsubscribe(self, name: bytes) -> None:
        """End the subscription to a channel."""
        self.keys.pop(name, None)
        self._unplaced.pop(name, None)
        for feed in self._feeds.values():
            if name in feed.names:
                feed.unsubscribe(name)

    def _subscribe(self, name: bytes) -> None:
        owner = self._servers.owner(name)
        if owner is None:
            self._set_unplaced([name])
        else:
            self._feed(owner).subscribe(name, self.keys[name])

    def _feed(self, address: Address) -> Feed:
        feed = self._feeds.get(address)
        if feed is None:
            connection = self._servers.connection(address)
            feed = self._feeds[address] = Feed(connection, self, sharded=self._servers.sharded)
            self._spawn(self._follow(address, feed))
        return feed

    async def _follow(self, address: Address, feed: Feed) -> None:
        try:
            await feed.run()
        except (RedisError, OSError) as error:
            logger.warning("Redis connection lost (%s), reconnecting", reason_of(error))
        except Exception:  # a bug must not leave the node without messages
            logger.exception("reading from Redis failed, reconnecting")
        del self._feeds[address]
        self._servers.doubt(address)
        if feed.connected:
            self._handler.cut_off(feed.names)
        self._set_unplaced(feed.names)

    def _set_unplaced(self, names: Collection[bytes]) -> None:
        self._unplaced.update(dict.fromkeys(names))
        self._attempt = max(self._attempt, 1)
        self._to_place.set()

    async def _place(self) -> None:
        """Find a server for every channel that has none, and keep the permanent feeds connected."""
        while True:
            await self._to_place.wait()
            if self._attempt:
                await asyncio.sleep(retry.seconds(self._attempt))
            self._attempt += 1
            try:
                await self._servers.look()
                for address in self._servers.always:
                    self._feed(address)
            except (RedisError, OSError) as error:
                logger.warning("Redis cannot be reached (%s), retrying", reason_of(error))
                continue
            self._to_place.clear()
            names, self._unplaced = self._unplaced, {}
            for name in names:
                if name in self.keys:
                    self._subscribe(name)
            if not self._servers.always:
                self._reached.set()

    # --- calls of a feed: see .reader.Listener

    def reached(self) -> None:
        """Note that a feed has connected."""
        self._reached.set()

    def answered(self) -> None:
        """Reset the back-off: the server answers."""
        self._attempt = 0

    def dropped(self, name: bytes) -> None:
        """Report the loss. The feed subscribes again by itself."""
        self._handler.dropped([name])

    def moved(self, names: list[bytes], owner: Address) -> None:
        """Subscribe to these channels on the server that owns them."""
        self._handler.dropped(names)
        for name in names:
            self._servers.moved(name, owner)
            if name in self.keys:  # else the handler has unsubscribed it in `dropped`
                self._feed(owner).subscribe(name, self.keys[name])

    def unserved(self, names: list[bytes]) -> None:
        """Find a server for these channels."""
        self._handler.dropped(names)
        self._set_unplaced(names)
