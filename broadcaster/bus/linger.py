"""Channels that stay subscribed for a while though nobody needs them any more."""

from __future__ import annotations

import asyncio
from itertools import islice
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from legato.broadcaster.channels.subscriber import Key

LINGER_SECONDS: Final = 5.0
"""How long a channel stays subscribed that nobody listens to any more."""

MAX_LINGERING: Final = 10_000
"""Channels that may; beyond, the one that has done so longest goes."""

AT_ONCE: Final = 256
"""Channels that are let go in one turn of the loop."""


class Lingering:
    """One timer for all of them: all have the same time, so they are due in order.

    :param seconds: for how long a channel lingers.
    :param let_go: called when its time is over.
    :ivar keys: those that linger, and until when in the loop's time.
    """

    def __init__(self, seconds: float, let_go: Callable[[Key], None]) -> None:
        self.seconds = seconds
        self.keys: dict[Key, float] = {}
        self._let_go = let_go
        self._timer: asyncio.TimerHandle | None = None

    def put(self, key: Key) -> None:
        """Let it linger from now on."""
        loop = asyncio.get_running_loop()
        self.keys[key] = loop.time() + self.seconds
        if len(self.keys) > MAX_LINGERING:
            self._end(next(iter(self.keys)))
        if self._timer is None:
            self._timer = loop.call_later(self.seconds, self._end_due)

    def take(self, key: Key) -> bool:
        """It lingers no more, but is not let go. Whether it did."""
        return self.keys.pop(key, None) is not None

    def close(self) -> None:
        """Let nothing go any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _end(self, key: Key) -> None:
        del self.keys[key]
        self._let_go(key)

    def _end_due(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        for key, until in list(islice(self.keys.items(), AT_ONCE)):
            if until > loop.time():
                break
            self._end(key)
        if self.keys:
            self._timer = loop.call_at(next(iter(self.keys.values())), self._end_due)
