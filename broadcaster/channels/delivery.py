"""From the bus to the hub: who handles a message of which kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from legato.protocol import errors
from legato.protocol.wire import CACHED, RECONNECT, TERMINATE

from .presence import MEMBER_CHANGE

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from legato.broadcaster.bus.base import BusChannel
    from legato.broadcaster.bus.fence import Fence
    from legato.broadcaster.clients.client import Client
    from legato.broadcaster.replies.resync import Recovery
    from legato.protocol.errors import PusherError
    from legato.protocol.wire import Envelope

    from .hub import Hub
    from .kinds import ChannelKinds
    from .subscriber import Key

    Dismiss = Callable[[Collection[Client], PusherError], None]

COMMANDS: Final = {TERMINATE: errors.TERMINATED, RECONNECT: errors.RECONNECT}
"""Messages that end the connections which have the channel, and why."""


class Delivery:
    """Satisfies :class:`~legato.broadcaster.bus.base.BusHandler`.

    :param dismiss: closes connections, for a command.
    """

    def __init__(
        self, hub: Hub, kinds: ChannelKinds, recovery: Recovery, fence: Fence, dismiss: Dismiss
    ) -> None:
        self._hub = hub
        self._healer = kinds.healer
        self._cached = kinds.cached
        self._rosters = kinds.rosters
        self._recovery = recovery
        self._fence = fence
        self._dismiss = dismiss

    def message(self, channel: BusChannel, envelope: Envelope) -> None:
        """Frames of replies go to the healer, everything else by its kind."""
        if envelope.stream is not None and self._healer is not None:
            self._healer.take(channel, envelope)
        else:
            self.deliver(channel.key, envelope)

    def deliver(self, key: Key, envelope: Envelope) -> None:
        """Plain events go straight to the hub."""
        command, payload = envelope.command, envelope.payload
        if not command:
            if payload.startswith(MEMBER_CHANGE):
                self._rosters.take(key, envelope)
            else:
                self._hub.deliver(key, payload, envelope.except_socket_id)
        elif command in COMMANDS:
            clients = [cast("Client", subscriber) for subscriber in self._hub.subscribers(key)]
            self._dismiss(clients, COMMANDS[command])
        elif command == CACHED:
            self._cached.take(key, envelope)
        else:
            self._hub.deliver(key, payload, envelope.except_socket_id)

    def confirmed(self, key: Key) -> None:
        """The channel is delivered: its subscriptions go on. It may have missed something before."""
        if self._healer is not None:
            self._healer.open(key)
        missed = self._hub.confirm(key)
        self._fence.confirmed(key)
        if missed:
            self._recovery.missed(key)

    def lost(self, keys: Collection[Key]) -> None:
        """Subscriptions to these wait until they are confirmed again."""
        self._hub.suspend(keys)
        self._fence.lost(keys)
