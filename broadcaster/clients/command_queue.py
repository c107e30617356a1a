"""The messages of one client are worked off in the order in which they came (protocol section 4.4)."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from legato.broadcaster.channels.subscriber import Key
    from legato.protocol.session import Effect

MOST: Final = 64
"""How much may be under way before no more is read of what the client says."""

EFFECT_BYTES: Final = 256
"""What an effect that waits is taken to need, besides the message that asked for it."""


class Order:
    """What of one client is under way.

    Subscriptions take their time, at the same time, and are answered in order. Everything else waits until
    those before it have been answered; so does a subscription behind something that waits.
    """

    __slots__ = ("_later", "_open", "waiting_bytes")

    def __init__(self) -> None:
        # A subscription -> its answer, once that may be given. In the order of asking.
        self._open: dict[Key, Callable[[], None] | None] = {}
        self._later: deque[tuple[Key | None, Effect]] | None = None  # most clients never need one
        self.waiting_bytes = 0

    def takes(self, key: Key | None) -> bool:
        """Whether it may be begun now: a subscription to ``key``, or with None anything else."""
        return not self._later and self._free(key)

    def _free(self, key: Key | None) -> bool:
        return not self._open or (key is not None and key not in self._open)

    def defer(self, key: Key | None, effect: Effect, size: int) -> None:
        """It comes by :meth:`next` in its turn. ``size`` is that of the message that asked for it."""
        if self._later is None:
            self._later = deque()
        self._later.append((key, effect))
        self.waiting_bytes += size + EFFECT_BYTES

    def next(self) -> Effect | None:
        """What has waited longest, if it may be begun now."""
        if not self._later or not self._free(self._later[0][0]):
            return None
        _, effect = self._later.popleft()
        if not self._later:
            self.waiting_bytes = 0
        return effect

    @property
    def full(self) -> bool:
        """Whether so much is under way that nothing more is to be added to it now."""
        return len(self._open) >= MOST or (self._later is not None and len(self._later) >= MOST)

    def begin(self, key: Key) -> bool:
        """A subscription is under way. Whether it is one of too many."""
        self._open[key] = None
        return len(self._open) >= MOST

    def settle(self, key: Key, answer: Callable[[], None]) -> None:
        """It may be answered: done once all before it are."""
        if key not in self._open:
            return
        self._open[key] = answer
        while self._open:
            key, ready = next(iter(self._open.items()))
            if ready is None:
                return
            del self._open[key]
            ready()  # may close the client, and so clear this

    def clear(self) -> None:
        """The client has gone."""
        self._open.clear()
        self._later = None
        self.waiting_bytes = 0
