"""The departures that this node holds back, and the entries that have to stay listed for them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from legato.broadcaster.channels.subscriber import Key

    from .codec import Hold, NodeEntry


class Holds:
    """Departures by channel and field: ``c`` for the channel, ``u`` and a user's id for a user.

    An entry stays listed until its departure is released, so that others find it if this node dies. One entry
    may serve more than one departure.
    """

    def __init__(self) -> None:
        self._holds: dict[tuple[Key, str], Hold] = {}
        self._kept: Counter[NodeEntry] = Counter()

    def __len__(self) -> int:
        return len(self._holds)

    @property
    def entries(self) -> set[bytes | str]:
        """The entries that are listed for a held departure alone, without the node's name."""
        return {entry for _, entry in self._kept}

    def holder(self, key: Key, field: str, otherwise: str) -> str:
        """The name of this node that holds the departure back; ``otherwise`` if none does."""
        hold = self._holds.get((key, field))
        return otherwise if hold is None else hold.holder

    def hold(self, key: Key, field: str, hold: Hold, *, keep: bool) -> None:
        """Hold a departure back. ``keep``: only this needs the entry to stay listed."""
        self._holds[key, field] = hold
        if keep:
            self._kept[hold.entry] += 1

    def reclaim(self, entry: NodeEntry) -> None:
        """The entry belongs to a subscription again."""
        self._kept.pop(entry, None)

    def let_go(self, key: Key, field: str) -> tuple[NodeEntry, ...]:
        """End a hold-back. Returns the entry if nothing else needs it listed."""
        hold = self._holds.pop((key, field), None)
        if hold is None or hold.entry not in self._kept:
            return ()
        self._kept[hold.entry] -= 1
        if self._kept[hold.entry] > 0:
            return ()
        del self._kept[hold.entry]
        return (hold.entry,)
