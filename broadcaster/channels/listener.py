"""A subscriber inside this process: it reads what a channel delivers, and has no connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from .hub import Hub
    from .subscriber import Key


class ChannelListener:
    """Calls a function with each write of a channel. Satisfies :class:`~.subscriber.Subscriber`.

    :param ready: called once everything that is published on the channel from now on is delivered.
    :param heard: called with one or more frames at a time.
    """

    socket_id = ""
    slow = False

    def __init__(self, hub: Hub, key: Key, ready: Callable[[], None], heard: Callable[[bytes], None]) -> None:
        self._hub = hub
        self._key = key
        self._listening = ready
        self.write_now = self.enqueue = self.write = heard

    def start(self) -> None:
        """Subscribe."""
        self._hub.subscribe(self, self._key)

    def stop(self) -> None:
        """Unsubscribe."""
        self._hub.unsubscribe(self, self._key)

    def ready(self) -> None:
        """The bus delivers the channel."""
        self._hub.admit(self, self._key, b"")
        self._listening()

    def subscriptions(self) -> Collection[Key]:
        """The channel."""
        return (self._key,)

    def overwhelmed(self) -> None:
        """Nothing is buffered for it."""

    def abort(self) -> None:
        """Nothing is written for it that could fail."""
