"""Ends subscriptions, for the client itself and for all others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from legato.broadcaster.clients.ends import ENDED
from legato.protocol.session import Subscribe

from . import watchlists

if TYPE_CHECKING:
    from collections.abc import Iterator

    from legato.broadcaster.clients.client import Claim, Client
    from legato.broadcaster.registry.base import Registry

    from .announcements import Announcements
    from .figures import SubscriptionFigures
    from .hub import Hub
    from .presence import MemberLists
    from .subscriber import Key


class Departures:
    """Ends subscriptions on this node and in the registry."""

    def __init__(
        self,
        hub: Hub,
        registry: Registry,
        member_lists: MemberLists,
        announcements: Announcements,
        figures: SubscriptionFigures,
    ) -> None:
        self._hub = hub
        self._registry = registry
        self._member_lists = member_lists
        self._announcements = announcements
        self._figures = figures

    def unsubscribe(self, client: Client, key: Key) -> None:
        """End a subscription at the client's request. Idempotent."""
        if key in client.keys:
            self.drop(client, key, client.keys.pop(key), disconnect=False)

    def one_by_one(self, client: Client, keys: dict[Key, Claim], name: str) -> Iterator[None]:
        """End the subscriptions of a client that has left, one per step of the iterator.

        :param name: the node name under which they are registered.
        """
        for key, claim in keys.items():
            self._hub.unsubscribe(client, key)
            if claim is not ENDED:
                self.end(client, key, claim, disconnect=True, name=name)
            yield
        self._hub.departed(client)

    def drop(self, client: Client, key: Key, claim: Claim, *, disconnect: bool) -> None:
        """End a subscription and its delivery."""
        self._hub.unsubscribe(client, key)
        if claim is not ENDED:
            self.end(client, key, claim, disconnect=disconnect)

    def end(self, client: Client, key: Key, claim: Claim, *, disconnect: bool, name: str = "") -> None:
        """End a subscription for all others. The channel is still delivered to the client.

        :param name: the node name under which it is registered, if not the current one.
        """
        member = None
        if isinstance(claim, Subscribe):
            self._figures.open -= 1
            if (member := claim.member) is not None:
                self._member_lists.went(key, member, client.socket_id)
        if not key.channel.startswith(watchlists.CHANNELS):
            self._registry.leave(
                key,
                client.socket_id,
                member,
                lambda left: self._announcements.left(key, member, left, disconnect=disconnect),
                disconnect=disconnect,
                name=name,
            )
