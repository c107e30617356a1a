"""Presence on this node: delivers member changes, and resends the member list after a gap."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from legato.protocol import messages, presence

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from legato.broadcaster.registry.base import Registry
    from legato.protocol.presence import Member
    from legato.protocol.wire import Envelope

    from .hub import Hub
    from .subscriber import Key

MEMBER_CHANGE: Final = b'{"event":"pusher_internal:member_'
"""Prefix of the payloads ``member_added`` and ``member_removed``."""


class _PendingRead(NamedTuple):
    """A member list that is being read: changes since then, and the sockets that get a newer list anyway."""

    changes: list[Envelope]
    newcomers: set[str]


class MemberLists:
    """The presence channels with subscribers on this node.

    :ivar told: number of member lists that were sent again, one per channel.
    """

    def __init__(self, registry: Registry, hub: Hub) -> None:
        self._registry = registry
        self._hub = hub
        self._reading: dict[Key, _PendingRead] = {}
        self._sockets: dict[tuple[Key, str], set[str]] = {}
        self.told = 0

    def came(self, key: Key, member: Member, socket_id: str) -> None:
        """Note that a connection of this node subscribes as this member. Idempotent."""
        self._sockets.setdefault((key, member.id), set()).add(socket_id)
        if key in self._reading:
            self._reading[key].newcomers.add(socket_id)

    def went(self, key: Key, member: Member, socket_id: str) -> None:
        """Note that it no longer does. Idempotent."""
        sockets = self._sockets.get((key, member.id))
        if sockets is not None:
            sockets.discard(socket_id)
            if not sockets:
                del self._sockets[key, member.id]

    def take(self, key: Key, envelope: Envelope) -> None:
        """Deliver a member change. If the list is being read, repeat the change after it: it may be newer."""
        if key in self._reading:
            self._reading[key].changes.append(envelope)
        self._hub.deliver(
            key, envelope.payload, envelope.except_socket_id, self._returned(key, envelope.payload)
        )

    def _returned(self, key: Key, payload: bytes) -> Collection[str]:
        """The sockets of the user that a ``member_removed`` names, who came back while it was in flight.

        Redis has added that user after the removal, and the sockets have the user in their list. They must
        not get the old removal after it, since they do not get their own ``member_added`` either.
        """
        if not self._sockets:
            return ()
        user = presence.removed_user(payload)
        return () if user is None else self._sockets.get((key, user), ())

    async def tell_again(self, keys: Sequence[Key]) -> None:
        """Send the full member list, as in the answer to a subscription, and the changes since it was read.

        Subscribers that are answered after the list was requested are excluded: their list may be newer.

        :raises BusError: Redis does not answer.
        """
        if not keys:
            return
        for key in keys:
            newcomers = {subscriber.socket_id for subscriber in self._hub.unanswered(key)}
            self._reading[key] = _PendingRead([], newcomers)
        try:
            for key, members in zip(keys, await self._registry.member_lists(keys), strict=True):
                self._tell(key, members, self._reading[key])
                self.told += 1
        finally:
            for key in keys:
                self._reading.pop(key, None)

    def _tell(self, key: Key, members: Collection[Member], reading: _PendingRead) -> None:
        roster = messages.subscription_succeeded(key.channel, presence.roster_data(members))
        self._hub.deliver(key, roster, None, reading.newcomers)
        for envelope in reading.changes:
            nor = {*reading.newcomers, *self._returned(key, envelope.payload)}
            self._hub.deliver(key, envelope.payload, envelope.except_socket_id, nor)
