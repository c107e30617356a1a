"""Admission: the checks of a handshake, the last of which is the cluster-wide quota of the application.

A client of an application with a quota waits for one answer of Redis; its early messages are buffered. If
Redis cannot answer, the quota counts as used up and the client is told to reconnect later (4100).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from legato.broadcaster.channels.subscriber import Key
from legato.broadcaster.limits import QUOTA_CHECK_SECONDS, SOCKET_IDS_PER_BATCH
from legato.broadcaster.observability.refusals import key_hint
from legato.protocol import apps, errors, refusals, wire
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

_REFUSALS: Final = {
    errors.UNKNOWN_APP: refusals.UNKNOWN_KEY,
    errors.APP_DISABLED: refusals.APP_DISABLED,
    errors.PATH_NOT_FOUND: refusals.WRONG_PATH,
    errors.INVALID_VERSION: refusals.BAD_VERSION,
    errors.UNSUPPORTED_VERSION: refusals.UNSUPPORTED_VERSION,
    errors.UNAUTHORIZED: refusals.ORIGIN_NOT_ALLOWED,
}
"""Refused handshakes, by their errors."""

_HALF: Final = 6
"""Random bytes for each of the two numbers of a socket id."""


def socket_ids() -> Iterator[str]:
    """Generate socket ids without end. They are random: they cannot be guessed and do not repeat."""
    while True:
        pool = os.urandom(2 * _HALF * SOCKET_IDS_PER_BATCH)
        for at in range(0, len(pool), 2 * _HALF):
            first = int.from_bytes(pool[at : at + _HALF])
            second = int.from_bytes(pool[at + _HALF : at + 2 * _HALF])
            yield f"{first % 10**9}.{second % 10**10}"


class Admission:
    """Admits clients, or refuses them.

    :param prefix: the path prefix of the server (``server.path``).
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
        """Check a complete handshake, then greet or refuse the client (protocol section 1.5)."""
        gate = self._clients.gate
        if gate is not None and not gate.arrives(client):
            self._refuse(client, errors.OVER_CAPACITY)
            return
        found = self._app_for(path, params, origin)
        if not isinstance(found, App):
            self._tell(client, found, path, params, origin)
            self._refuse(client, found)
            return
        socket_id = next(self._socket_ids)
        if found.max_connections:
            self._ask(client, found, socket_id)
        else:
            self._accept(client, found.id, socket_id)

    def _app_for(self, path: str, params: Mapping[str, str], origin: str) -> App | PusherError:
        if not path.startswith(self._prefix):
            return errors.PATH_NOT_FOUND
        app = self._apps.with_key(unquote(path.removeprefix(self._prefix)))
        return apps.refuse(app, params, origin) or app or errors.UNKNOWN_APP

    def _tell(
        self, client: Client, error: PusherError, path: str, params: Mapping[str, str], origin: str
    ) -> None:
        """Log a refused handshake."""
        key = unquote(path.removeprefix(self._prefix))
        app = self._apps.with_key(key)
        fields = {"version": params.get("protocol", "")}
        if error is errors.PATH_NOT_FOUND:
            app, fields = None, {"path": path}
        elif error is errors.UNKNOWN_APP:
            fields = {"key": key_hint(key)}
        app_id = "" if app is None else app.id
        client.refused(_REFUSALS[error], app=app_id, code=error.code, origin=origin, **fields)

    def _refuse(self, client: Client, error: PusherError) -> None:
        self._figures.refused[error.code] += 1
        client.close(error)

    def _accept(self, client: Client, app_id: str, socket_id: str) -> None:
        """Greet the client, unless its application was removed meanwhile or the node accepts no clients."""
        app, gate = self._apps.by_id.get(app_id), self._clients.gate
        if app is None or not app.enabled:
            error = errors.UNKNOWN_APP if app is None else errors.APP_DISABLED
            client.refused(_REFUSALS[error], app=app_id, code=error.code)
            self._refuse(client, error)
        elif self._clients.takes_nobody or (gate is not None and not gate.enter(client)):
            refusal = refusals.STOPPING if self._clients.draining else refusals.OVER_CAPACITY
            client.refused(refusal, app=app_id, code=errors.OVER_CAPACITY.code)
            self._refuse(client, errors.OVER_CAPACITY)
        else:
            client.greet(Session(app, socket_id, self._loop.time()))

    # --- the quota

    def _ask(self, client: Client, app: App, socket_id: str) -> None:
        key = Key(app.id, wire.CONNECTIONS)

        def done(admitted: bool) -> None:
            waited = self._waiting.pop(client, None)
            if waited is None:  # the client has left, and `abandon` has undone its count
                return
            waited[2].cancel()
            if not admitted:
                error = apps.over_quota(app)
                client.refused(refusals.OVER_QUOTA, app=app.id, code=error.code)
                self._refuse(client, error)
                return
            client.keys[key] = None
            self._accept(client, app.id, socket_id)
            if client.session is None:
                self._release(client, key, socket_id)

        client.early = []
        timer = self._loop.call_later(QUOTA_CHECK_SECONDS, self._too_late, client)
        self._waiting[client] = key, socket_id, timer
        self._registry.enter(app.id, socket_id, app.max_connections, done)

    def _too_late(self, client: Client) -> None:
        app_id = self._waiting[client][0].app_id
        client.refused(refusals.QUOTA_UNKNOWN, app=app_id, code=errors.OVER_CAPACITY.code)
        self._refuse(client, errors.OVER_CAPACITY)

    def count(self, client: Client, app: App) -> None:
        """Count an open connection, if its application has got a quota only after the admission."""
        key = Key(app.id, wire.CONNECTIONS)
        if app.max_connections and key not in client.keys:
            client.keys[key] = None
            self._registry.enter(app.id, client.socket_id, 0, lambda _: None)

    def abandon(self, client: Client) -> None:
        """The client has left before its admission: undo its count. Idempotent."""
        waited = self._waiting.pop(client, None)
        if waited is not None:
            key, socket_id, timer = waited
            timer.cancel()
            self._release(client, key, socket_id)

    def _release(self, client: Client, key: Key, socket_id: str) -> None:
        client.keys.pop(key, None)
        self._registry.leave(key, socket_id, None, lambda _: None, disconnect=True)

    def close(self, error: PusherError) -> None:
        """Refuse all clients that wait for their quota."""
        refusal = refusals.LEASE_LAPSED if error is errors.LEASE_LAPSED else refusals.STOPPING
        for client, (key, _, _) in self._waiting.items():
            client.refused(refusal, app=key.app_id, code=error.code)
        self._clients.dismiss_all(list(self._waiting), error)
