"""Log lines about events that reach nobody, for a server whose log is at debug."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from legato.broadcaster.bus.base import BusError
from legato.broadcaster.log_limits import UNHEARD_CHANNELS
from legato.broadcaster.observability.refusals import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from legato.broadcaster.registry.base import Registry

    from .events import Publication

logger: Final = logging.getLogger("legato.api")


class Unheard:
    """Looks for the subscribers of published events, on all nodes.

    :ivar wanted: whether to call :meth:`look`. Fixed at the start, so that a request tests one flag.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.wanted = logger.isEnabledFor(logging.DEBUG)

    async def look(self, rows: Sequence[Publication]) -> None:
        """Write one line if channels of the request have no subscriber. Waits for the registry."""
        keys = list(dict.fromkeys(row.key for row in rows))
        try:
            counts = await self._registry.counts(keys)
        except BusError:
            return
        empty = [key.channel for key, count in zip(keys, counts, strict=True) if not count.subscriptions]
        if not empty:
            return
        more = len(empty) - UNHEARD_CHANNELS
        channels = ",".join(empty[:UNHEARD_CHANNELS]) + (f" and {more} more" if more > 0 else "")
        names = ",".join(dict.fromkeys(row.name for row in rows if row.key.channel in empty))
        fields = {"app": keys[0].app_id, "event": shown(names), "channel": shown(channels)}
        logger.debug("published to nobody", extra={"fields": fields})
