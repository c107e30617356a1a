"""One channel on this node: its local subscribers, and the frames not yet written to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .passes import Pending

if TYPE_CHECKING:
    from collections.abc import Callable

    from .passes import Pass
    from .subscriber import Subscriber


class ChannelState:
    """The local subscribers of one channel and its pending frames. Opaque outside of the hub and the fan-out.

    ``fast`` holds only sockets that take what is written, by their ``write_now``. ``waiting`` are those whose
    subscription the bus has not confirmed yet; ``held`` are those who have not got their answer yet, with
    what was published meanwhile. ``going`` is the pass that has been interrupted;
    ``queued`` says that a flush has something to do, or is doing it.
    ``writes`` is what a flush has to call if it is to give everybody everything at once: nobody is held, nor
    going to be left out, nor too many. A reply's token has one receiver, and whatever else it leads to is one
    of thousands: none is in the processor's cache.
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
