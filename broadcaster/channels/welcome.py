"""Sends what follows the answer to a subscription: cached event, reply snapshots, then the count."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from legato.broadcaster.bus.base import BusError
from legato.broadcaster.transport.frames import text_frame
from legato.protocol import messages

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from legato.broadcaster.clients.client import Client
    from legato.broadcaster.registry.base import Joined, Registry
    from legato.broadcaster.replies.snapshot import Observer
    from legato.protocol.session import Subscribe

    from .announcements import Announcements
    from .hub import Hub
    from .kinds import ChannelKinds
    from .subscriber import Key

logger: Final = logging.getLogger("legato.node")


class Welcome:
    """The follow-ups of all subscriptions of this node.

    :param spawn: runs a coroutine in the background.
    :ivar observe: starts to observe a channel for snapshots; None when chat is off.
    """

    def __init__(
        self,
        hub: Hub,
        registry: Registry,
        kinds: ChannelKinds,
        announcements: Announcements,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._hub = hub
        self._registry = registry
        self._healer = kinds.healer
        self.observe = None if kinds.healer is None else kinds.healer.observe
        self._cached = kinds.cached
        self._announcements = announcements
        self._spawn = spawn

    def begin(
        self, client: Client, key: Key, effect: Subscribe, joined: Joined, observer: Observer | None
    ) -> None:
        """Send the follow-ups in the background, since they need Redis."""
        self._spawn(self._welcome(client, key, effect, joined, observer))

    async def _welcome(
        self, client: Client, key: Key, effect: Subscribe, joined: Joined, observer: Observer | None
    ) -> None:
        cached: list[bytes] = []
        snapshots: list[bytes] = []
        try:
            cached = await self._cached_event(key) if effect.channel.cache else []
            if self._healer is not None and observer is not None:
                snapshots = await self._healer.snapshots(key, observer)
        except BusError as error:
            logger.warning("a new subscriber gets no snapshot: %s", error)
        if client.keys.get(key) is effect:
            for frame in cached:
                client.send(frame)
            if snapshots:  # after the channel's delivered frames: they state what follows these
                self._hub.admit(client, key, b"".join(map(text_frame, snapshots)))
        self._announcements.counted(key, effect.member, joined)

    async def _cached_event(self, key: Key) -> list[bytes]:
        cached = await self._registry.recall(key)
        self._cached.welcomed(key, 0 if cached is None else cached.version)
        if cached is None:
            self._announcements.cache_miss(key)
            return [messages.cache_miss(key.channel)]
        return [messages.channel_event(cached.event, key.channel, cached.data)]
