"""Starts the parts of a node, says whether it is ready, and stops it in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from legato.protocol import errors

from .limits import LEASE_RELEASE_SECONDS, SHUTDOWN_PUBLISH_SECONDS, WEBHOOK_CLOSE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .background import Background
    from .bus.base import Bus
    from .channels.announcements import Announcements
    from .channels.delivery import Delivery
    from .clients.admission import Admission
    from .clients.clients import Clients
    from .clients.deferred_work import DeferredWork
    from .clients.drain import Drain
    from .clients.peers import Peers
    from .clients.timer_wheel import Wheel
    from .config import Settings
    from .observability.loop_delay import LoopDelay
    from .registry.base import Registry
    from .replies.healer import Healer
    from .webhooks.dispatcher import Webhooks

logger: Final = logging.getLogger("legato.node")
_broadcaster_logger: Final = logging.getLogger("legato.broadcaster")


@dataclass(frozen=True, repr=False)
class Lifecycle:
    """Starts what runs in the background, and stops it once no client is left."""

    bus: Bus
    registry: Registry
    webhooks: Webhooks
    healer: Healer | None
    """None when chat is off."""
    loop_delay: LoopDelay | None
    """None when metrics are off."""
    wheel: Wheel
    deferred: DeferredWork
    peers: Peers
    background: Background

    async def start(self, delivery: Delivery, announcements: Announcements) -> None:
        """Join the bus, whose messages go to ``delivery``.

        :param announcements: gets the departures from nodes that died.
        :raises BusError: the bus cannot be reached.
        """
        await self.webhooks.start()
        await self.bus.start(delivery)
        await self.registry.start(announcements.left)
        if self.healer is not None:
            self.healer.start()
        if self.loop_delay is not None:
            self.loop_delay.start()

    async def close(self) -> None:
        """Leave the bus. Another node takes over held-back departures; without one they are sent now."""
        self.wheel.close()
        if self.loop_delay is not None:
            self.loop_delay.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SHUTDOWN_PUBLISH_SECONDS):
                await self.deferred.done()
        if self.healer is not None:
            await self.healer.close()
        if not await self.peers.ask():
            self.webhooks.release()
        if self.peers.patient:
            await self.background.wait(SHUTDOWN_PUBLISH_SECONDS)
        await self._release_lease()
        await self.webhooks.close(WEBHOOK_CLOSE_SECONDS if self.peers.patient else SHUTDOWN_PUBLISH_SECONDS)
        await self.background.close()
        await self.bus.close()

    async def _release_lease(self) -> None:
        try:
            async with asyncio.timeout(LEASE_RELEASE_SECONDS):
                await self.registry.close(whole=not self.deferred)
        except TimeoutError:
            logger.warning("Redis does not answer; the node's lease will expire by itself")


class Shutdown:
    """How a node parts from its clients. Satisfies :class:`~.draining_server.Draining`."""

    def __init__(
        self, clients: Clients, peers: Peers, drain: Drain, drain_answers: Callable[[], Awaitable[None]]
    ) -> None:
        self._clients = clients
        self._peers = peers
        self._drain = drain
        self._drain_answers = drain_answers

    def give_notice(self) -> None:
        """Stop being ready. Clients are still accepted."""
        self._clients.leaving = True

    async def tell_peers(self) -> None:
        """Tell the other nodes that this one is stopping, so that none sends its clients here."""
        await self._peers.ask()

    async def drain(self) -> None:
        """Accept no new clients, and close all open ones. End streamed answers."""
        await asyncio.gather(self._drain.run(), self._drain_answers())

    def hurry(self) -> None:
        """Ask Redis nothing more."""
        self._peers.hurried = True


def close_lapsed(clients: Clients, admission: Admission) -> None:
    """Close all connections, so that they reconnect: the other nodes consider this node dead."""
    clients.dismiss_all(list(clients.open), errors.LEASE_LAPSED)
    admission.close(errors.LEASE_LAPSED)


def unready(clients: Clients, bus: Bus, registry: Registry) -> str | None:
    """Why this node should get no new clients now; None if it is ready."""
    reasons = (
        (clients.leaving, "draining"),
        (not bus.connected, "not connected to Redis"),
        (not registry.held, "the node's lease is not held"),
        (registry.stuck, "Redis does not take subscriptions"),
    )
    return next((reason for holds, reason in reasons if holds), None)


def announce(settings: Settings, port: int) -> None:
    """Log where a node listens, and for which applications."""
    server = settings.server
    scheme = "https" if server.tls_cert else "http"
    host = f"[{server.host}]" if ":" in server.host else server.host
    apps = ", ".join(app.id for app in settings.apps)
    _broadcaster_logger.info("listening on %s://%s:%d%s, apps: %s", scheme, host, port, server.path, apps)
