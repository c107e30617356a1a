"""Reads the settings again while the server runs, and applies those that may change (SIGHUP)."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from legato.protocol.settings import SettingsError

from .transport import open_files

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from legato.protocol.apps import App

    from .addresses.opening import AddressLimits
    from .channels.figures import SubscriptionFigures
    from .clients.clients import Clients
    from .config import Settings, SettingsSource

logger: Final = logging.getLogger("legato.broadcaster")

LIMITS: Final = (
    "max_connections",
    "max_subscriptions",
    "trusted_proxies",
    "max_connections_per_address",
    "max_new_connections_per_address",
    "max_failed_tokens_per_address",
    "max_failed_signatures_per_address",
)
CERTIFICATE: Final = ("tls_cert", "tls_key")


class Reloadable(NamedTuple):
    """The parts of a running node that settings can change.

    :ivar use_apps: replaces the applications of the settings.
    :ivar tls: the context of new connections; None without TLS.
    """

    use_apps: Callable[[tuple[App, ...]], Awaitable[None]]
    clients: Clients
    subscriptions: SubscriptionFigures
    addresses: AddressLimits
    tls: ssl.SSLContext | None


class Reloader:
    """Applies changed settings. What cannot be applied without a restart is named, and stays as it is.

    :ivar in_force: the settings that the node follows now.
    """

    def __init__(self, in_force: Settings, source: SettingsSource) -> None:
        self.in_force = in_force
        self._source = source
        self._parts: Reloadable | None = None
        self._task: asyncio.Task[None] | None = None
        self._again = False

    def start(self, parts: Reloadable) -> None:
        """The node runs. What was asked before is done now."""
        self._parts = parts
        if self._again:
            self.ask()

    def ask(self) -> None:
        """Reload soon; if that is under way, once more after it. Ignored once the node is stopping."""
        self._again = True
        if self._parts is None or self._parts.clients.leaving:
            return
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(self._parts))

    async def _run(self, parts: Reloadable) -> None:
        while self._again:
            self._again = False
            await self.reload(parts)

    async def reload(self, parts: Reloadable) -> None:
        """Apply all of the new settings that can be applied, or none if one is wrong. Logs what it did."""
        try:
            new = await asyncio.to_thread(self._read, parts)
        except SettingsError as error:
            logger.error("not reloaded, the settings stay as they were: %s", error)  # noqa: TRY400 - one line
            return
        except Exception:  # a bug must not end the server
            logger.exception("not reloaded, the settings stay as they were")
            return
        before, self.in_force = self.in_force, self._mixed(new, parts)
        changed, kept = list(differences(before, self.in_force)), list(differences(self.in_force, new))
        if _default_app(before) != _default_app(self.in_force):
            kept.append("auth.app and chat.app (another application is the first one)")
        await self._apply(before, parts)
        tls = " and the certificate" if parts.tls is not None else ""
        logger.info("the settings%s were read again; changed: %s", tls, ", ".join(changed) or "nothing")
        if kept:
            logger.warning("changed settings that need a restart, and stay as they were: %s", ", ".join(kept))

    def _read(self, parts: Reloadable) -> Settings:
        """Read in a thread: files may be slow."""
        new = self._source.read()
        if parts.tls is not None and new.server.tls_cert:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            load_certificate(context, new.server.tls_cert, new.server.tls_key)
        return new

    def _mixed(self, new: Settings, parts: Reloadable) -> Settings:
        """The new settings where they can be applied, the ones in force elsewhere."""
        old = self.in_force
        names = [*LIMITS]
        if parts.tls is not None and new.server.tls_cert:
            names += CERTIFICATE
        server = msgspec.structs.replace(old.server, **{name: getattr(new.server, name) for name in names})
        log = msgspec.structs.replace(old.log, level=new.log.level)
        return msgspec.structs.replace(old, server=server, log=log, apps=new.apps)

    async def _apply(self, before: Settings, parts: Reloadable) -> None:
        now, server = self.in_force, self.in_force.server
        if now.log.level != before.log.level:
            self._source.use_level(now.log.level)
        if parts.tls is not None:
            try:
                load_certificate(parts.tls, server.tls_cert, server.tls_key)
            except SettingsError as error:  # the files have changed again since they were checked
                logger.error("new TLS connections fail until the next reload: %s", error)  # noqa: TRY400
        if server.max_connections != before.server.max_connections:
            open_files.make_room(server.max_connections)
        parts.clients.most = server.max_connections
        parts.subscriptions.limit(server.max_subscriptions)
        if server != before.server:
            parts.addresses.change(server)
        if now.apps != before.apps:
            await parts.use_apps(now.apps)


def load_certificate(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Use a certificate for new connections.

    :raises SettingsError: it cannot be used. The context may then be unusable.
    """
    try:
        # Without a function, a key with a passphrase would make OpenSSL ask for it.
        context.load_cert_chain(certificate, key, lambda: "")
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise SettingsError(f"server.tls_cert, server.tls_key: {reason}") from error


def _default_app(settings: Settings) -> str:
    """The application that empty ``auth.app`` or ``chat.app`` name; empty if neither does."""
    if settings.auth.app and settings.chat.app:
        return ""
    return settings.apps[0].id if settings.apps else ""


def differences(one: Settings, other: Settings) -> Iterator[str]:
    """The names of settings that differ, as ``server.port``; ``apps`` for any of an application."""
    for table in one.__struct_fields__:
        mine, theirs = getattr(one, table), getattr(other, table)
        if mine == theirs:
            continue
        if table == "apps":
            yield table
        else:
            for name in mine.__struct_fields__:
                if getattr(mine, name) != getattr(theirs, name):
                    yield f"{table}.{name}"


def hung_up_by_terminal() -> bool:
    """Whether SIGHUP means that a terminal was closed. Elsewhere, as in a service, it asks for a reload."""
    return any(map(os.isatty, (0, 2)))
