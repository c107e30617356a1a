"""Tells a stopping node whether another node accepts connections."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from legato.broadcaster.bus.base import BusError
from legato.broadcaster.limits import PEER_CHECK_SECONDS, PEER_RECHECK_SECONDS

if TYPE_CHECKING:
    from legato.broadcaster.registry.base import Registry

logger: Final = logging.getLogger("legato.node")


class Peers:
    """Asks Redis whether another node accepts connections, until Redis once does not answer in time.

    :ivar silent: Redis did not answer in time, and is not asked again.
    :ivar hurried: the node should stop at once; Redis is not asked again. Does not interrupt a running wait.
    """

    def __init__(self, registry: Registry) -> None:
        self.silent = False
        self.hurried = False
        self._registry = registry
        self._found = True  # unknown yet: assume that others take over
        self._seconds = PEER_CHECK_SECONDS

    @property
    def patient(self) -> bool:
        """Whether to wait for work that needs Redis."""
        return not (self.silent or self.hurried)

    def doubt(self) -> None:
        """Note that Redis is slow. The next :meth:`ask` gives it less time."""
        self._seconds = PEER_RECHECK_SECONDS

    async def ask(self) -> bool:
        """Whether another node accepts connections, as far as known. Also publishes this node's state."""
        if self.patient:
            try:
                async with asyncio.timeout(self._seconds):
                    self._found = await self._registry.peers()
            except BusError:
                self._found = False
            except TimeoutError:
                self._found = False
                self.silent = True
                logger.warning("Redis does not answer; stopping without it")
        return self._found
