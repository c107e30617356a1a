"""Which event of a cache channel this node's subscribers have got last, so that a newer one is not missed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from legato.protocol import messages

if TYPE_CHECKING:
    from collections.abc import Sequence

    from legato.broadcaster.registry.base import Registry
    from legato.protocol.wire import Envelope

    from .hub import Hub
    from .subscriber import Key


class _Told:
    """Versions: of the newest event that the channel got, and of the one that was read again."""

    __slots__ = ("newest", "read")

    def __init__(self, newest: int) -> None:
        self.newest = newest
        self.read = 0


class CachedChannels:
    """Of the cache channels with subscribers on this node.

    :ivar read: events that were read again and delivered.
    """

    def __init__(self, registry: Registry, hub: Hub) -> None:
        self._registry = registry
        self._hub = hub
        self._told: dict[Key, _Told] = {}
        self.read = 0

    def take(self, key: Key, envelope: Envelope) -> None:
        """What a publisher sent, and the channel keeps."""
        version = int(envelope.detail)
        told = self._channel(key, version)
        if told is None or version <= told.read:
            return  # it has been delivered, or a newer one: behind that, it would pass for the last
        told.newest = max(told.newest, version)
        self._hub.deliver(key, envelope.payload, envelope.except_socket_id)

    def welcomed(self, key: Key, version: int) -> None:
        """A new subscriber was sent what the channel keeps, 0 if nothing. Only the first one's counts."""
        self._channel(key, version)

    def drop(self, key: Key) -> None:
        """The channel has lost its last subscriber."""
        self._told.pop(key, None)

    def _channel(self, key: Key, version: int) -> _Told | None:
        told = self._told.get(key)
        if told is None and self._hub.count(key):
            told = self._told[key] = _Told(version)
        return told

    async def read_again(self, keys: Sequence[Key]) -> None:
        """These channels may have missed an event: the last one is delivered, unless they have it.

        :raises BusError: Redis does not answer.
        """
        for key, version in zip(keys, await self._registry.versions(keys), strict=True):
            told = self._channel(key, 0)
            if told is None or version <= told.newest:
                continue
            cached = await self._registry.recall(key)
            if cached is not None and self._told.get(key) is told and cached.version > told.newest:
                told.newest = told.read = cached.version
                self._hub.deliver(key, messages.channel_event(cached.event, key.channel, cached.data))
                self.read += 1
