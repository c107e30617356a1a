"""Announces joins and departures: webhooks, subscription counts, watchlists.

The registry decides which node announces an event, so that each is announced once in the cluster.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from legato.protocol.channels import SERVER_TO_USER
from legato.protocol.wire import CONNECTIONS

if TYPE_CHECKING:
    from legato.broadcaster.registry.base import Joined, Left
    from legato.broadcaster.webhooks.dispatcher import Webhooks
    from legato.protocol.presence import Member

    from .counts import SubscriptionCounts
    from .subscriber import Key
    from .watchlists import Watchlists


class Announcements:
    """Announces the events of subscriptions on this node, and of those that a dead node has left behind."""

    def __init__(self, webhooks: Webhooks, counts: SubscriptionCounts, watchlists: Watchlists) -> None:
        self._webhooks = webhooks
        self._counts = counts
        self._watchlists = watchlists

    def joined(self, key: Key, member: Member | None, joined: Joined) -> None:
        """Announce a new subscription in webhooks."""
        if joined.first and not joined.back:
            self._webhooks.channel_occupied(*key)
        if member is not None and joined.first_of_user and not joined.user_back:
            self._webhooks.member_added(*key, member.id)

    def counted(self, key: Key, member: Member | None, joined: Joined) -> None:
        """Announce the new subscription count. Called once the subscriber has its answer and snapshots."""
        if member is None:
            self._counts.changed(key, joined.subscriptions)

    def left(self, key: Key, member: Member | None, left: Left, *, disconnect: bool = True) -> None:
        """Announce the end of a subscription."""
        if key.channel == CONNECTIONS:
            return
        if key.channel.startswith(SERVER_TO_USER):
            if left.last:
                self._watchlists.tell_watchers(key, "offline")
            return
        if member is not None and left.last_of_user:
            self._webhooks.member_removed(*key, member.id, disconnect=disconnect)
        if member is None and (left.last or left.subscriptions):
            self._counts.changed(key, left.subscriptions)
        if left.last:
            self._webhooks.channel_vacated(*key, disconnect=left.held)

    def cache_miss(self, key: Key) -> None:
        """Announce that a cache channel had no event for a new subscriber."""
        self._webhooks.cache_miss(*key)
