"""The drain of a stopping node: moves its clients to other nodes without losing a message.

A client gets every message that Redis accepts while the client is registered as subscribed. Therefore the
drain takes a few clients at a time: it ends their subscriptions in the registry, waits until everything
published before that is delivered (:class:`~legato.broadcaster.bus.fence.Fence`), and then closes them.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from typing import TYPE_CHECKING, Final

from legato.broadcaster.bus.base import BusError
from legato.broadcaster.limits import DRAIN_PATIENCE_SECONDS, DRAIN_PEER_CHECK_SECONDS, DRAIN_STEP_SECONDS
from legato.protocol import errors

if TYPE_CHECKING:
    from collections.abc import Callable

    from legato.protocol.errors import PusherError

    from .admission import Admission
    from .client import Client
    from .clients import Clients
    from .handover import Handover
    from .peers import Peers

logger: Final = logging.getLogger("legato.node")


class Drain:
    """Closes every connection, each at a random time within ``seconds``.

    :param now: the loop's clock.
    """

    def __init__(
        self,
        clients: Clients,
        admission: Admission,
        handover: Handover,
        peers: Peers,
        seconds: float,
        now: Callable[[], float],
    ) -> None:
        self._clients = clients
        self._admission = admission
        self._handover = handover
        self._peers = peers
        self._seconds = seconds
        self._now = now
        self._patient = True
        self._asked: float | None = None
        self._error = errors.DRAINING

    async def run(self, chance: Callable[[], float] = random.random) -> None:
        """Accept no new clients, and close all open ones."""
        self._patient, self._asked = True, None
        self._clients.leaving = self._clients.draining = True
        self._admission.close(errors.OVER_CAPACITY)
        clients = list(self._clients.open)
        if clients:
            logger.info("draining: closing %d connections over %g s", len(clients), self._seconds)
        random.shuffle(clients)
        due = deque(sorted((chance() * self._seconds, index) for index in range(len(clients))))
        began = self._now()
        while due:
            group = []
            while due and due[0][0] <= self._now() - began:
                group.append(clients[due.popleft()[1]])
            if group:
                await self._close([client for client in group if client.session is not None])
            if due:
                await asyncio.sleep(DRAIN_STEP_SECONDS)
        await self._clients.deferred.done()

    async def _close(self, clients: list[Client]) -> None:
        """Hand a group of clients over, and close it."""
        error = await self._why()
        if self._patient and self._peers.patient:
            try:
                async with asyncio.timeout(DRAIN_PATIENCE_SECONDS):
                    await self._handover.prepare(clients)
            except (TimeoutError, BusError) as failure:
                self._patient = False
                self._peers.doubt()
                logger.warning("draining without waiting for Redis: %s", str(failure) or "it is too slow")
        self._clients.dismiss_all(clients, error)

    async def _why(self) -> PusherError:
        """Choose the close code: reconnect at once if another node accepts clients, else after a pause."""
        if self._asked is None or self._now() - self._asked >= DRAIN_PEER_CHECK_SECONDS:
            self._error = errors.GO_ELSEWHERE if await self._peers.ask() else errors.DRAINING
            self._asked = self._now()  # after the answer, which may take longer than DRAIN_PEER_CHECK_SECONDS
        return self._error
