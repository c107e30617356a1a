"""Departures of this node that are held back, and what has to stay listed for that."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from legato.broadcaster.channels.subscriber import Key

    from .codec import Hold, NodeEntry


class Holds:
    """By channel and field: ``c`` for the channel, ``u`` and a user's id for a user.

    What is held back stays listed until it is released, so that others find it if this node dies. An entry
    may be there for more than one hold.
    """

    def __init__(self) -> None:
        self._holds: dict[tuple[Key, str], Hold] = {}
        self._kept: Counter[NodeEntry] = Counter()

    def __len__(self) -> int:
        return len(self._holds)

    @property
    def entries(self) -> set[bytes | str]:
        """What stays listed for a hold alone, without the name that it is listed under."""
        return {entry for _, entry in self._kept}

    def holder(self, key: Key, field: str, otherwise: str) -> str:
        """By which name of this node the departure is held back; ``otherwise`` if it is not."""
        hold = self._holds.get((key, field))
        return otherwise if hold is None else hold.holder

    def hold(self, key: Key, field: str, hold: Hold, *, keep: bool) -> None:
        """Hold a departure back. ``keep``: nothing but the hold needs the entry."""
        self._holds[key, field] = hold
        if keep:
            self._kept[hold.entry] += 1

    def reclaim(self, entry: NodeEntry) -> None:
        """It is the entry of a subscription again, no longer a hold's alone."""
        self._kept.pop(entry, None)

    def let_go(self, key: Key, field: str) -> tuple[NodeEntry, ...]:
        """The departure is held back no more: answers the entry that nothing else needs, if there is one."""
        hold = self._holds.pop((key, field), None)
        if hold is None or hold.entry not in self._kept:
            return ()
        self._kept[hold.entry] -= 1
        if self._kept[hold.entry] > 0:
            return ()
        del self._kept[hold.entry]
        return (hold.entry,)
