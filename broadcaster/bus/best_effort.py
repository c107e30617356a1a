"""Publishes messages whose senders are not told whether the bus accepted them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from .base import BusError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from legato.broadcaster.channels.subscriber import Key
    from legato.protocol.wire import Envelope

    from .base import Bus

logger: Final = logging.getLogger("legato.node")


class BestEffort:
    """Publishes without waiting. A message that the bus does not accept is lost (protocol section 6).

    :param spawn: runs a coroutine in the background.
    """

    def __init__(self, bus: Bus, spawn: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        self._bus = bus
        self._spawn = spawn

    def post(self, key: Key, envelope: Envelope) -> None:
        """Publish to all subscribers of a channel."""
        self._spawn(self._publish(key, envelope))

    async def _publish(self, key: Key, envelope: Envelope) -> None:
        try:
            await self._bus.publish([(key, envelope)])
        except BusError as error:
            logger.warning("a client's message is lost: %s", error)
