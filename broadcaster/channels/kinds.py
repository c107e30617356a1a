"""What a node keeps of channels of special kinds, besides their subscribers."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from legato.broadcaster.replies.healer import Healer

    from .cache import CachedChannels
    from .presence import Rosters


class ChannelKinds(NamedTuple):
    """:ivar healer: of channels with replies; None without replies."""

    healer: Healer | None
    cached: CachedChannels
    rosters: Rosters
