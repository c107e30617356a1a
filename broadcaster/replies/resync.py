"""Recovery after a gap of the bus: resends what can be restored, and counts the rest."""

from __future__ import annotations

import logging
from itertools import islice
from typing import TYPE_CHECKING, Final

from legato.broadcaster.bus.base import BusError
from legato.broadcaster.limits import CHANNELS_PER_RESYNC
from legato.protocol.channels import LONGEST_NAME, Channel, ChannelError
from legato.protocol.redis.retry import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from typing import Any

    from legato.broadcaster.channels.kinds import ChannelKinds
    from legato.broadcaster.channels.subscriber import Key


logger: Final = logging.getLogger("legato.node")


class Recovery:
    """Recovers channels that the bus did not deliver for a while.

    :ivar channels: channels that may have missed messages, also healed ones; counted once per gap.
    """

    def __init__(
        self,
        kinds: ChannelKinds,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._healer = kinds.healer
        self._cached = kinds.cached
        self._member_lists = kinds.member_lists
        self._spawn = spawn
        self._waiting: dict[Key, None] = {}
        self._running = False
        self.channels = 0

    def missed(self, key: Key) -> None:
        """Recover a channel that is delivered again after a gap."""
        self.channels += 1
        if self._healer is not None:
            self._healer.deafen(key)
        self._waiting[key] = None
        if not self._running:
            self._running = True
            self._spawn(self._recover())

    async def _recover(self) -> None:
        count, backoff = 0, Backoff()
        try:
            while self._waiting:
                batch = list(islice(self._waiting, CHANNELS_PER_RESYNC))
                for key in batch:
                    del self._waiting[key]
                try:
                    await self._read(batch)
                except BusError:
                    self._waiting |= dict.fromkeys(batch)
                    await backoff.wait()
                else:
                    count += len(batch)
        finally:
            self._running = False
        logger.warning("the connection to the bus was lost: %d channels may have missed messages", count)

    async def _read(self, keys: Sequence[Key]) -> None:
        if self._healer is not None:
            await self._healer.resync([key for key in keys if self._healer.concerns(key)])
        kinds = [(key, channel) for key in keys if (channel := _channel(key)) is not None]
        await self._cached.read_again([key for key, channel in kinds if channel.cache])
        await self._member_lists.tell_again([key for key, channel in kinds if channel.presence])


def _channel(key: Key) -> Channel | None:
    try:
        return Channel.parse(key.channel, LONGEST_NAME)
    except ChannelError:  # a user's channel
        return None
