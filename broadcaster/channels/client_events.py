"""Client events, from one client to the other subscribers of a channel (protocol section 6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from legato.protocol import messages
from legato.protocol.wire import Envelope

from .subscriber import Key

if TYPE_CHECKING:
    from legato.broadcaster.bus.best_effort import BestEffort
    from legato.broadcaster.clients.client import Client
    from legato.broadcaster.webhooks.dispatcher import Webhooks
    from legato.protocol.session import Relay, Session


class ClientEvents:
    """Relays client events to all nodes.

    :ivar relayed: number of events relayed since the start.
    """

    def __init__(self, bus: BestEffort, webhooks: Webhooks) -> None:
        self._bus = bus
        self._webhooks = webhooks
        self.relayed = 0

    def relay(self, client: Client, session: Session, effect: Relay) -> None:
        """Publish a client event to all other subscribers, and to webhooks."""
        key = Key(session.app.id, effect.channel)
        payload = messages.client_event(effect.event, effect.channel, effect.data, effect.user_id)
        self.relayed += 1
        data = effect.data or None
        self._webhooks.client_event(*key, effect.event, data, client.socket_id, effect.user_id)
        self._bus.post(key, Envelope(payload, client.socket_id))
