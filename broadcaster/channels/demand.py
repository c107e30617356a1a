"""From the hub to the bus: which channels this node needs, and what goes on once one is delivered."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from legato.protocol.session import SignIn, Subscribe

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
    """Satisfies :class:`.hub.HubHandler`: a channel is asked for from its first subscriber to its last."""

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
        """The bus delivers the channel: go on with what the client has it for."""
        client = cast("Client", subscriber)
        match client.keys.get(key):
            case Subscribe() as effect:
                self._subscriptions.register(client, key, effect)
            case SignIn() as effect:
                self._sign_ins.register(client, key, effect)
            case None:
                self._hub.admit(client, key, b"")

    def vacated(self, key: Key) -> None:
        """Forget what was kept for the channel, and ask the bus for it no more."""
        if self._healer is not None:
            self._healer.drop(key)
        self._cached.drop(key)
        self._bus.unsubscribe(key)
        self._fence.confirmed(key)
