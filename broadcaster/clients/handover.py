"""Prepares clients for their move to another node, so that they miss no message of this one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from legato.protocol.session import SignIn, Subscribe

from .ends import ENDED

if TYPE_CHECKING:
    from collections.abc import Iterable

    from legato.broadcaster.bus.fence import Fence
    from legato.broadcaster.channels.departure import Departures
    from legato.broadcaster.channels.hub import Hub
    from legato.broadcaster.registry.base import Registry

    from .client import Client


class Handover:
    """Ends the subscriptions of clients that are about to be closed."""

    def __init__(self, hub: Hub, registry: Registry, departures: Departures, fence: Fence) -> None:
        self._hub = hub
        self._registry = registry
        self._departures = departures
        self._fence = fence

    async def prepare(self, clients: Iterable[Client]) -> None:
        """End subscriptions in the registry, and wait until everything published before is delivered.

        :raises BusError: Redis does not answer.
        """
        channels = set()
        for client in clients:
            for key, claim in list(client.keys.items()):
                if isinstance(claim, (Subscribe, SignIn)) and not self._hub.waits(client, key):
                    client.keys[key] = ENDED
                    self._departures.end(client, key, claim, disconnect=True)
                    channels.add(key)
        await self._registry.flush()
        await self._fence.passed(key for key in channels if self._hub.count(key))
