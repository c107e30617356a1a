"""Who comes to a presence channel and who goes, told to its subscribers; and the whole list once more to
those who may have missed some of it.
"""

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
"""How the payload begins that tells of who comes and who goes."""


class _Reading(NamedTuple):
    """A list that is being read: what has changed since, and which sockets have, or get, a newer one."""

    changes: list[Envelope]
    newcomers: set[str]


class Rosters:
    """Of the presence channels with subscribers on this node.

    :ivar told: lists that were told again, once for all of a channel.
    """

    def __init__(self, registry: Registry, hub: Hub) -> None:
        self._registry = registry
        self._hub = hub
        self._reading: dict[Key, _Reading] = {}
        self._sockets: dict[tuple[Key, str], set[str]] = {}
        self.told = 0

    def came(self, key: Key, member: Member, socket_id: str) -> None:
        """A connection on this node subscribes as this member. Idempotent."""
        self._sockets.setdefault((key, member.id), set()).add(socket_id)
        if key in self._reading:
            self._reading[key].newcomers.add(socket_id)

    def went(self, key: Key, member: Member, socket_id: str) -> None:
        """It does no more. Idempotent."""
        sockets = self._sockets.get((key, member.id))
        if sockets is not None:
            sockets.discard(socket_id)
            if not sockets:
                del self._sockets[key, member.id]

    def take(self, key: Key, envelope: Envelope) -> None:
        """Deliver a change (:data:`MEMBER_CHANGE`). While the list is read, it may be newer than the list."""
        if key in self._reading:
            self._reading[key].changes.append(envelope)
        self._hub.deliver(key, envelope.payload, envelope.except_socket_id, self._own(key, envelope.payload))

    def _own(self, key: Key, payload: bytes) -> Collection[str]:
        """Connections of who has gone, by this message: those that come back while it is on its way.

        Redis has let them in after it, so they are in the list; they may hear of it behind their answer all
        the same, and their own ``member_added`` is not told to them.
        """
        if not self._sockets:
            return ()
        user = presence.removed_user(payload)
        return () if user is None else self._sockets.get((key, user), ())

    async def tell_again(self, keys: Sequence[Key]) -> None:
        """The whole list, as the answer to a subscription has it, and what has changed since it was read.

        Not to who is answered after it was asked for: that answer may be newer, and has them in it.

        :raises BusError: Redis does not answer.
        """
        if not keys:
            return
        for key in keys:
            newcomers = {subscriber.socket_id for subscriber in self._hub.unanswered(key)}
            self._reading[key] = _Reading([], newcomers)
        try:
            for key, members in zip(keys, await self._registry.rosters(keys), strict=True):
                self._tell(key, members, self._reading[key])
                self.told += 1
        finally:
            for key in keys:
                self._reading.pop(key, None)

    def _tell(self, key: Key, members: Collection[Member], reading: _Reading) -> None:
        roster = messages.subscription_succeeded(key.channel, presence.roster_data(members))
        self._hub.deliver(key, roster, None, reading.newcomers)
        for envelope in reading.changes:
            nor = {*reading.newcomers, *self._own(key, envelope.payload)}
            self._hub.deliver(key, envelope.payload, envelope.except_socket_id, nor)
