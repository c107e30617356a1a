"""Watchlists: tell a signed-in user which of the watched users are online (section 7.4).

A user is online while a client is signed in as that user. A watcher is subscribed to an internal channel of
the watched user, which no client can name.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from legato.broadcaster.bus.base import BusError
from legato.protocol import users
from legato.protocol.channels import SERVER_TO_USER
from legato.protocol.wire import Envelope

from .subscriber import Key

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from legato.broadcaster.clients.client import Client
    from legato.broadcaster.registry.base import Registry

    from .hub import Hub

logger: Final = logging.getLogger("legato.node")

CHANNELS: Final = users.watch_channel("")
"""Prefix of the internal channels of watched users."""


class Watchlists:
    """The watchlists of this node's clients.

    :param wanted: whether an application, by id, has watchlists enabled.
    :param post: publishes to all subscribers of a channel without waiting.
    :param spawn: runs a coroutine in the background.
    """

    def __init__(
        self,
        hub: Hub,
        registry: Registry,
        *,
        wanted: Callable[[str], bool],
        post: Callable[[Key, Envelope], None],
        spawn: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._hub = hub
        self._registry = registry
        self._wanted = wanted
        self._post = post
        self._spawn = spawn

    def watch(self, client: Client, key: Key, watchlist: tuple[str, ...]) -> None:
        """Send the client the state of the users in ``watchlist``, now and on every change.

        :param key: the channel of the client's own user. The client has left when it has lost it.
        """
        if not watchlist or not self._wanted(key.app_id):
            return
        for user_id in watchlist:
            watched = Key(key.app_id, users.watch_channel(user_id))
            client.keys[watched] = None
            self._hub.subscribe(client, watched)
        self._spawn(self._tell(client, key, watchlist))

    async def _tell(self, client: Client, key: Key, watchlist: tuple[str, ...]) -> None:
        keys = [Key(key.app_id, users.user_channel(user_id)) for user_id in watchlist]
        try:
            counts = await self._registry.counts(keys)
        except BusError as error:
            logger.warning("a watchlist is not sent: %s", error)
            return
        online = [name for name, count in zip(watchlist, counts, strict=True) if count.subscriptions]
        offline = [name for name in watchlist if name not in set(online)]
        events = users.watchlist_events(online=online, offline=offline)
        if events is not None and key in client.keys:
            client.send(events)

    def tell_watchers(self, key: Key, name: str) -> None:
        """Tell watchers that the user of channel ``key`` has become ``name``: online or offline."""
        if self._wanted(key.app_id):
            user_id = key.channel.removeprefix(SERVER_TO_USER)
            events = users.watchlist_events(**{name: [user_id]})
            if events is not None:
                self._post(Key(key.app_id, users.watch_channel(user_id)), Envelope(events))
