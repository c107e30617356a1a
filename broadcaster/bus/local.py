"""The bus of a single process without Redis. Publishing delivers directly."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .base import BusChannel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from legato.broadcaster.channels.subscriber import Key
    from legato.protocol.wire import Envelope

    from .base import BusHandler


class LocalBus:
    """See :mod:`.base`. Its channels are never lost."""

    def __init__(self) -> None:
        self.gaps = 0
        self.connected = True
        self._channels: dict[Key, BusChannel] = {}

    async def start(self, handler: BusHandler) -> None:
        """Set the handler."""
        self._on_message = handler.message
        self._on_confirmed = handler.confirmed

    def post(self, messages: Sequence[tuple[Key, Envelope]]) -> None:
        """Deliver at once to this node."""
        for key, envelope in messages:
            if (channel := self._channels.get(key)) is not None:
                self._on_message(channel, envelope)

    async def publish(self, messages: Sequence[tuple[Key, Envelope]]) -> None:
        """As :meth:`post`."""
        self.post(messages)

    def subscribe(self, key: Key) -> None:
        """Confirm at once."""
        self._channels[key] = BusChannel(key)
        self._on_confirmed(key)

    def unsubscribe(self, key: Key) -> None:
        """Forget the channel."""
        self._channels.pop(key, None)

    async def close(self) -> None:
        """Forget all channels."""
        self._channels.clear()
