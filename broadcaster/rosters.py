"""Who is on a presence channel, told once more to subscribers who may have missed who came and who went."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from protocol import messages, presence

if TYPE_CHECKING:
    from collections.abc import Sequence

    from protocol.wire import Envelope

    from .hub import Hub, Key
    from .registry import Registry

_CHANGE: Final = b'{"event":"pusher_internal:member_'


class Rosters:
    """Of the presence channels with subscribers on this node.

    :ivar told: lists that were told again, once for all of a channel.
    """

    def __init__(self, registry: Registry, hub: Hub) -> None:
        self._registry = registry
        self._hub = hub
        self._reading: dict[Key, list[Envelope]] = {}
        self.told = 0

    def take(self, key: Key, envelope: Envelope) -> None:
        """The channel delivers this. While its list is read, it may be newer than the list."""
        changes = self._reading.get(key)
        if changes is not None and envelope.payload.startswith(_CHANGE):
            changes.append(envelope)

    async def tell_again(self, keys: Sequence[Key]) -> None:
        """The whole list, as the answer to a subscription has it, and what has changed since it was read.

        :raises BusError: Redis does not answer.
        """
        if not keys:
            return
        self._reading |= {key: [] for key in keys}
        try:
            for key, members in zip(keys, await self._registry.rosters(keys), strict=True):
                roster = messages.subscription_succeeded(key.channel, presence.roster_data(members))
                self._hub.deliver(key, roster)
                for envelope in self._reading[key]:
                    self._hub.deliver(key, envelope.payload, envelope.except_socket_id)
                self.told += 1
        finally:
            for key in keys:
                self._reading.pop(key, None)
