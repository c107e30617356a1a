"""A bus that is slow to let go: a page that reloads finds its channels still subscribed.

See the contract in :mod:`legato.broadcaster.bus.bus`.
"""

from __future__ import annotations

import asyncio
from itertools import islice
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from legato.broadcaster.channels.subscriber import Key
    from legato.protocol.wire import Envelope

    from .bus import Bus, Confirmed, Deliver, Lost
    from .line import Line

LINGER_SECONDS: Final = 5.0
"""How long a channel stays subscribed that nobody listens to any more."""

MAX_LINGERING: Final = 10_000
"""Channels that may; beyond, the one that has done so longest goes."""

AT_ONCE: Final = 256
"""Channels that are let go in one turn of the loop."""


class LingeringBus:
    """Satisfies :class:`legato.broadcaster.bus.bus.Bus` by another one, whose unsubscribing it puts off.

    What arrives for a channel that lingers goes nowhere. One that is lost lingers no more.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._confirmed_keys: set[Key] = set()
        self._lingering: dict[Key, float] = {}  # until when, in this order
        self._timer: asyncio.TimerHandle | None = None

    @property
    def gaps(self) -> int:
        """See the bus."""
        return self._bus.gaps

    @property
    def connected(self) -> bool:
        """See the bus."""
        return self._bus.connected

    async def start(self, deliver: Deliver, confirmed: Confirmed, lost: Lost) -> None:
        """See the bus."""
        self._deliver = deliver
        self._confirmed = confirmed
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        await self._bus.start(self._on_message, self._on_confirmed, self._on_lost)

    def post(self, messages: Sequence[tuple[Key, Envelope]]) -> asyncio.Future[None] | None:
        """See :class:`.bus.Bus`."""
        return self._bus.post(messages)

    async def publish(self, messages: Sequence[tuple[Key, Envelope]]) -> None:
        """See the bus."""
        await self._bus.publish(messages)

    async def close(self) -> None:
        """See the bus."""
        if self._timer is not None:
            self._timer.cancel()
        await self._bus.close()

    def subscribe(self, key: Key) -> None:
        """Confirm at once what lingers: it has delivered all the time."""
        if self._lingering.pop(key, None) is None:
            self._bus.subscribe(key)
        else:
            self._confirmed(key)

    def unsubscribe(self, key: Key) -> None:
        """Later, if nobody subscribes again; at once if it does not deliver anyway."""
        if key not in self._confirmed_keys:
            self._bus.unsubscribe(key)
            return
        self._lingering[key] = self._loop.time() + LINGER_SECONDS
        if len(self._lingering) > MAX_LINGERING:
            self._let_go(next(iter(self._lingering)))
        if self._timer is None:
            self._timer = self._loop.call_later(LINGER_SECONDS, self._let_go_due)

    def _let_go(self, key: Key) -> None:
        del self._lingering[key]
        self._confirmed_keys.discard(key)
        self._bus.unsubscribe(key)

    def _let_go_due(self) -> None:
        self._timer = None
        for key, until in list(islice(self._lingering.items(), AT_ONCE)):
            if until > self._loop.time():
                break
            self._let_go(key)
        if self._lingering:
            self._timer = self._loop.call_at(next(iter(self._lingering.values())), self._let_go_due)

    def _on_message(self, line: Line, envelope: Envelope) -> None:
        if not self._lingering or line.key not in self._lingering:  # mostly none does: no key is hashed
            self._deliver(line, envelope)

    def _on_confirmed(self, key: Key) -> None:
        self._confirmed_keys.add(key)
        if key not in self._lingering:
            self._confirmed(key)

    def _on_lost(self, keys: Collection[Key]) -> None:
        # Before anything is subscribed anew: what nobody needs is not asked for again.
        for key in keys:
            if key in self._lingering:
                self._let_go(key)
        self._confirmed_keys.difference_update(keys)
        self._lost(keys)
