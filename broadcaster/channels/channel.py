"""What the hub has of one channel: who listens on this node, and what has not been written to them yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .fanout import Pending

if TYPE_CHECKING:
    from collections.abc import Callable

    from .fanout import Pass
    from .hub import Subscriber


class Outlet:
    """One channel's local subscribers. For others something to give back to :meth:`Hub.put`.

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
