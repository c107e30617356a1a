"""Sign-in: subscribes a client to its user's channel and starts its watchlist (protocol section 7).

The steps: :meth:`SignIns.sign_in` waits for the bus; :meth:`SignIns.register` counts the user in the
registry; then the client is answered, and its watchlist starts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from legato.broadcaster.transport.frames import text_frame
from legato.protocol import users

from .subscriber import Key

if TYPE_CHECKING:
    from legato.broadcaster.clients.client import Client
    from legato.broadcaster.registry.base import Joined, Registry
    from legato.protocol.session import Session, SignIn

    from .hub import Hub
    from .watchlists import Watchlists


class SignIns:
    """The sign-ins of this node's clients."""

    def __init__(self, hub: Hub, registry: Registry, watchlists: Watchlists) -> None:
        self._hub = hub
        self._registry = registry
        self._watchlists = watchlists

    def sign_in(self, client: Client, session: Session, effect: SignIn) -> None:
        """Wait for the bus to deliver the user's channel. The session has verified the user."""
        key = Key(session.app.id, users.user_channel(effect.user.id))
        client.keys[key] = effect
        client.order.begin(key)
        self._hub.subscribe(client, key)

    def register(self, client: Client, key: Key, effect: SignIn) -> None:
        """The bus delivers the channel: count the user, then answer."""

        def done(joined: Joined) -> None:
            if joined.first:
                self._watchlists.tell_watchers(key, "online")
            client.settle(key, lambda: self._answer(client, key, effect))

        self._registry.join(key, client.socket_id, None, 0, done)

    def _answer(self, client: Client, key: Key, effect: SignIn) -> None:
        self._hub.admit(client, key, text_frame(effect.reply))
        self._watchlists.watch(client, key, effect.user.watchlist)
