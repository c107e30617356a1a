"""A fence on the bus: waits until everything published so far has been delivered."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from legato.broadcaster.channels.subscriber import Key


class Fence:
    """Waits until everything published so far on some channels has been delivered.

    It subscribes to each channel once more. The bus confirms that after delivering what came before.
    """

    def __init__(self, ask: Callable[[Key], None]) -> None:
        self._ask = ask
        self._waiting: dict[Key, list[asyncio.Future[None]]] = {}

    async def passed(self, keys: Iterable[Key]) -> None:
        """Wait for the fence. ``keys`` are channels that the bus delivers now."""
        waited_for = []
        for key in keys:
            waited_for.append(asyncio.get_running_loop().create_future())
            self._waiting.setdefault(key, []).append(waited_for[-1])
            self._ask(key)
        try:
            if waited_for:
                await asyncio.wait(waited_for)
        finally:
            for one in waited_for:  # the next confirmation removes them
                one.cancel()

    def confirmed(self, key: Key) -> None:
        """The bus has confirmed the channel after all requests, or it was unsubscribed."""
        for one in self._waiting.pop(key, ()):
            if not one.done():
                one.set_result(None)

    def lost(self, keys: Collection[Key]) -> None:
        """Release waiters: the bus lost these channels."""
        for key in keys:
            self.confirmed(key)
