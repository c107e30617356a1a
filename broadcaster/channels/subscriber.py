"""Keys of channels, and the subscriber as the hub sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from legato.protocol.channels import Key

if TYPE_CHECKING:
    from collections.abc import Callable, Collection


__all__ = ["Key", "Subscriber"]


class Subscriber(Protocol):
    """A connection as the hub sees it. Hashable by identity."""

    socket_id: str
    slow: bool
    write_now: Callable[[bytes], None]
    """The transport's write, which the fan-out calls while the socket is not slow."""

    def enqueue(self, data: bytes) -> None:
        """Queue bytes, within a bound, until the socket accepts them."""

    def write(self, data: bytes) -> None:
        """Write now or queue, depending on ``slow``."""

    def overwhelmed(self) -> None:
        """More than :data:`.limits.MAX_HELD_WRITES` writes were buffered before it could be answered."""

    def subscriptions(self) -> Collection[Key]:
        """Every channel of this connection in the hub."""

    def abort(self) -> None:
        """Cut the connection after a failed write."""
