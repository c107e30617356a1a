"""A subscription, from the client's request to its answer (protocol section 4.4).

The methods of :class:`Subscriptions` are in the order of the steps:

1. authorise: done by the session (:mod:`legato.protocol.session`), which returns the effect ``Subscribe``;
2. :meth:`~Subscriptions.subscribe`: wait until the bus delivers the channel. A client that has its answer
   misses nothing from then on;
3. :meth:`~Subscriptions.register`: register in the registry. A client that has its answer is counted by all
   nodes;
4. ``_registered``: announce the subscription to others, and wait for the client's earlier commands;
5. ``_answer``: admit and reply, or refuse;
6. :class:`.welcome.Welcome`: send what follows the reply.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from legato.broadcaster.transport.frames import text_frame
from legato.protocol import errors, messages, presence, refusals
from legato.protocol.channels import Channel
from legato.protocol.session import Subscribe

if TYPE_CHECKING:
    from legato.broadcaster.clients.client import Client
    from legato.broadcaster.registry.base import Joined, Registry
    from legato.broadcaster.replies.snapshot import Observer

    from .announcements import Announcements
    from .figures import SubscriptionFigures
    from .hub import Hub
    from .presence import MemberLists
    from .subscriber import Key
    from .welcome import Welcome

ANSWERED: Final = Subscribe(Channel("answered"))
"""Shared placeholder for answered subscriptions without a member, whose own effect is not needed."""


class Subscriptions:
    """The subscriptions of this node's clients."""

    def __init__(
        self,
        hub: Hub,
        registry: Registry,
        member_lists: MemberLists,
        announcements: Announcements,
        welcome: Welcome,
        figures: SubscriptionFigures,
    ) -> None:
        self._hub = hub
        self._registry = registry
        self._member_lists = member_lists
        self._announcements = announcements
        self._welcome = welcome
        self._observe = welcome.observe
        self._figures = figures

    def subscribe(self, client: Client, key: Key, effect: Subscribe) -> None:
        """Wait for the bus, unless a limit forbids the subscription."""
        if key not in client.keys:
            figures = self._figures
            if figures.open >= figures.most:
                self._refuse_in_turn(client, key, effect)
                return
            if not effect.first:  # an earlier one was refused while this one waited
                self._refuse_full(client, key, effect)
                return
            figures.open += 1
        client.keys[key] = effect
        if effect.member is not None:
            self._member_lists.came(key, effect.member, client.socket_id)
        if client.order.begin(key):
            client.hold_up()
        self._hub.subscribe(client, key)

    def register(self, client: Client, key: Key, effect: Subscribe) -> None:
        """Register the subscription for all nodes. The hub buffers frames for the client meanwhile."""
        assert client.session is not None  # noqa: S101 - one that has left has no key in the hub
        limit = client.session.app.max_presence_members
        observer = None if self._observe is None else self._observe(key)
        done = partial(self._registered, client, key, effect, observer)
        self._registry.join(key, client.socket_id, effect.member, limit, done)

    def _registered(
        self, client: Client, key: Key, effect: Subscribe, observer: Observer | None, joined: Joined
    ) -> None:
        if not joined.full:  # at once: a departure or a cache miss must be announced later
            self._announcements.joined(key, effect.member, joined)
        if client.keys.get(key) is effect:  # it has not left meanwhile
            client.settle(key, partial(self._answer, client, key, effect, joined, observer))
        else:
            self._announcements.counted(key, effect.member, joined)

    def _answer(
        self, client: Client, key: Key, effect: Subscribe, joined: Joined, observer: Observer | None
    ) -> None:
        if joined.full:
            self._undo(client, key, effect)
            self._refuse_full(client, key, effect)
            return
        welcome = effect.channel.cache or observer is not None
        if effect.member is not None:
            answer = messages.subscription_succeeded(key.channel, presence.roster_data(joined.members))
        else:
            answer = messages.subscription_succeeded(key.channel)
            if not welcome:
                client.keys[key] = ANSWERED
        self._hub.admit(client, key, text_frame(answer))
        if welcome:
            self._welcome.begin(client, key, effect, joined, observer)
        else:
            self._announcements.counted(key, effect.member, joined)

    # --- limits (section 4.5)

    def _refuse_in_turn(self, client: Client, key: Key, effect: Subscribe) -> None:
        """Refuse a subscription above the limit of the process, after the client's earlier commands."""
        self._figures.refused += 1
        reason = f"The server has {self._figures.most} subscriptions already"
        client.refused(refusals.TOO_MANY_SUBSCRIPTIONS, channel=key.channel)
        client.order.begin(key)
        client.settle(key, lambda: self._refuse(client, key, effect, reason))

    def _refuse_full(self, client: Client, key: Key, effect: Subscribe) -> None:
        client.refused(refusals.CHANNEL_FULL, channel=key.channel)
        self._refuse(client, key, effect, _members_reason(client))

    def _undo(self, client: Client, key: Key, effect: Subscribe) -> None:
        """Undo :meth:`subscribe`."""
        del client.keys[key]
        self._figures.open -= 1
        self._hub.unsubscribe(client, key)
        if effect.member is not None:
            self._member_lists.went(key, effect.member, client.socket_id)

    def _refuse(self, client: Client, key: Key, effect: Subscribe, reason: str) -> None:
        if client.session is not None:
            client.session.dropped(key.channel, effect.member)
            client.send(
                messages.subscription_error(key.channel, "LimitReached", reason, errors.OVER_CAPACITY.code)
            )


def _members_reason(client: Client) -> str:
    limit = 0 if client.session is None else client.session.app.max_presence_members
    return f"The channel has {limit} members already"
