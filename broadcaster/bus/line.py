"""A channel on the bus, as its messages bring it along."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from legato.broadcaster.channels.subscriber import Key


class Line:
    """One per channel and subscription to it on the bus.

    :ivar key: which channel.
    :ivar at: for whoever the messages are delivered to: what else would be looked up by the key with each of
        them. It may be from before the last subscriber left: who keeps something here makes that show.
    """

    __slots__ = ("at", "key")

    def __init__(self, key: Key) -> None:
        self.key = key
        self.at: Any = None
