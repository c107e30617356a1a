"""Requests channels from the bus for the hub, and continues subscriptions once they are delivered."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from legato.protocol.session import SignIn, Subscribe

from .listener import ChannelListener

if TYPE_CHECKING:
    from legato.broadcaster.bus.base import Bus
    from legato.broadcaster.bus.fence import Fence
    from legato.broadcaster.clients.client import Client

    from .hub import Hub
    from .kinds import ChannelKinds
    from .sign_in import SignIns
    from .subscriber import Key, Subscriber
    from .subscription import Subscriptions


class Demand:
    """Satisfies :class:`.hub.HubHandler`. A channel is requested while it has local subscribers."""

    def __init__(
        self,
        hub: Hub,
        bus: Bus,
        kinds: ChannelKinds,
        fence: Fence,
        subscriptions: Subscriptions,
        sign_ins: SignIns,
    ) -> None:
        self._hub = hub
        self._bus = bus
        self._healer = kinds.healer
        self._cached = kinds.cached
        self._fence = fence
        self._subscriptions = subscriptions
        self._sign_ins = sign_ins
        self.opened = bus.subscribe

    def ready(self, subscriber: Subscriber, key: Key) -> None:
        """The bus delivers the channel: continue the subscription or sign-in."""
        if isinstance(subscriber, ChannelListener):
            subscriber.ready()
            return
        client = cast("Client", subscriber)
        match client.keys.get(key):
            case Subscribe() as effect:
                self._subscriptions.register(client, key, effect)
            case SignIn() as effect:
                self._sign_ins.register(client, key, effect)
            case None:
                self._hub.admit(client, key, b"")

    def vacated(self, key: Key) -> None:
        """Drop the state of a channel without subscribers, and unsubscribe from it on the bus."""
        if self._healer is not None:
            self._healer.drop(key)
        self._cached.drop(key)
        self._bus.unsubscribe(key)
        self._fence.confirmed(key)
