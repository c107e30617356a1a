"""How a node stops: its clients go to another node, and miss nothing that was published while they were here.

What Redis accepts for a channel while a client is counted as subscribed reaches the client. So for each few
clients that are to go: first their subscriptions end for everybody else, then what was published before that
is waited for (:class:`Fence`), and only then are they closed.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from typing import TYPE_CHECKING, Final

from legato.broadcaster.bus.base import BusError
from legato.protocol import errors
from legato.protocol.session import SignIn, Subscribe

from .client import LEFT

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from legato.broadcaster.channels.subscriber import Key
    from legato.broadcaster.node import Node
    from legato.broadcaster.registry.base import Registry
    from legato.protocol.errors import PusherError

    from .client import Client

logger: Final = logging.getLogger("legato.node")

STEP_SECONDS: Final = 0.05

ASK_SECONDS: Final = 1.0
"""How often it is looked whether another node is there."""

PEER_SECONDS: Final = 4.0
"""How long Redis may take to say whether there is another node. A stop waits in vain that long once at most,
or as long as the next two together: that is part of the time that docs/cluster.md asks for.
"""

PATIENCE_SECONDS: Final = 4.0
"""How long Redis may take for the clients of one step; after that, none is waited for."""

LAST_SECONDS: Final = 1.0
"""As PEER_SECONDS, once Redis has been slow."""


class Fence:
    """Tells when everything that was published on some channels before has been delivered.

    A bus that is asked once more for a channel it delivers confirms it after that.
    """

    def __init__(self, ask: Callable[[Key], None]) -> None:
        self._ask = ask
        self._waiting: dict[Key, list[asyncio.Future[None]]] = {}

    async def passed(self, keys: Iterable[Key]) -> None:
        """``keys`` are channels that are delivered right now."""
        waited_for = []
        for key in keys:
            waited_for.append(asyncio.get_running_loop().create_future())
            self._waiting.setdefault(key, []).append(waited_for[-1])
            self._ask(key)
        try:
            if waited_for:
                await asyncio.wait(waited_for)
        finally:
            for one in waited_for:  # they leave with the next confirmation
                one.cancel()

    def confirmed(self, key: Key) -> None:
        """The bus has confirmed it, as often as it was asked, or is not asked for it any more."""
        for one in self._waiting.pop(key, ()):
            if not one.done():
                one.set_result(None)

    def lost(self, keys: Collection[Key]) -> None:
        """The bus does not deliver these now."""
        for key in keys:
            self.confirmed(key)


class Peers:
    """Whether another node takes connections: what a node asks that stops. A Redis that hangs costs one wait.

    :ivar silent: Redis did not answer in time: it is asked no more.
    :ivar hurried: the node is to end at once: Redis is asked no more. Setting it does not end a wait.
    """

    def __init__(self, registry: Registry) -> None:
        self.silent = False
        self.hurried = False
        self._registry = registry
        self._found = True  # not known yet: what would be told if there was nobody is left to others
        self._seconds = PEER_SECONDS

    @property
    def patient(self) -> bool:
        """Whether to wait for what needs Redis."""
        return not (self.silent or self.hurried)

    def doubt(self) -> None:
        """Redis is slow. Next time its answer decides whether it is silent, and it gets less time for it."""
        self._seconds = LAST_SECONDS

    async def ask(self) -> bool:
        """As far as can be known; the others learn how this node is."""
        if self.patient:
            try:
                async with asyncio.timeout(self._seconds):
                    self._found = await self._registry.peers()
            except BusError:
                self._found = False
            except TimeoutError:
                self._found = False
                self.silent = True
                logger.warning("stopping without Redis: it does not answer")
        return self._found


async def drain(node: Node, chance: Callable[[], float] = random.random) -> None:
    """Close every connection, each at a time of its own within ``drain_seconds``."""
    node.leaving = node.draining = True
    node.entrance.close(errors.OVER_CAPACITY)
    clients = list(node.open)
    seconds = node.settings.server.drain_seconds
    if clients:
        logger.info("draining: closing %d connections over %g s", len(clients), seconds)
    random.shuffle(clients)
    due = deque(sorted((chance() * seconds, index) for index in range(len(clients))))
    steps = _Steps(node)
    began = node.now()
    while due:
        group = []
        while due and due[0][0] <= node.now() - began:
            group.append(clients[due.popleft()[1]])
        if group:
            await steps.close([client for client in group if client.session is not None])
        if due:
            await asyncio.sleep(STEP_SECONDS)
    await node.chores.done()


class _Steps:
    """Closes a few clients at a time."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._patient = True
        self._asked: float | None = None
        self._error = errors.DRAINING

    async def close(self, clients: list[Client]) -> None:
        """All of them, at once."""
        error = await self._why()
        if self._patient and self._node.peers.patient:
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await self._depart(clients)
            except (TimeoutError, BusError) as failure:
                self._patient = False
                self._node.peers.doubt()
                logger.warning("draining without waiting for Redis: %s", str(failure) or "it is slow")
        self._node.dismiss_all(clients, error)

    async def _why(self) -> PusherError:
        """At once to another node that takes them; if there is none, they had better wait a moment."""
        if self._asked is None or self._node.now() - self._asked >= ASK_SECONDS:
            self._error = errors.GO_ELSEWHERE if await self._node.peers.ask() else errors.DRAINING
            self._asked = self._node.now()  # not before: the answer may have taken longer than it holds
        return self._error

    async def _depart(self, clients: list[Client]) -> None:
        channels = set()
        for client in clients:
            for key, effect in list(client.keys.items()):
                if isinstance(effect, (Subscribe, SignIn)) and not self._node.hub.waits(client, key):
                    client.keys[key] = LEFT
                    self._node.end(client, key, effect, disconnect=True)
                    channels.add(key)
        await self._node.registry.flush()
        await self._node.fence.passed(key for key in channels if self._node.hub.count(key))
