"""Checks presence at the end of a run: no ghost in any list, and no member missing.

When everything has come to rest, each subscriber of the presence channel must have exactly the connected
users in its list. The HTTP API of each node must return the same users, and the right number of subscriptions
for each channel.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from .findings import Finding
from .record import Came, Members, SubscribeSent, Went

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .record import RoomRecord, Visitor


def audit(room: RoomRecord) -> Iterator[Finding]:
    """Check the end of a run."""
    counts = Counter(channel for visitor in room.visitors for channel in channels_of(visitor))
    there = frozenset(visitor.user for visitor in room.visitors if room.presence in channels_of(visitor))
    for visitor in room.visitors:
        if room.presence in channels_of(visitor):
            yield from _compare("list", visitor.name, members_of(visitor), there)
        elif visitor.stays:
            yield Finding("absent", "list", visitor.name, "is not subscribed in the end")
    for node, users in room.users.items():
        yield from _compare("api", f"node {node}", users, there)
    for node, counted in room.counts.items():
        for channel in sorted({*counted, *counts}):
            count, real = counted.get(channel, 0), counts[channel]
            if count != real:
                kind = "ghost" if count > real else "absent"
                detail = f"{channel} has {count} subscriptions instead of {real}"
                yield Finding(kind, "api", f"node {node}", detail)


def channels_of(visitor: Visitor) -> set[str]:
    """The client's channels at the end."""
    on: set[str] = set()
    for entry in visitor.entries:
        match entry:
            case Came():
                on.add(entry.channel)
            case Went():
                on.discard(entry.channel)
            case SubscribeSent() | Members():
                pass
    return on


def members_of(visitor: Visitor) -> frozenset[str]:
    """The client's last member list."""
    lists = [entry.ids for entry in visitor.entries if isinstance(entry, Members)]
    return lists[-1] if lists else frozenset()


def _compare(place: str, who: str, seen: frozenset[str], there: frozenset[str]) -> Iterator[Finding]:
    for user in sorted(seen - there):
        yield Finding("ghost", place, who, f"{user} is listed, and not there")
    for user in sorted(there - seen):
        yield Finding("absent", place, who, f"{user} is there, and not listed")
