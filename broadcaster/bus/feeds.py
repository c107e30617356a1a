"""Keeps every channel subscribed at the Redis server that has it, through lost connections and moves."""

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
    """What the feeds tell. Names are those of sharded channels."""

    def heard(self, channel: BusChannel, data: bytes) -> None:
        """A message, as it was published."""

    def confirmed(self, name: bytes) -> None:
        """From now on every message of the channel is heard."""

    def dropped(self, names: Collection[bytes]) -> None:
        """These are not heard now. Some of them may not have been confirmed.

        The call may unsubscribe; what it does not is asked for again.
        """

    def cut_off(self, names: Collection[bytes]) -> None:
        """As :meth:`dropped`, since a connection that stood is lost."""


class Feeds:
    """One :class:`.reader.Feed` per server that has channels of ours, and a task that finds the servers.

    :ivar keys: the channels that are asked for, by their names.
    """

    def __init__(self, redis: Named, handler: FeedsHandler) -> None:
        self.keys: dict[bytes, Key] = {}
        self.heard = handler.heard
        self.confirmed = handler.confirmed
        self._handler = handler
        self._servers: Servers = Shards(redis) if isinstance(redis, Cluster) else OneServer(redis)
        self._feeds: dict[Address, Feed] = {}
        self._adrift: dict[bytes, None] = {}
        self._to_place = asyncio.Event()
        self._reached = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._attempt = 0

    async def start(self) -> None:
        """Connect, and stay connected.

        :raises BusError: the server has no sharded pub/sub.
        :raises RedisError: it cannot be reached.
        """
        if not await self._servers.know("SSUBSCRIBE"):
            raise BusError("this Redis has no SSUBSCRIBE; Redis 7.0 or newer, or Valkey, is needed")
        self._to_place.set()
        self._spawn(self._place())
        await self._reached.wait()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Hear nothing any more."""
        for task in list(self._tasks):
            await end_task(task)

    @property
    def connected(self) -> bool:
        """Whether every server that is listened to is reached, and every channel has one."""
        return not self._to_place.is_set() and all(feed.connected for feed in self._feeds.values())

    def subscribe(self, name: bytes, key: Key) -> None:
        """Ask for a channel; it is confirmed when Redis answers."""
        self.keys[name] = key
        self._subscribe(name)

    def unsubscribe(self, name: bytes) -> None:
        """Ask for a channel no more."""
        self.keys.pop(name, None)
        self._adrift.pop(name, None)
        for feed in self._feeds.values():
            if name in feed.names:
                feed.unsubscribe(name)

    def _subscribe(self, name: bytes) -> None:
        owner = self._servers.owner(name)
        if owner is None:
            self._set_adrift([name])
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
        except Exception:  # a fault of ours must not leave the node deaf
            logger.exception("reading from Redis broke off, reconnecting")
        del self._feeds[address]
        self._servers.doubt(address)
        if feed.connected:
            self._handler.cut_off(feed.names)
        self._set_adrift(feed.names)

    def _set_adrift(self, names: Collection[bytes]) -> None:
        self._adrift.update(dict.fromkeys(names))
        self._attempt = max(self._attempt, 1)
        self._to_place.set()

    async def _place(self) -> None:
        """Find a server for every channel without one, and stay connected to those that are always needed."""
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
                logger.warning("Redis cannot be reached (%s), trying on", reason_of(error))
                continue
            self._to_place.clear()
            names, self._adrift = self._adrift, {}
            for name in names:
                if name in self.keys:
                    self._subscribe(name)
            if not self._servers.always:
                self._reached.set()

    # --- what one feed hears: see .reader.Listener

    def reached(self) -> None:
        """The connection stands."""
        self._reached.set()

    def answered(self) -> None:
        """The server serves: the next attempt to reach one need not wait."""
        self._attempt = 0

    def dropped(self, name: bytes) -> None:
        """The feed asks for it again."""
        self._handler.dropped([name])

    def moved(self, names: list[bytes], owner: Address) -> None:
        """Ask the server that has them."""
        self._handler.dropped(names)
        for name in names:
            self._servers.moved(name, owner)
            if name in self.keys:  # else it was unsubscribed when it was dropped
                self._feed(owner).subscribe(name, self.keys[name])

    def unserved(self, names: list[bytes]) -> None:
        """Find a server that serves them."""
        self._handler.dropped(names)
        self._set_adrift(names)
