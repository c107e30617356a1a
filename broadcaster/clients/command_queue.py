"""Processes the commands of one client in the order of their arrival (protocol section 4.4)."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from legato.broadcaster.limits import MAX_PENDING_COMMANDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from legato.broadcaster.channels.subscriber import Key
    from legato.protocol.session import Effect

EFFECT_BYTES: Final = 256
"""Estimated memory of a waiting effect, in addition to its message."""


class Order:
    """The commands of one client that are in progress or waiting.

    Consecutive subscriptions run concurrently and are answered in order. Any other command waits until the
    subscriptions before it are answered, and the commands after a waiting one wait, too.
    """

    __slots__ = ("_later", "_open", "waiting_bytes")

    def __init__(self) -> None:
        # Subscription -> function that answers it, once it is ready to be answered. In order of arrival.
        self._open: dict[Key, Callable[[], None] | None] = {}
        self._later: deque[tuple[Key | None, Effect]] | None = None  # most clients never need one
        self.waiting_bytes = 0

    def takes(self, key: Key | None) -> bool:
        """Whether a command may start now: a subscription to ``key``, or another command if None."""
        return not self._later and self._free(key)

    def _free(self, key: Key | None) -> bool:
        return not self._open or (key is not None and key not in self._open)

    def defer(self, key: Key | None, effect: Effect, size: int) -> None:
        """Queue an effect for :meth:`next`. ``size`` is the length of its message in bytes."""
        if self._later is None:
            self._later = deque()
        self._later.append((key, effect))
        self.waiting_bytes += size + EFFECT_BYTES

    def next(self) -> Effect | None:
        """Take the effect that has waited longest, if it may start now."""
        if not self._later or not self._free(self._later[0][0]):
            return None
        _, effect = self._later.popleft()
        if not self._later:
            self.waiting_bytes = 0
        return effect

    @property
    def full(self) -> bool:
        """Whether too many commands are in progress or waiting to read more of them."""
        return len(self._open) >= MAX_PENDING_COMMANDS or (
            self._later is not None and len(self._later) >= MAX_PENDING_COMMANDS
        )

    def begin(self, key: Key) -> bool:
        """Note that a subscription starts. Returns whether reading has to pause now."""
        self._open[key] = None
        return len(self._open) >= MAX_PENDING_COMMANDS

    def settle(self, key: Key, answer: Callable[[], None]) -> None:
        """Note that a subscription is ready; answer it once all before it are answered."""
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
        """Forget everything: the client has left."""
        self._open.clear()
        self._later = None
        self.waiting_bytes = 0
