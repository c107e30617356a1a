"""The state of one channel on this node: its local subscribers and pending frames."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .passes import Pending

if TYPE_CHECKING:
    from collections.abc import Callable

    from .passes import Pass
    from .subscriber import Subscriber


class ChannelState:
    """The local subscribers of one channel and its pending frames. Opaque outside of the hub and the fan-out.

    A subscriber is in one of four groups: ``waiting`` until the bus confirms the channel; ``held`` until it
    is answered, with the frames that are buffered meanwhile; then ``fast``, or ``slow`` while its socket does
    not accept writes at once. ``going`` is an interrupted pass. ``queued`` is true while a flush has work for
    this channel.

    ``writes`` caches the write of every subscriber. It is set if a flush can give every frame to every
    subscriber at once: none is held or excluded, and they are few. With it, a token of a reply with one
    receiver touches little memory that is not in the processor's cache.
    """

    __slots__ = (
        "confirmed",
        "fast",
        "going",
        "held",
        "pending",
        "queued",
        "ready",
        "slow",
        "waiting",
        "writes",
    )

    def __init__(self) -> None:
        self.fast: dict[Subscriber, Callable[[bytes], None]] = {}
        self.slow: dict[Subscriber, Callable[[bytes], None]] = {}
        self.held: dict[Subscriber, list[bytes]] = {}
        self.waiting: dict[Subscriber, None] = {}
        self.pending = Pending()
        self.going: Pass | None = None
        self.writes: tuple[Callable[[bytes], None], ...] | None = None
        self.queued = False
        self.ready = False
        self.confirmed = False

    def __len__(self) -> int:
        return len(self.fast) + len(self.slow) + len(self.held) + len(self.waiting)
