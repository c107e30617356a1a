"""Who gets in: the checks of a handshake, the last of them the application's quota over all nodes.

A client of an application with a quota waits for one answer of Redis; what it says meanwhile is kept for it.
A quota that cannot be looked up counts as used up: without Redis such a client is told to come back (4100).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from legato.broadcaster.channels.subscriber import Key
from legato.protocol import apps, errors, wire
from legato.protocol.apps import App
from legato.protocol.session import Session

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator, Mapping

    from legato.broadcaster.apps.directory import Directory
    from legato.broadcaster.registry.base import Registry
    from legato.protocol.errors import PusherError

    from .client import Client
    from .clients import Clients
    from .figures import ConnectionFigures

ANSWER_SECONDS: Final = 5.0
"""How long a client waits for Redis to say whether it is within the quota."""


_HALF: Final = 6
_AT_ONCE: Final = 256
"""Socket ids for which the system is asked together, and the bytes of each half of one."""


def socket_ids() -> Iterator[str]:
    """Without end: nobody can guess one, and none comes twice."""
    while True:
        pool = os.urandom(2 * _HALF * _AT_ONCE)
        for at in range(0, len(pool), 2 * _HALF):
            first = int.from_bytes(pool[at : at + _HALF])
            second = int.from_bytes(pool[at + _HALF : at + 2 * _HALF])
            yield f"{first % 10**9}.{second % 10**10}"


class Admission:
    """Lets clients in, or refuses them.

    :param prefix: of every path.
    """

    def __init__(
        self,
        prefix: str,
        apps: Directory,
        registry: Registry,
        clients: Clients,
        figures: ConnectionFigures,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._prefix = f"{prefix}/app/"
        self._apps = apps
        self._registry = registry
        self._clients = clients
        self._figures = figures
        self._loop = loop
        self._waiting: dict[Client, tuple[Key, str, asyncio.TimerHandle]] = {}
        self._socket_ids = socket_ids()

    def admit(self, client: Client, path: str, params: Mapping[str, str], origin: str) -> None:
        """A handshake is complete: greet the client, or refuse it (protocol section 1.5), now or soon."""
        found = self._app_for(path, params, origin)
        if not isinstance(found, App):
            self._refuse(client, found)
            return
        socket_id = next(self._socket_ids)
        if found.max_connections:
            self._ask(client, found, socket_id)
        else:
            self._let_in(client, found.id, socket_id)

    def _app_for(self, path: str, params: Mapping[str, str], origin: str) -> App | PusherError:
        if not path.startswith(self._prefix):
            return errors.PATH_NOT_FOUND
        app = self._apps.with_key(unquote(path.removeprefix(self._prefix)))
        return apps.refuse(app, params, origin) or app or errors.UNKNOWN_APP

    def _refuse(self, client: Client, error: PusherError) -> None:
        self._figures.refused[error.code] += 1
        client.close(error)

    def _let_in(self, client: Client, app_id: str, socket_id: str) -> None:
        """Unless the application has changed while the client waited, or the node takes nobody."""
        app = self._apps.by_id.get(app_id)
        if app is None or not app.enabled:
            self._refuse(client, errors.UNKNOWN_APP if app is None else errors.APP_DISABLED)
        elif self._clients.takes_nobody:
            self._refuse(client, errors.OVER_CAPACITY)
        else:
            client.greet(Session(app, socket_id, self._loop.time()))

    # --- the quota

    def _ask(self, client: Client, app: App, socket_id: str) -> None:
        key = Key(app.id, wire.CONNECTIONS)

        def done(admitted: bool) -> None:
            waited = self._waiting.pop(client, None)
            if waited is None:  # it has gone, and what is counted for it too
                return
            waited[2].cancel()
            if not admitted:
                self._refuse(client, apps.over_quota(app))
                return
            client.keys[key] = None
            self._let_in(client, app.id, socket_id)
            if client.session is None:
                self._take_off(client, key, socket_id)

        client.early = []
        timer = self._loop.call_later(ANSWER_SECONDS, self._too_late, client)
        self._waiting[client] = key, socket_id, timer
        self._registry.enter(app.id, socket_id, app.max_connections, done)

    def _too_late(self, client: Client) -> None:
        self._refuse(client, errors.OVER_CAPACITY)

    def count(self, client: Client, app: App) -> None:
        """The application has got a quota after the client was let in."""
        key = Key(app.id, wire.CONNECTIONS)
        if app.max_connections and key not in client.keys:
            client.keys[key] = None
            self._registry.enter(app.id, client.socket_id, 0, lambda _: None)

    def abandon(self, client: Client) -> None:
        """The client waits no longer. Idempotent."""
        waited = self._waiting.pop(client, None)
        if waited is not None:
            key, socket_id, timer = waited
            timer.cancel()
            self._take_off(client, key, socket_id)

    def _take_off(self, client: Client, key: Key, socket_id: str) -> None:
        client.keys.pop(key, None)
        self._registry.leave(key, socket_id, None, lambda _: None, disconnect=True)

    def close(self, error: PusherError) -> None:
        """Send those who wait away."""
        self._clients.dismiss_all(list(self._waiting), error)
