"""The parts that keep state of special kinds of channels."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from legato.broadcaster.replies.healer import Healer

    from .cache import CachedChannels
    from .presence import MemberLists


class ChannelKinds(NamedTuple):
    """:ivar healer: repairs the replies of channels; None when chat is off."""

    healer: Healer | None
    cached: CachedChannels
    member_lists: MemberLists
