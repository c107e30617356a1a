"""A fence on the bus: waits until everything that was published before has been delivered."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from legato.broadcaster.channels.subscriber import Key


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
