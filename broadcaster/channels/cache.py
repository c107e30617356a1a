"""Tracks which version of a cache channel's event this node has delivered, to repair a missed one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from legato.protocol import messages

if TYPE_CHECKING:
    from collections.abc import Sequence

    from legato.broadcaster.registry.base import Registry
    from legato.protocol.wire import Envelope

    from .hub import Hub
    from .subscriber import Key


class _Versions:
    """Versions of the newest event delivered, and of the last one that was read again after a gap."""

    __slots__ = ("newest", "read")

    def __init__(self, newest: int) -> None:
        self.newest = newest
        self.read = 0


class CachedChannels:
    """The cache channels with subscribers on this node.

    :ivar read: number of events that were read again and delivered.
    """

    def __init__(self, registry: Registry, hub: Hub) -> None:
        self._registry = registry
        self._hub = hub
        self._versions: dict[Key, _Versions] = {}
        self.read = 0

    def take(self, key: Key, envelope: Envelope) -> None:
        """Deliver an event that was published and cached."""
        version = int(envelope.detail)
        last = self._channel(key, version)
        if last is None or version <= last.read:
            return  # this one or a newer one was read again: it must not come after that
        last.newest = max(last.newest, version)
        self._hub.deliver(key, envelope.payload, envelope.except_socket_id)

    def welcomed(self, key: Key, version: int) -> None:
        """Note the version sent to a new subscriber, 0 for none. Only the channel's first one counts."""
        self._channel(key, version)

    def drop(self, key: Key) -> None:
        """Forget a channel without local subscribers."""
        self._versions.pop(key, None)

    def _channel(self, key: Key, version: int) -> _Versions | None:
        last = self._versions.get(key)
        if last is None and self._hub.count(key):
            last = self._versions[key] = _Versions(version)
        return last

    async def read_again(self, keys: Sequence[Key]) -> None:
        """Read and deliver the last event of channels that may have missed it, unless they have it.

        :raises BusError: Redis does not answer.
        """
        for key, version in zip(keys, await self._registry.versions(keys), strict=True):
            last = self._channel(key, 0)
            if last is None or version <= last.newest:
                continue
            cached = await self._registry.recall(key)
            if cached is not None and self._versions.get(key) is last and cached.version > last.newest:
                last.newest = last.read = cached.version
                self._hub.deliver(key, messages.channel_event(cached.event, key.channel, cached.data))
                self.read += 1
