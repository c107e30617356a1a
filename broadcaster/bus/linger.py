"""Keeps channels subscribed on the bus for a few seconds after their last subscriber has left."""

from __future__ import annotations

import asyncio
from itertools import islice
from typing import TYPE_CHECKING

from legato.broadcaster.limits import MAX_LINGERING_CHANNELS, UNSUBSCRIBES_PER_TURN

if TYPE_CHECKING:
    from collections.abc import Callable

    from legato.broadcaster.channels.subscriber import Key


class Lingering:
    """The lingering channels. All have the same delay, so they expire in order and share one timer.

    :param seconds: the delay.
    :param unsubscribe: called with each channel whose delay is over.
    :ivar keys: the lingering channels with their expiry in loop time.
    """

    def __init__(self, seconds: float, unsubscribe: Callable[[Key], None]) -> None:
        self.seconds = seconds
        self.keys: dict[Key, float] = {}
        self._unsubscribe = unsubscribe
        self._timer: asyncio.TimerHandle | None = None

    def put(self, key: Key) -> None:
        """Start the delay of a channel."""
        loop = asyncio.get_running_loop()
        self.keys[key] = loop.time() + self.seconds
        if len(self.keys) > MAX_LINGERING_CHANNELS:
            self._end(next(iter(self.keys)))
        if self._timer is None:
            self._timer = loop.call_later(self.seconds, self._end_due)

    def take(self, key: Key) -> bool:
        """Cancel the delay of a channel, which is needed again. Returns whether it was lingering."""
        return self.keys.pop(key, None) is not None

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def _end(self, key: Key) -> None:
        del self.keys[key]
        self._unsubscribe(key)

    def _end_due(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        for key, until in list(islice(self.keys.items(), UNSUBSCRIBES_PER_TURN)):
            if until > loop.time():
                break
            self._end(key)
        if self.keys:
            self._timer = loop.call_at(next(iter(self.keys.values())), self._end_due)
