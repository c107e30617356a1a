"""How a node stops: its clients go to another node, and miss nothing that was published while they were here.

What Redis accepts for a channel while a client is counted as subscribed reaches the client. So for each few
clients that are to go: first their subscriptions end for everybody else, then what was published before that
is waited for (:class:`~legato.broadcaster.bus.fence.Fence`), and only then are they closed.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from typing import TYPE_CHECKING, Final

from legato.broadcaster.bus.base import BusError
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

STEP_SECONDS: Final = 0.05

ASK_SECONDS: Final = 1.0
"""How often it is looked whether another node is there."""

PATIENCE_SECONDS: Final = 4.0
"""How long Redis may take for the clients of one step; after that, none is waited for."""


class Drain:
    """Closes every connection, each at a time of its own within ``seconds``.

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
        """Let nobody in any more, and send everybody away."""
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
                await asyncio.sleep(STEP_SECONDS)
        await self._clients.chores.done()

    async def _close(self, clients: list[Client]) -> None:
        """All of them, at once."""
        error = await self._why()
        if self._patient and self._peers.patient:
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await self._handover.prepare(clients)
            except (TimeoutError, BusError) as failure:
                self._patient = False
                self._peers.doubt()
                logger.warning("draining without waiting for Redis: %s", str(failure) or "it is slow")
        self._clients.dismiss_all(clients, error)

    async def _why(self) -> PusherError:
        """At once to another node that takes them; if there is none, they had better wait a moment."""
        if self._asked is None or self._now() - self._asked >= ASK_SECONDS:
            self._error = errors.GO_ELSEWHERE if await self._peers.ask() else errors.DRAINING
            self._asked = self._now()  # not before: the answer may have taken longer than it holds
        return self._error
