"""Checks the frames that a stock client received within one subscription.

Tokens of a message arrive in order, each once, without a gap, with the texts of the log. At most one terminal
event follows the last token, equal to that of the log. If the subscription began before the message was
submitted, the tokens start at index 0; otherwise at an index that the message's snapshot covers. They reach
the end, with the terminal event, if the subscription lasted: to the end of the run, or for some time after a
later message of the same user, because the node may hold the earlier message while it recovers missed frames.

All this also holds while a node's connection to Redis is interrupted: the node must recover.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from legato.protocol import parts

from .findings import Finding, flaws
from .record import Disconnected, Frame, Read, Subscribed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from .record import Kept, ReaderRecord, Record, Sent

TERMINALS: Final = {
    "stream.completed": "complete",
    "stream.failed": "failed",
    "stream.cancelled": "cancelled",
}
SNAPSHOT: Final = "stream.snapshot"
TOKEN: Final = "token.received"  # noqa: S105 - an event
STARTED: Final = "stream.started"
PARTS: Final = {part.event: kind for kind, part in parts.KINDS.items()}
"""Event of a part of a reply that is not text -> its kind in the log."""

SLACK: Final = 6.0
"""Seconds that a frame may arrive after one of a later message, if a fault delays the node or its reads."""

WELCOME: Final = 10.0
"""Seconds within which a subscriber must receive its snapshots."""


@dataclass
class RecordedSubscription:
    """One subscription. ``end`` is None if it lasted to the end of the run."""

    begin: float
    end: float | None = None
    frames: list[Frame] = field(default_factory=list)

    def by_message(self) -> Mapping[str, list[Frame]]:
        """The frames of each message, in order."""
        frames: defaultdict[str, list[Frame]] = defaultdict(list)
        for frame in self.frames:
            frames[message_id_of(frame)].append(frame)
        return frames


def message_id_of(frame: Frame) -> str:
    """The message of a frame, empty without one."""
    return str(frame.data.get("messageId", "")) if isinstance(frame.data, dict) else ""


def sessions(reader: ReaderRecord) -> tuple[list[RecordedSubscription], list[Frame]]:
    """The reader's subscriptions, and frames that belong to none."""
    found: list[RecordedSubscription] = []
    strays: list[Frame] = []
    for entry in reader.entries:
        match entry:
            case Subscribed(at):
                found.append(RecordedSubscription(at))
            case Disconnected(at):
                if found and found[-1].end is None:
                    found[-1].end = at
            case Frame():
                open_ = found and found[-1].end is None
                (found[-1].frames if open_ else strays).append(entry)
    return found, strays


def audit(reader: ReaderRecord, record: Record) -> list[Finding]:
    """Check what the reader received live."""
    result: list[Finding] = []
    found, strays = sessions(reader)
    own = {sent.id: sent for sent in record.sent if sent.user == reader.user}
    for frame in strays:
        who = f"{message_id_of(frame)} at {reader.name}"
        result.append(Finding("reordered", "live", who, f"{frame.event} without a subscription"))
    told: Counter[str] = Counter()
    for session in found:
        frames = session.by_message()
        result.extend(_foreign(reader, session, own))
        for sent in own.values():
            if kept := record.kept.get(sent.id):
                view = _View(reader, session, sent, kept, frames.get(sent.id, []))
                told[sent.id] += len(view.terminals)
                result.extend(_judge(view, lasted=_lasted(session, sent, own)))
    for message_id, count in told.items():
        if count > 1:
            who = f"{message_id} at {reader.name}"
            result.append(Finding("doubled ending", "live", who, f"{count} terminal events"))
    return result


def _foreign(
    reader: ReaderRecord, session: RecordedSubscription, own: Mapping[str, Sent]
) -> Iterator[Finding]:
    for frame in session.frames:
        message_id = message_id_of(frame)
        who = f"{message_id} at {reader.name}"
        if message_id not in own:
            yield Finding("forged", "live", who, f"{frame.event} of a message that is not the reader's")
        elif frame.event not in (TOKEN, SNAPSHOT, STARTED, *TERMINALS, *PARTS):
            yield Finding("forged", "live", who, f"{frame.event} is no event of a reply")
        elif str(frame.data.get("userId", reader.user)) != reader.user:
            yield Finding("forged", "live", who, f"{frame.event} with the user {frame.data['userId']!r}")


def _lasted(session: RecordedSubscription, sent: Sent, own: Mapping[str, Sent]) -> bool:
    """Whether nothing of the message was still to come when the session ended."""
    if sent.ended is None:
        return False
    if session.end is None:
        return True
    return any(
        (later := own.get(message_id_of(frame))) is not None and later.at > sent.ended
        for frame in session.frames
        if frame.at < session.end - SLACK
    )


class _View:
    """One message as one subscription received it."""

    def __init__(
        self,
        reader: ReaderRecord,
        session: RecordedSubscription,
        sent: Sent,
        kept: Kept,
        frames: Sequence[Frame],
    ) -> None:
        self.reader = reader
        self.session = session
        self.sent = sent
        self.kept = kept
        self.frames = frames
        self.who = f"{sent.id} at {reader.name}"
        self.tokens = [frame for frame in frames if frame.event == TOKEN]
        self.terminals = [frame for frame in frames if frame.event in TERMINALS]
        self.snapshots = [frame for frame in frames if frame.event == SNAPSHOT]
        self.indexes = [int(frame.data["tokenIndex"]) for frame in self.tokens]
        self.from_start = session.begin < sent.at

    def finding(self, kind: str, detail: str) -> Finding:
        """About this message at this reader."""
        return Finding(kind, "live", self.who, detail)

    def first_due(self) -> int | None:
        """The highest index with which the tokens may begin; None when that cannot be told."""
        if self.from_start:
            return 0
        covered = [int(frame.data["nextIndex"]) for frame in self.snapshots]
        if covered:
            return min(covered)
        ended_soon = self.sent.ended is not None and self.sent.ended < self.session.begin + WELCOME
        left_soon = self.session.end is not None and self.session.end < self.session.begin + WELCOME
        return None if ended_soon or left_soon else 0


def _judge(view: _View, *, lasted: bool) -> Iterator[Finding]:
    yield from _texts(view)
    yield from _parts(view, lasted)
    yield from _terminal(view)
    yield from _order(view)
    yield from _holes(view, lasted)


def _texts(view: _View) -> Iterator[Finding]:
    log = view.kept.log
    for frame, index in zip(view.tokens, view.indexes, strict=True):
        if not 0 <= index < len(log):
            yield view.finding("forged", f"token {index} of {len(log)}")
        elif frame.data["token"] != log[index]:
            yield view.finding("forged", f"token {index} is {frame.data['token']!r}, not {log[index]!r}")
    for frame in view.snapshots:
        count = int(frame.data["nextIndex"])
        if count > len(log) or frame.data["text"] != "".join(log[:count]):
            yield view.finding("forged", f"a snapshot of {count} tokens is not what the log has")


def _parts(view: _View, lasted: bool) -> Iterator[Finding]:
    """The other parts: as the log has them, in order, each once; all of them if the reply was seen whole."""
    logged = {part.offset: part for part in view.kept.parts if part.kind != parts.HIDDEN}
    received = [frame for frame in view.frames if frame.event in PARTS]
    offsets = [int(frame.data["offset"]) for frame in received]
    for frame, offset in zip(received, offsets, strict=True):
        part = logged.get(offset)
        told = {name: value for name, value in frame.data.items() if name not in ("messageId", "offset")}
        if part is None or (PARTS[frame.event], told) != (
            part.kind,
            {**part.data, "tokenIndex": part.token_index},
        ):
            yield view.finding("forged", f"{frame.event} at offset {offset} is not what the log has")
    for before, after in pairwise(offsets):
        if after <= before:
            yield view.finding("repeated" if after == before else "reordered", f"the part at offset {after}")
    if view.from_start and (lasted or view.terminals):
        for offset in sorted(logged.keys() - set(offsets)):
            yield view.finding("gap", f"the part at offset {offset} is missing")


def _terminal(view: _View) -> Iterator[Finding]:
    kept = view.kept
    for frame in view.terminals:
        data: Mapping[str, Any] = frame.data
        if TERMINALS[frame.event] != kept.state:
            yield view.finding("wrong ending", f"{frame.event}, but the message is {kept.state}")
        count = len(kept.log)
        if data.get("totalTokens", count) != count:
            yield view.finding("wrong ending", f"totalTokens is {data['totalTokens']} instead of {count}")
        if frame.event == "stream.failed" and (data["code"], data["partial"]) != (kept.code, count > 0):
            yield view.finding("wrong ending", f"{data['code']}, partial {data['partial']}: not so decided")


def _order(view: _View) -> Iterator[Finding]:
    first = min(view.indexes, default=0)
    for kind, at in flaws(view.indexes, first):
        if kind != "lost":  # a gap: see below
            yield view.finding(kind, f"token {at}")
    ended = False
    for frame in view.frames:
        if ended and frame.event in (TOKEN, STARTED):
            yield view.finding("reordered", f"{frame.event} after the end")
        ended = ended or frame.event in TERMINALS


def _holes(view: _View, lasted: bool) -> Iterator[Finding]:
    due = view.first_due()
    expected = min(view.indexes, default=0) if due is None else due
    for index in view.indexes:
        if index > expected:
            yield view.finding("gap", _range(expected, index))
        expected = max(expected, index + 1)
    if not view.terminals:
        if not lasted or not (view.from_start or view.tokens or view.snapshots):
            return
        yield view.finding("missing ending", "no terminal event")
    total = len(view.kept.log)
    if (due is not None or view.tokens) and expected < total:
        yield view.finding("gap", _range(expected, total))


def _range(begin: int, end: int) -> str:
    return f"token {begin} is missing" if end == begin + 1 else f"tokens {begin} to {end - 1} are missing"


def figures(readers: Iterable[ReaderRecord]) -> Mapping[str, int]:
    """Counts of what the readers received."""
    entries = [entry for reader in readers for entry in reader.entries]
    frames = [entry for entry in entries if isinstance(entry, Frame)]
    return {
        "subscriptions": sum(isinstance(entry, Subscribed) for entry in entries),
        "frames": sum(frame.event == TOKEN for frame in frames),
        "parts": sum(frame.event in PARTS for frame in frames),
        "snapshots": sum(frame.event == SNAPSHOT for frame in frames),
        "reads": sum(isinstance(entry, Read) for entry in entries),
    }
