"""How messages reach every node: a local bus for one process, and sharded pub/sub on Redis.

The contract, which one suite of tests holds both to:

* ``publish`` returns when the message is accepted; it raises :class:`BusError` when it was not, or may not
  have been. Messages of one publisher on one channel are delivered in the order of its calls.
* ``subscribe`` asks for a channel; ``confirmed`` is called for it, at once or later, and everything
  published from then on is passed to ``deliver``, the own node's messages too.
* Delivery is at most once. When a connection is lost, or a channel moves to another node of a Cluster,
  ``lost`` is called with the channels that were delivered until then and ``gaps`` counts one; their
  subscriptions come back by themselves and ``confirmed`` is called again. What was published meanwhile is
  lost.
* ``connected`` is false from then until every channel has a server that is reached.
* After ``unsubscribe`` nothing is delivered. A node keeps the channel on Redis for a few seconds all the same
  (:mod:`legato.broadcaster.bus.linger`): whoever subscribes again in that time is confirmed at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Protocol

from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    RedisError,
    ResponseError,
)

from legato.broadcaster.waiting import RETRY_SECONDS, end_task, reason_of
from legato.protocol import redis_url, wire
from legato.protocol.redis.cluster import Cluster
from legato.protocol.redis.connections import connect

from .line import Line
from .reader import Feed
from .topology import OneServer, Servers, Shards

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence

    from legato.broadcaster.channels.subscriber import Key
    from legato.protocol.redis.pipeline import Named
    from legato.protocol.redis_url import Address
    from legato.protocol.wire import Envelope

    Deliver = Callable[[Line, Envelope], None]
    Confirmed = Callable[[Key], None]
    Lost = Callable[[Collection[Key]], None]

__all__ = [
    "RETRY_SECONDS",
    "Bus",
    "BusError",
    "LocalBus",
    "RedisBus",
    "ask",
    "end_task",
    "reason_of",
    "redis_client",
]

logger: Final = logging.getLogger("legato.bus")

MAX_OUTBOX: Final = 10_000
"""Messages that may wait for Redis; beyond, publishing fails at once."""


class BusError(Exception):
    """The bus cannot be reached, or is over its bound. The text names no credentials."""


class RefusedError(BusError):
    """Redis answers, but does not do it: it is full, read-only, loading, or cannot write to its disk."""


class Bus(Protocol):
    """See the module's contract."""

    @property
    def gaps(self) -> int:
        """How often the connection was lost."""

    @property
    def connected(self) -> bool:
        """Whether nothing that is asked for is missed right now, as far as is known."""

    async def start(self, deliver: Deliver, confirmed: Confirmed, lost: Lost) -> None:
        """Connect.

        :raises BusError: there is nothing to connect to.
        """

    def post(self, messages: Sequence[tuple[Key, Envelope]]) -> asyncio.Future[None] | None:
        """Accept all, in order: at once, or when the future is done.

        :raises BusError: not all were accepted; or the future does.
        """

    async def publish(self, messages: Sequence[tuple[Key, Envelope]]) -> None:
        """:meth:`post` and wait.

        :raises BusError: not all were accepted.
        """

    def subscribe(self, key: Key) -> None:
        """Ask for a channel."""

    def unsubscribe(self, key: Key) -> None:
        """Ask for a channel no more."""

    async def close(self) -> None:
        """Deliver nothing any more."""


class LocalBus:
    """One process, no Redis: publishing is delivering."""

    def __init__(self) -> None:
        self.gaps = 0
        self.connected = True
        self._channels: dict[Key, Line] = {}

    async def start(self, deliver: Deliver, confirmed: Confirmed, lost: Lost) -> None:
        """Remember whom to call; a local bus is never lost."""
        del lost
        self._deliver = deliver
        self._confirmed = confirmed

    def post(self, messages: Sequence[tuple[Key, Envelope]]) -> None:
        """Deliver at once to the own node."""
        for key, envelope in messages:
            if (line := self._channels.get(key)) is not None:
                self._deliver(line, envelope)

    async def publish(self, messages: Sequence[tuple[Key, Envelope]]) -> None:
        """As :meth:`post`."""
        self.post(messages)

    def subscribe(self, key: Key) -> None:
        """Confirm at once."""
        self._channels[key] = Line(key)
        self._confirmed(key)

    def unsubscribe(self, key: Key) -> None:
        """Forget the channel."""
        self._channels.pop(key, None)

    async def close(self) -> None:
        """Forget everything."""
        self._channels.clear()


def redis_client(url: str, prefix: str = "") -> Named:
    """A client that waits for a connection of its pool and never repeats a command by itself.

    A blind repeat would publish twice, so whoever calls decides.

    :param prefix: of all names that the installation uses (:mod:`legato.protocol.names`).
    :raises SettingsError: the URL is not one of those that :mod:`legato.protocol.redis_url` knows.
    """
    return connect(
        redis_url.parse(url),
        prefix,
        max_connections=32,
        timeout=5,
        socket_timeout=5,
        socket_connect_timeout=5,
        health_check_interval=15,
        retry=Retry(NoBackoff(), 0),
    )


class RedisBus:
    """Sharded pub/sub: a node receives only what its own subscribers need.

    One task writes what is published, in pipelines that grow with the load. Each server that has channels of
    ours is read by a :class:`.reader.Feed`; one more task finds a server for channels that have none.
    """

    def __init__(self, redis: Named) -> None:
        self.gaps = 0
        self._redis = redis
        self._names = redis.names
        self._servers: Servers = Shards(redis) if isinstance(redis, Cluster) else OneServer(redis)
        self._keys: dict[bytes, Key] = {}
        self._delivering: set[Key] = set()
        self._feeds: dict[Address, Feed] = {}
        self._adrift: dict[bytes, None] = {}
        self._to_place = asyncio.Event()
        self._connected = asyncio.Event()
        self._outbox: deque[tuple[list[tuple[str, bytes]], asyncio.Future[None]]] = deque()
        self._outbox_messages = 0
        self._outbox_ready = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._attempt = 0

    async def start(self, deliver: Deliver, confirmed: Confirmed, lost: Lost) -> None:
        """Connect and stay connected."""
        self._deliver = deliver
        self._confirmed = confirmed
        self._lost = lost
        try:
            await self._redis.ping()
            known = await self._servers.know("SSUBSCRIBE")
        except (RedisError, OSError) as error:
            raise BusError(f"Redis cannot be reached: {reason_of(error)}") from error
        if not known:
            raise BusError("this Redis has no SSUBSCRIBE; Redis 7.0 or newer, or Valkey, is needed")
        self._to_place.set()
        self._sender = asyncio.create_task(self._send())
        self._spawn(self._place())
        await self._connected.wait()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """End the tasks; what still waits in the outbox fails."""
        for task in (self._sender, *self._tasks):
            await end_task(task)
        while self._outbox:
            _settle(self._outbox.popleft()[1], BusError("the server stops"))

    @property
    def connected(self) -> bool:
        """Whether every server that is listened to is reached, and every channel has one."""
        return not self._to_place.is_set() and all(feed.connected for feed in self._feeds.values())

    # --- publishing

    async def publish(self, messages: Sequence[tuple[Key, Envelope]]) -> None:
        """:meth:`post`, and wait for Redis to accept it."""
        await self.post(messages)

    def post(self, messages: Sequence[tuple[Key, Envelope]]) -> asyncio.Future[None]:
        """Queue for the next pipeline."""
        if self._outbox_messages + len(messages) > MAX_OUTBOX:
            raise BusError("too many messages wait for Redis")
        name_of = self._names.bus_channel
        batch = [(name_of(*key), wire.encode_envelope(envelope)) for key, envelope in messages]
        accepted = asyncio.get_running_loop().create_future()
        self._outbox.append((batch, accepted))
        self._outbox_messages += len(batch)
        self._outbox_ready.set()
        return accepted

    async def _send(self) -> None:
        while True:
            await self._outbox_ready.wait()
            self._outbox_ready.clear()
            taken = list(self._outbox)
            self._outbox.clear()
            self._outbox_messages = 0
            failures: list[BusError | None] = [BusError("the server stops")] * sum(
                len(batch) for batch, _ in taken
            )
            try:
                failures = await self._send_pipeline([message for batch, _ in taken for message in batch])
            finally:
                rest = iter(failures)
                for batch, accepted in taken:
                    of_batch = [
                        failure for _, failure in zip(batch, rest, strict=False) if failure is not None
                    ]
                    _settle(accepted, of_batch[0] if of_batch else None)

    async def _send_pipeline(self, batch: list[tuple[str, bytes]]) -> list[BusError | None]:
        """Of each message, why it was not accepted or may not have been; None if it was."""
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for channel, data in batch:
                    pipeline.execute_command("SPUBLISH", channel, data)
                answers = await pipeline.execute(raise_on_error=False)
        except (RedisError, OSError) as error:
            return [_refused(error)] * len(batch)
        except Exception:  # a fault of ours must not leave every publisher waiting
            logger.exception("publishing broke off")
            return [BusError("the messages could not be published")] * len(batch)
        return [_refused(answer) if isinstance(answer, Exception) else None for answer in answers]

    # --- subscribing

    def subscribe(self, key: Key) -> None:
        """Ask for a channel; it is confirmed when Redis answers."""
        name = self._names.bus_channel(*key).encode()
        self._keys[name] = key
        self._subscribe(name)

    def unsubscribe(self, key: Key) -> None:
        """Ask for a channel no more."""
        name = self._names.bus_channel(*key).encode()
        self._keys.pop(name, None)
        self._adrift.pop(name, None)
        self._delivering.discard(key)
        for feed in self._feeds.values():
            if name in feed.names:
                feed.unsubscribe(name)

    def _subscribe(self, name: bytes) -> None:
        owner = self._servers.owner(name)
        if owner is None:
            self._set_adrift([name])
        else:
            self._feed(owner).subscribe(name, self._keys[name])

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
            self._lose(feed.names, always=True)
        self._set_adrift(feed.names)

    def _lose(self, names: Collection[bytes], *, always: bool = False) -> None:
        """Tell that these are not delivered any more; without any only if ``always``."""
        keys = [key for name in names if (key := self._keys.get(name)) is not None]
        lost = [key for key in keys if key in self._delivering]
        self._delivering.difference_update(lost)
        if lost or always:
            self.gaps += 1
            self._lost(lost)

    def _set_adrift(self, names: Collection[bytes]) -> None:
        self._adrift.update(dict.fromkeys(names))
        self._attempt = max(self._attempt, 1)
        self._to_place.set()

    async def _place(self) -> None:
        """Find a server for every channel without one, and stay connected to those that are always needed."""
        while True:
            await self._to_place.wait()
            if self._attempt:
                await asyncio.sleep(RETRY_SECONDS[min(self._attempt, len(RETRY_SECONDS)) - 1])
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
                if name in self._keys:
                    self._subscribe(name)
            if not self._servers.always:
                self._connected.set()

    # --- what the feeds hear

    def heard(self, line: Line, data: bytes) -> None:
        """See :class:`.reader.Listener`."""
        try:
            envelope = wire.decode_envelope(data)
        except wire.EnvelopeError as error:
            logger.warning("ignored a message on the bus: %s", error)
            return
        self._deliver(line, envelope)

    def confirmed(self, name: bytes) -> None:
        """See :class:`.reader.Listener`."""
        key = self._keys.get(name)
        if key is not None:
            self._delivering.add(key)
            self._confirmed(key)

    def reached(self) -> None:
        """See :class:`.reader.Listener`."""
        self._connected.set()

    def answered(self) -> None:
        """See :class:`.reader.Listener`."""
        self._attempt = 0

    def dropped(self, name: bytes) -> None:
        """See :class:`.reader.Listener`."""
        self._lose([name])

    def moved(self, names: list[bytes], owner: Address) -> None:
        """See :class:`.reader.Listener`."""
        self._lose(names)
        for name in names:
            self._servers.moved(name, owner)
            if name in self._keys:  # else it was dropped when told of the loss
                self._feed(owner).subscribe(name, self._keys[name])

    def unserved(self, names: list[bytes]) -> None:
        """See :class:`.reader.Listener`."""
        self._lose(names)
        self._set_adrift(names)


_REFUSALS: Final = (ResponseError, BusyLoadingError, AuthenticationError, AuthorizationError)


async def ask(call: Awaitable[Any] | Any) -> Any:
    """What Redis answers, with its errors translated.

    :raises BusError: it does not answer, or refuses. The text says why: it is for the log and for operators.
    """
    try:
        return await call
    except _REFUSALS as error:
        raise RefusedError(f"Redis refuses: {reason_of(error)}") from error
    except (RedisError, OSError, TimeoutError) as error:
        raise BusError(f"Redis does not answer: {reason_of(error)}") from error


def _refused(error: Exception) -> BusError:
    return BusError(f"Redis did not accept the messages: {reason_of(error)}")


def _settle(accepted: asyncio.Future[None], failure: BusError | None) -> None:
    if accepted.done():  # the publisher has gone
        return
    if failure is None:
        accepted.set_result(None)
    else:
        accepted.set_exception(failure)
