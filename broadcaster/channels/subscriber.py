"""What the hub knows of channels and of who subscribes to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Collection


class Key(NamedTuple):
    """A channel of an application."""

    app_id: str
    channel: str


class Subscriber(Protocol):
    """A connection as the hub sees it. Hashable by identity."""

    socket_id: str
    slow: bool
    write_now: Callable[[bytes], None]
    """The transport's own write: what the fan-out calls while the socket is not slow."""

    def enqueue(self, data: bytes) -> None:
        """Keep bytes, within a bound, until the socket takes them."""

    def write(self, data: bytes) -> None:
        """One of the two, as the socket stands."""

    def overwhelmed(self) -> None:
        """More than :data:`.fanout.HELD_WRITES` was published before it could be answered."""

    def subscriptions(self) -> Collection[Key]:
        """Every channel that the connection has in the hub."""

    def abort(self) -> None:
        """Cut the connection: it cannot be written to."""
