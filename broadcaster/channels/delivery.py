"""Dispatches the messages of the bus by kind: to the hub, the healer, the member lists, the cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from legato.protocol import errors
from legato.protocol.wire import CACHED, RECONNECT, TERMINATE

from .listener import ChannelListener
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
"""Commands that close the connections of a channel, with the close code of each."""


class Delivery:
    """Satisfies :class:`~legato.broadcaster.bus.base.BusHandler`.

    :param dismiss: closes connections.
    """

    def __init__(
        self, hub: Hub, kinds: ChannelKinds, recovery: Recovery, fence: Fence, dismiss: Dismiss
    ) -> None:
        self._hub = hub
        self._healer = kinds.healer
        self._cached = kinds.cached
        self._member_lists = kinds.member_lists
        self._recovery = recovery
        self._fence = fence
        self._dismiss = dismiss

    def message(self, channel: BusChannel, envelope: Envelope) -> None:
        """Pass frames of replies to the healer, and dispatch everything else by kind."""
        if envelope.stream is not None and self._healer is not None:
            self._healer.take(channel, envelope)
        else:
            self.deliver(channel.key, envelope)

    def deliver(self, key: Key, envelope: Envelope) -> None:
        """Dispatch a message that is no reply. Plain events go straight to the hub."""
        command, payload = envelope.command, envelope.payload
        if not command:
            if payload.startswith(MEMBER_CHANGE):
                self._member_lists.take(key, envelope)
            else:
                self._hub.deliver(key, payload, envelope.except_socket_id)
        elif command in COMMANDS:
            there = self._hub.subscribers(key)
            clients = [cast("Client", one) for one in there if not isinstance(one, ChannelListener)]
            self._dismiss(clients, COMMANDS[command])
        elif command == CACHED:
            self._cached.take(key, envelope)
        else:
            self._hub.deliver(key, payload, envelope.except_socket_id)

    def confirmed(self, key: Key) -> None:
        """Continue the channel's subscriptions; after a gap, also start its recovery."""
        if self._healer is not None:
            self._healer.open(key)
        missed = self._hub.confirm(key)
        self._fence.confirmed(key)
        if missed:
            self._recovery.missed(key)

    def lost(self, keys: Collection[Key]) -> None:
        """Suspend subscriptions to these channels until they are confirmed again."""
        self._hub.suspend(keys)
        self._fence.lost(keys)
