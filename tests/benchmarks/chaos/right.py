"""A record of a run in which everything was right, to be spoilt in one place."""

from __future__ import annotations

from legato.benchmarks.chaos.record import (
    Disconnected,
    Frame,
    Kept,
    Read,
    ReaderRecord,
    Record,
    Rules,
    Sent,
    Subscribed,
    TurnRow,
)
from legato.benchmarks.chaos.script import ReplyScript

WORDS = 12
SCRIPT = ReplyScript(WORDS, 20)
ID = "m1"
LOG = tuple(f"w{index} " for index in range(WORDS))


def token(index: int, at: float | None = None) -> Frame:
    data = {"userId": 7, "messageId": ID, "token": f"w{index} ", "tokenIndex": index}
    return Frame(2.0 + index / 10 if at is None else at, "token.received", data)


def completed(at: float = 4.0) -> Frame:
    data = {"userId": 7, "messageId": ID, "totalTokens": WORDS}
    return Frame(at, "stream.completed", data)


def snapshot(count: int, at: float) -> Frame:
    text = "".join(LOG[:count])
    data = {"messageId": ID, "text": text, "nextIndex": count, "status": "streaming"}
    return Frame(at, "stream.snapshot", data)


def read(at: float = 5.0) -> Read:
    body = {"text": "".join(LOG), "tokens": list(LOG), "nextIndex": WORDS, "status": "complete"}
    return Read(at, ID, body)


def steady() -> ReaderRecord:
    """Connected all the time."""
    return ReaderRecord("7/0", "7", 0, [Subscribed(0.5), *map(token, range(WORDS)), completed()])


def returning() -> ReaderRecord:
    """Away in the middle, and told by a snapshot what it missed."""
    first = [Subscribed(0.5), *map(token, range(4)), Disconnected(2.45)]
    second = [Subscribed(2.65), token(7), snapshot(8, 2.75), *map(token, range(8, WORDS)), completed()]
    return ReaderRecord("7/1", "7", 1, [*first, *second])


def late() -> ReaderRecord:
    """Came back after the end, and read it up."""
    entries = [Subscribed(0.5), *map(token, range(3)), Disconnected(2.3), Subscribed(4.5), read()]
    return ReaderRecord("7/2", "7", 0, entries)


ROWS = (TurnRow("user", SCRIPT.line, "complete"), TurnRow("assistant", "".join(LOG), "complete"))
KEPT = Kept("complete", WORDS, 1, LOG, "complete", "", ROWS)
SENT = Sent(ID, "7", SCRIPT, at=1.0, ended=4.1)


def record(
    *readers: ReaderRecord, kept: Kept = KEPT, sent: Sent = SENT, rules: Rules | None = None
) -> Record:
    """Of one message; with all three readers where none is named."""
    return Record([sent], {ID: kept}, readers or (steady(), returning(), late()), rules=rules or Rules())
