"""Whether another node takes connections: asked by a node that stops."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from legato.broadcaster.bus.base import BusError

if TYPE_CHECKING:
    from legato.broadcaster.registry.base import Registry

logger: Final = logging.getLogger("legato.node")

PEER_SECONDS: Final = 4.0
"""How long Redis may take to say whether there is another node. A stop waits in vain that long once at most,
or as long as the next two together: that is part of the time that docs/cluster.md asks for.
"""

LAST_SECONDS: Final = 1.0
"""As PEER_SECONDS, once Redis has been slow."""


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
