"""What a reply has written so far: its entries, with their frames, in order. No I/O."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from legato.protocol import parts, stream

from .log import GapError, LogPart, Token

if TYPE_CHECKING:
    from legato.protocol.jobs import Job

    from .log import LogRecord, StoredLog


class NewPart(NamedTuple):
    """A part to append. See :class:`.log.LogPart`."""

    kind: str
    data: bytes
    private: bytes = b""
    call: str = ""


class Transcript:
    """The entries of one reply.

    :ivar next: offset of the next entry.
    :ivar entries: a string for each token. Fewer than ``next`` if the log was incomplete at the claim.
    """

    __slots__ = ("_channel", "_id", "_others", "_user", "entries", "next")

    def __init__(self, job: Job, next_: int, log: StoredLog | None = None) -> None:
        """:param next_: the number of entries in the log, and :param log: the log as it was read."""
        self._channel = job.channel
        self._id = job.message_id
        self._user = job.user_id
        self.next = next_
        self.entries: list[str | NewPart] = [] if log is None else _kept(log)
        self._count()

    def _count(self) -> None:
        self._others = sum(not isinstance(entry, str) for entry in self.entries)

    @property
    def tokens(self) -> int:
        """Number of tokens, which is the index of the next one."""
        return self.next - self._others

    def add_text(self, text: str) -> LogRecord:
        """Add a token."""
        offset = self.next
        self.next = offset + 1
        self.entries.append(text)
        if self._others:
            return self._token(offset, offset - self._others, text)
        # The common case, without another call.
        frame = stream.TokenReceived(self._user, self._id, text, offset).frame(self._channel)
        return Token(offset, text, frame)

    def add(self, part: NewPart) -> LogPart:
        """Add another part."""
        offset = self.next
        index = self.tokens
        self.next = offset + 1
        self._others += 1
        self.entries.append(part)
        return self._part(offset, index, part)

    def since(self, first: int, most: int) -> list[LogRecord]:
        """Up to ``most`` entries from offset ``first`` on, as they were first written.

        :raises GapError: they are unknown, because the log was incomplete at the claim.
        """
        self._check(first)
        index = sum(isinstance(entry, str) for entry in islice(self.entries, first))
        found: list[LogRecord] = []
        for offset in range(first, min(first + most, self.next)):
            entry = self.entries[offset]
            if isinstance(entry, str):
                found.append(self._token(offset, index, entry))
                index += 1
            else:
                found.append(self._part(offset, index, entry))
        return found

    def _check(self, first: int) -> None:
        if len(self.entries) != self.next:
            raise GapError(f"{self._id}: what the log has from offset {first} on is not known", first)

    def truncate(self, count: int) -> None:
        """Discard the entries from offset ``count`` on, which were never written."""
        if len(self.entries) == self.next:
            del self.entries[count:]
            self.next = len(self.entries)
            self._count()

    def text(self, first: int = 0) -> str:
        """All text from offset ``first`` on."""
        return "".join(entry for entry in islice(self.entries, first, None) if isinstance(entry, str))

    @property
    def plain(self) -> bool:
        """Whether all entries are tokens."""
        return not self._others

    @property
    def asks(self) -> bool:
        """Whether a call of the reply needed an approval, as far as the log is known."""
        if self.plain:
            return False
        return any(isinstance(one, NewPart) and bool(one.call) for one in self.entries)

    def end(self, decision: stream.Decision) -> bytes:
        """The frame of the terminal event."""
        return stream.ending(decision, self._user, self._id, self.next).frame(self._channel)

    def _token(self, offset: int, index: int, text: str) -> LogRecord:
        frame = stream.TokenReceived(self._user, self._id, text, index).frame(self._channel)
        if index == offset:
            return Token(offset, text, frame)
        return LogPart(offset, "", text.encode(), index, frame)

    def _part(self, offset: int, index: int, part: NewPart) -> LogPart:
        frame = parts.frame(part.kind, part.data, self._channel, self._id, offset, index)
        return LogPart(offset, part.kind, part.data, index, frame, part.private, part.call)


def new_part(part: parts.Part, private: bytes = b"", call: str = "") -> NewPart:
    """A part as it is appended."""
    return NewPart(part.kind, parts.encode(part), private, call)


def _kept(log: StoredLog) -> list[str | NewPart]:
    return [
        NewPart(entry.kind, entry.data, log.private.get(offset, b""), _call(entry))
        if entry.kind
        else entry.data.decode()
        for offset, entry in enumerate(log.entries)
    ]


def _call(entry: parts.LogEntry) -> str:
    """The call whose approval the entry requests."""
    return parts.call_of(entry.data) if entry.kind == parts.ApprovalRequested.kind else ""
