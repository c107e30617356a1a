"""Checks the webhooks: each change once, alternating, and at the end the true state.

For each channel ``channel_occupied`` and ``channel_vacated`` alternate, for each user of a presence channel
``member_added`` and ``member_removed``; the last one matches the state. If one arrives twice in a row, the
clients' records show why: if nothing happened in between, it was sent twice; otherwise the change in between
was not sent. A client may have been subscribed without receiving the answer.

Each node sends for itself: an event that one node sent late, because it was stopped or retried, may arrive
after a later event of another node. A killed node loses its unsent events; only that is excused, and counted.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final, NamedTuple

from .findings import Finding
from .record import Came, Members, SubscribeSent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .record import RoomRecord, Told, Visitor

IS_ENTRY: Final = {
    "channel_occupied": True,
    "channel_vacated": False,
    "member_added": True,
    "member_removed": False,
}

LATE: Final = 20.0
"""Seconds that an event of one node may arrive after a later one of another."""

EARLY: Final = 10.0
"""Seconds that clients may know a change before its webhook."""

EXCUSED: Final = 15.0
"""Seconds between a change and the death of a node within which the node may have had to send it."""

Thing = tuple[str, str]
"""A channel, and a user of it or an empty text."""


class _Change(NamedTuple):
    """A change between occupied and vacant, as the clients know it."""

    at: float
    entry: bool


class _Judged(NamedTuple):
    findings: Sequence[Finding]
    excused: int


def audit(room: RoomRecord) -> list[Finding]:
    """Check all webhooks."""
    return list(_judge(room).findings)


def figures(room: RoomRecord) -> Mapping[str, int]:
    """Counts of the events."""
    return {"webhook events": len(room.told), "of killed nodes, not told": _judge(room).excused}


def _judge(room: RoomRecord) -> _Judged:
    told: defaultdict[Thing, list[Told]] = defaultdict(list)
    for event in room.told:
        told[event.channel, event.user].append(event)
    changes, asked = _changes(room), _asked(room)
    findings, excused = [], 0
    if room.refused:
        detail = f"{room.refused} requests with a wrong signature"
        findings.append(Finding("forged", "webhooks", "-", detail))
    for thing in sorted({*told, *changes}):
        for kind, detail, times in _flaws(told[thing], changes.get(thing, []), asked[thing], room.kills):
            if kind == "missing webhook" and _are_excused(times, room.kills):
                excused += 1
            else:
                findings.append(Finding(kind, "webhooks", " ".join(thing).strip(), detail))
    return _Judged(findings, excused)


def _changes(room: RoomRecord) -> Mapping[Thing, list[_Change]]:
    """For each subject, when its first client joined and its last one left."""
    steps: defaultdict[Thing, list[_Change]] = defaultdict(list)
    for visitor in room.visitors:
        on: set[str] = set()
        for entry in visitor.entries:
            if isinstance(entry, (SubscribeSent, Members)) or isinstance(entry, Came) is (
                entry.channel in on
            ):
                continue
            change = _Change(entry.at, isinstance(entry, Came))
            on ^= {entry.channel}
            for thing in _things(room, visitor, entry.channel):
                steps[thing].append(change)
    return {thing: list(_of_all(of_each)) for thing, of_each in steps.items()}


def _things(room: RoomRecord, visitor: Visitor, channel: str) -> Iterator[Thing]:
    """Webhook subjects of a join and a leave."""
    yield channel, ""
    if channel == room.presence:
        yield channel, visitor.user


def _asked(room: RoomRecord) -> Mapping[Thing, list[float]]:
    """For each subject, when a client may have joined without receiving the answer."""
    asked: defaultdict[Thing, list[float]] = defaultdict(list)
    for visitor in room.visitors:
        for entry in visitor.entries:
            if isinstance(entry, SubscribeSent):
                for thing in _things(room, visitor, entry.channel):
                    asked[thing].append(entry.at)
    return asked


def _of_all(of_each: Sequence[_Change]) -> Iterator[_Change]:
    """Derive occupancy changes from the joins and leaves of single clients."""
    count = 0
    for change in sorted(of_each):
        count += 1 if change.entry else -1
        if count == int(change.entry):  # from 0 to 1, or from 1 to 0
            yield change


def _are_excused(times: Sequence[float], kills: Sequence[float]) -> bool:
    return any(abs(kill - at) <= EXCUSED for kill in kills for at in times)


def _flaws(
    told: Sequence[Told], changes: Sequence[_Change], asked: Sequence[float], kills: Sequence[float]
) -> Iterator[tuple[str, str, list[float]]]:
    """Kind, detail, and the time of the missing change."""
    rest, there, before = sorted(told, key=lambda event: event.at), False, 0.0
    last = "nothing"
    while rest:
        event = first = rest[0]
        if IS_ENTRY[first.event] is there:
            since = before - EARLY
            between = [at for at, entry in changes if entry is not there and since <= at <= first.at]
            if not there:  # a departure, of somebody who had not been told to be there
                between += [at for at in asked if since <= at <= first.at]
            # What a killed node took with it is not late: taken for that, a later event would be missing.
            event = next(_late(rest), first) if between and not _are_excused(between, kills) else first
            if event is first:
                kind = "missing webhook" if between else "doubled webhook"
                detail = (
                    f"{first.event} by node {first.node} at {first.at:.2f}, after another at {before:.2f}"
                )
                yield kind, detail, between
        rest.remove(event)
        there, before, last = IS_ENTRY[event.event], first.at, event.event
    really = changes[-1].entry if changes else False
    if there is not really:
        where = "somebody is there" if really else "nobody is there"
        yield "missing webhook", f"{where}, but the last word was {last}", [changes[-1].at] if changes else []


def _late(rest: Sequence[Told]) -> Iterator[Told]:
    """What another node should have told before the first of these."""
    first = rest[0]
    for event in rest:
        opposite = IS_ENTRY[event.event] is not IS_ENTRY[first.event]
        if opposite and event.node != first.node and event.at - first.at <= LATE:
            yield event
