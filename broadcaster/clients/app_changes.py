"""Applies a change of the applications to the open connections."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from legato.broadcaster.slices import slices
from legato.protocol import errors

if TYPE_CHECKING:
    from legato.broadcaster.apps.directory import Directory
    from legato.broadcaster.webhooks.dispatcher import Webhooks
    from legato.protocol.apps import App
    from legato.protocol.errors import PusherError
    from legato.protocol.session import Session

    from .admission import Admission
    from .client import Client
    from .clients import Clients

logger: Final = logging.getLogger("legato.node")


class AppChanges:
    """Replaces the applications of a running node."""

    def __init__(self, apps: Directory, webhooks: Webhooks, clients: Clients, admission: Admission) -> None:
        self._apps = apps
        self._webhooks = webhooks
        self._clients = clients
        self._admission = admission

    async def apply(self, apps: tuple[App, ...]) -> None:
        """Use these applications from now on, and close the connections that they do not allow."""
        if apps == tuple(self._apps.by_id.values()):
            return
        logger.info("applications: %s", ", ".join(app.id for app in apps) or "none")
        self._apps.replace(apps)
        self._webhooks.set_apps(apps)
        refused: dict[PusherError, list[Client]] = {}
        async for part in slices(list(self._clients.open)):
            for client in part:
                session = client.session
                error = None if session is None else self._change(client, session)
                if error is not None:
                    refused.setdefault(error, []).append(client)
        for error, clients in refused.items():
            self._clients.dismiss_all(clients, error)

    def _change(self, client: Client, session: Session) -> PusherError | None:
        """Give the client its application's new settings. Returns why it has to be closed, or None."""
        app = self._apps.by_id.get(session.app.id)
        if app is None:
            return errors.UNKNOWN_APP
        if not app.enabled:
            return errors.APP_DISABLED
        session.app = app
        self._admission.count(client, app)
        return None
