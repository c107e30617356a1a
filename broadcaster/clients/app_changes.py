"""What a change of the applications means for the connections that are open."""

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
    """Puts other applications in the place of those of now."""

    def __init__(self, apps: Directory, webhooks: Webhooks, clients: Clients, admission: Admission) -> None:
        self._apps = apps
        self._webhooks = webhooks
        self._clients = clients
        self._admission = admission

    async def apply(self, apps: tuple[App, ...]) -> None:
        """Go on with these: from now on every look-up and every open connection is by them."""
        if apps == tuple(self._apps.by_id.values()):
            return
        logger.info("applications: %s", ", ".join(app.id for app in apps) or "none")
        self._apps.replace(apps)
        self._webhooks.set_apps(apps)
        unwelcome: dict[PusherError, list[Client]] = {}
        async for part in slices(list(self._clients.open)):
            for client in part:
                session = client.session
                error = None if session is None else self._change(client, session)
                if error is not None:
                    unwelcome.setdefault(error, []).append(client)
        for error, clients in unwelcome.items():
            self._clients.dismiss_all(clients, error)

    def _change(self, client: Client, session: Session) -> PusherError | None:
        """Why the client cannot stay; None if it goes on by the settings of now."""
        app = self._apps.by_id.get(session.app.id)
        if app is None:
            return errors.UNKNOWN_APP
        if not app.enabled:
            return errors.APP_DISABLED
        session.app = app
        self._admission.count(client, app)
        return None
