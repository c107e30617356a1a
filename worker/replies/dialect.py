"""Replies that are told on their channel in the words of another protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from legato.protocol import stream, transcript
from legato.protocol.doors.base import Opening
from legato.protocol.doors.laravel_ai import ReplyTeller
from legato.protocol.parts import LogEntry

from .log import LogPart
from .transcript import Transcript

if TYPE_CHECKING:
    from legato.protocol.jobs import Job
    from legato.protocol.transcript import Piece

    from .log import LogRecord, StoredLog
    from .transcript import NewPart


def transcript_of(job: Job, next_: int, log: StoredLog | None, begun: bytes) -> Transcript:
    """The transcript of a reply in its job's dialect.

    :param begun: how the reply has begun, as stored.
    """
    if not job.dialect:
        return Transcript(job, next_, log)
    return DialectTranscript(job, next_, log, stream.decode_begun(begun))


def begun_in_dialect(job: Job, model: str, provider: str, now: float) -> bytes:
    """How a reply begins that says so with its first entry, as JSON. The model is the one to be asked.

    :param now: Unix time.
    """
    begun = stream.Begun(job.model or model, provider, int(now), dialect=job.dialect or "")
    return msgspec.json.encode(begun)


class DialectTranscript(Transcript):
    """The entries of a reply with the frames of Laravel's AI SDK. An entry may have several, or none."""

    __slots__ = ("_opening", "_teller")

    def __init__(self, job: Job, next_: int, log: StoredLog | None, begun: stream.Begun) -> None:
        super().__init__(job, next_, log)
        self._opening = Opening(job.message_id, job.user_id, begun)
        self._retell()

    def add_text(self, text: str) -> LogRecord:
        """See :class:`.transcript.Transcript`."""
        offset, index = self.next, self.tokens
        self.next += 1
        self.entries.append(text)
        return self._record(offset, index, text)

    def add(self, part: NewPart) -> LogPart:
        """See :class:`.transcript.Transcript`."""
        offset, index = self.next, self.tokens
        self.next += 1
        self._others += 1
        self.entries.append(part)
        return self._record(offset, index, part)

    def since(self, first: int, most: int) -> list[LogRecord]:
        """See :class:`.transcript.Transcript`. The frames say how many there were before them."""
        self._check(first)
        records = self._retell()
        return [record for record in records if first <= record.index < first + most]

    def truncate(self, count: int) -> None:
        """See :class:`.transcript.Transcript`."""
        super().truncate(count)
        self._retell()

    def end(self, decision: stream.Decision) -> bytes:
        """See :class:`.transcript.Transcript`. Call it once."""
        return self._teller.end(decision)

    def _retell(self) -> list[LogPart]:
        """Tell all entries once more, from the beginning on."""
        self._teller = ReplyTeller(self._channel, self._opening)
        records: list[LogPart] = []
        index = 0
        for offset, entry in enumerate(self.entries):
            records.append(self._record(offset, index, entry))
            index += isinstance(entry, str)
        return records

    def _record(self, offset: int, index: int, entry: str | NewPart) -> LogPart:
        if isinstance(entry, str):
            return LogPart(offset, "", entry.encode(), index, self._teller.tell(entry))
        frames = self._teller.tell(_piece(entry, offset, index))
        return LogPart(offset, entry.kind, entry.data, index, frames, entry.private, entry.call)


def _piece(part: NewPart, offset: int, index: int) -> Piece:
    return transcript.of_entry(LogEntry(part.kind, part.data, index), offset)
