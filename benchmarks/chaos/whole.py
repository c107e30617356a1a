"""Checks what a reader has at the end: the whole text and the right end.

Frames, snapshots and HTTP answers go through a reducer keyed by index, like that of ``client-js``: it accepts
the next index, holds later ones, and ignores known ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from .findings import Finding
from .live import SNAPSHOT, TERMINALS, TOKEN, message_id_of
from .record import ENDS, Frame, Read

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .record import Kept, ReaderRecord, Record

REAL: Final = frozenset({"queued", "streaming", "waiting", *ENDS})


class ReaderReply:
    """One message in the state of a reader."""

    def __init__(self) -> None:
        self.text = ""
        self.next = 0
        self.ends: list[str] = []
        self._held: dict[int, str] = {}

    def token(self, index: int, text: str) -> None:
        """Add a token, in any order."""
        if index >= self.next:
            self._held.setdefault(index, text)
        self._settle()

    def snapshot(self, text: str, next_: int) -> None:
        """The text of all indexes below ``next_``."""
        if next_ > self.next:
            self.text, self.next = text, next_
        self._settle()

    def status(self, status: str) -> None:
        """Apply the server's state of the whole message."""
        if status in ENDS and status not in self.ends:
            self.ends.append(status)

    def _settle(self) -> None:
        while (text := self._held.pop(self.next, None)) is not None:
            self.text += text
            self.next += 1


def reduce(reader: ReaderRecord) -> Mapping[str, ReaderReply]:
    """The reader's state of every message at the end."""
    replies: dict[str, ReaderReply] = {}
    for entry in reader.entries:
        match entry:
            case Frame():
                _take_frame(replies.setdefault(message_id_of(entry), ReaderReply()), entry)
            case Read(id=message_id, body=body):
                _take_read(replies.setdefault(message_id, ReaderReply()), body)
    return replies


def _take_frame(reply: ReaderReply, frame: Frame) -> None:
    if frame.event == TOKEN:
        reply.token(int(frame.data["tokenIndex"]), frame.data["token"])
    elif frame.event == SNAPSHOT:
        reply.snapshot(frame.data["text"], int(frame.data["nextIndex"]))
        reply.status(frame.data["status"])
    elif frame.event in TERMINALS:
        reply.status(TERMINALS[frame.event])


def _take_read(reply: ReaderReply, body: Mapping[str, Any]) -> None:
    first = body["nextIndex"] - len(body["tokens"])
    for offset, text in enumerate(body["tokens"]):
        reply.token(first + offset, text)
    reply.status(body["status"])


def audit(reader: ReaderRecord, record: Record) -> Iterator[Finding]:
    """Check the reader's state at the end, and its HTTP answers."""
    replies = reduce(reader)
    for sent in record.sent:
        kept = record.kept.get(sent.id)
        if sent.user != reader.user or kept is None or kept.state not in ENDS:
            continue
        who = f"{sent.id} at {reader.name}"
        reply = replies.get(sent.id, ReaderReply())
        for kind, detail in _differences(reply, kept):
            yield Finding(kind, "whole", who, detail)
    for entry in reader.entries:
        if isinstance(entry, Read) and (kept := record.kept.get(entry.id)):
            for kind, detail in _misreadings(entry.body, kept):
                yield Finding(kind, "whole", f"{entry.id} at {reader.name}", detail)


def _differences(reply: ReaderReply, kept: Kept) -> Iterator[tuple[str, str]]:
    text = "".join(kept.log)
    if reply.text != text:
        kind = "lost" if text.startswith(reply.text) else "forged"
        yield kind, f"has {reply.next} of {len(kept.log)} tokens"
    if not reply.ends:
        yield "missing ending", f"does not know that the message is {kept.state}"
    elif reply.ends != [kept.state]:
        yield "wrong ending", f"was told {', then '.join(reply.ends)}; the message is {kept.state}"


def _misreadings(body: Mapping[str, Any], kept: Kept) -> Iterator[tuple[str, str]]:
    """The violations in one answer: a part must never be presented as the whole."""
    count, log = body["nextIndex"], kept.log
    first = count - len(body["tokens"])
    if count > len(log) or body["text"] != "".join(log[:count]) or body["tokens"] != list(log[first:count]):
        yield "forged", f"an answer of {count} tokens is not what the log has"
    if body["status"] not in REAL or (body["status"] in ENDS and body["status"] != kept.state):
        yield "wrong ending", f"an answer says {body['status']}, the message is {kept.state}"
    elif body["status"] in ENDS and count < len(log):
        yield "lost", f"an answer passes {count} of {len(log)} tokens off as the whole"
