"""The bus over Redis, with sharded pub/sub. A node receives only the channels of its own subscribers."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from redis.exceptions import RedisError

from legato.broadcaster.limits import CHANNEL_LINGER_SECONDS
from legato.protocol import wire
from legato.protocol.redis.errors import reason_of

from .base import BusError
from .feeds import Feeds
from .linger import Lingering
from .outbox import Outbox

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from legato.broadcaster.channels.subscriber import Key
    from legato.protocol.redis.pipeline import Named
    from legato.protocol.wire import Envelope

    from .base import BusChannel, BusHandler

logger: Final = logging.getLogger("legato.bus")


class RedisBus:
    """See :mod:`.base`.

    A channel stays subscribed for a few seconds after its last subscriber has left, so that a page reload
    finds it confirmed at once. Messages that arrive meanwhile are discarded.

    :param linger_seconds: how long it stays subscribed.
    """

    def __init__(self, redis: Named, linger_seconds: float = CHANNEL_LINGER_SECONDS) -> None:
        self.gaps = 0
        self._redis = redis
        self._names = redis.names
        self._delivering: set[Key] = set()
        self._feeds = Feeds(redis, self)
        self._outbox = Outbox(redis)
        self._lingering = Lingering(linger_seconds, self._unsubscribe_now)
        self.post = self._outbox.post

    async def start(self, handler: BusHandler) -> None:
        """Connect, and reconnect whenever the connection is lost."""
        self._on_message = handler.message
        self._on_confirmed = handler.confirmed
        self._on_lost = handler.lost
        try:
            await self._redis.ping()
            await self._feeds.start()
        except (RedisError, OSError) as error:
            raise BusError(f"Redis cannot be reached: {reason_of(error)}") from error
        self._outbox.start()

    async def close(self) -> None:
        """Stop delivering. Messages that still wait to be published fail."""
        self._lingering.close()
        await self._outbox.close()
        await self._feeds.close()

    @property
    def connected(self) -> bool:
        """Whether every server in use is connected, and every channel has one."""
        return self._feeds.connected

    async def publish(self, messages: Sequence[tuple[Key, Envelope]]) -> None:
        """:meth:`post`, and wait for Redis to accept it."""
        await self.post(messages)

    def subscribe(self, key: Key) -> None:
        """Request a channel. A lingering one is still being delivered: it is confirmed at once."""
        if self._lingering.take(key):
            self._on_confirmed(key)
        else:
            self._feeds.subscribe(self._name(key), key)

    def unsubscribe(self, key: Key) -> None:
        """End a subscription: after the linger time, or at once if it is not being delivered."""
        if key in self._delivering and self._lingering.seconds:
            self._lingering.put(key)
        else:
            self._unsubscribe_now(key)

    def _unsubscribe_now(self, key: Key) -> None:
        self._delivering.discard(key)
        self._feeds.unsubscribe(self._name(key))

    def _name(self, key: Key) -> bytes:
        return self._names.bus_channel(*key).encode()

    # --- calls of the feeds: see .feeds.FeedsHandler

    def heard(self, channel: BusChannel, data: bytes) -> None:
        """Decode a message and pass it on."""
        try:
            envelope = wire.decode_envelope(data)
        except wire.EnvelopeError as error:
            logger.warning("ignored a message on the bus: %s", error)
            return
        lingering = self._lingering.keys
        if not lingering or channel.key not in lingering:  # usually empty: saves hashing the key
            self._on_message(channel, envelope)

    def confirmed(self, name: bytes) -> None:
        """Pass it on, unless the channel is lingering or unsubscribed."""
        key = self._feeds.keys.get(name)
        if key is None:
            return
        self._delivering.add(key)
        if key not in self._lingering.keys:
            self._on_confirmed(key)

    def dropped(self, names: Collection[bytes]) -> None:
        """Report the channels that were being delivered."""
        lost = self._not_delivering(names)
        if lost:
            self._lose(lost)

    def cut_off(self, names: Collection[bytes]) -> None:
        """Report the lost connection, even if no channel was being delivered."""
        self._lose(self._not_delivering(names))

    def _not_delivering(self, names: Collection[bytes]) -> list[Key]:
        """Mark channels as not delivered. Returns those that were."""
        keys = [key for name in names if (key := self._feeds.keys.get(name)) is not None]
        lost = [key for key in keys if key in self._delivering]
        self._delivering.difference_update(lost)
        return lost

    def _lose(self, lost: Collection[Key]) -> None:
        self.gaps += 1
        for key in lost:  # before the others are subscribed again: unused channels are not
            if self._lingering.take(key):
                self._unsubscribe_now(key)
        self._on_lost(lost)
