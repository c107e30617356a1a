"""Reads the logs of replies.

The worker writes them. :mod:`legato.protocol.wire` has the names and formats that both use.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from legato.broadcaster.redis_client import ask
from legato.protocol import parts, stream, transcript, wire
from legato.protocol.doors.base import Opening
from legato.protocol.doors.laravel_ai import DIALECT, ReplyTeller
from legato.protocol.healing import LogReading
from legato.protocol.redis import scripts

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from legato.broadcaster.channels.subscriber import Key
    from legato.protocol.parts import LogEntry
    from legato.protocol.redis.pipeline import Named
    from legato.protocol.stream import State, UserId
    from legato.protocol.transcript import Piece

logger: Final = logging.getLogger("legato.healing")

CHAT_PREFIX: Final = stream.chat_channel("")


class ExpiredError(Exception):
    """The log, or the requested part of it, has expired."""


class StoredReply(NamedTuple):
    """The state of a reply. ``pieces`` has one for each offset of its log.

    :ivar opening: of a reply that is told in a dialect; None for any other.
    """

    pieces: Sequence[Piece]
    attempt: int
    status: State
    error: str | None
    opening: Opening | None = None

    @property
    def offset(self) -> int:
        """The number of entries in the log."""
        return len(self.pieces)


class LogRange(NamedTuple):
    """Consecutive pieces of a reply's log, and what was known of the reply when they were read.

    :ivar first: the offset of the first piece.
    :ivar entries: the number of entries in the whole log.
    :ivar begun: the field ``begun`` of the message, as stored; None if no model has answered yet.
    :ivar decision: how the reply has ended; None while it runs.
    """

    first: int
    pieces: Sequence[Piece]
    entries: int
    state: State
    attempt: int
    begun: bytes | None
    decision: stream.Decision | None

    @property
    def next(self) -> int:
        """The offset after the last piece."""
        return self.first + len(self.pieces)

    @property
    def ended(self) -> bool:
        """Whether the reply has ended, also if not all of it is read yet."""
        return self.state in stream.ENDS


class ReplyLogs:
    """The logs of one application's replies.

    Every method that asks Redis raises :class:`.bus.base.BusError` when it does not answer.
    """

    def __init__(self, redis: Named, app_id: str, channels: Sequence[str] = ()) -> None:
        """:param channels: further channels with replies; with a ``*`` at the end, their beginnings."""
        self._redis = redis
        self._names = redis.names
        self.app_id = app_id
        self._unknown: set[str] = set()
        self._prefixes = (CHAT_PREFIX, *(name[:-1] for name in channels if name.endswith("*")))
        self._channels = frozenset(channels)

    def is_chat(self, key: Key) -> bool:
        """Whether the channel carries replies."""
        channel = key.channel
        return key.app_id == self.app_id and (channel.startswith(self._prefixes) or channel in self._channels)

    async def on_channel(self, key: Key, message_id: str) -> StoredReply | None:
        """Read a reply; None if there is none.

        :raises ExpiredError: the log has fewer entries than the state says.
        """
        pipeline = self._redis.pipeline(transaction=True)
        fields = ["state", "next", "attempt", "error", "user", "begun"]
        pipeline.hmget(self._names.message_key(*key, message_id), fields)
        pipeline.xrange(self._names.log_key(*key, message_id), "1-0", "1")
        (state, count, attempt, error, user, begun), entries = await ask(pipeline.execute())
        if state is None:
            return None
        pieces = [
            fields[TEXT].decode() if TEXT in fields else self._piece(fields, offset)
            for offset, (_, fields) in enumerate(entries)
        ]
        if len(pieces) != int(count or 0):
            raise ExpiredError
        text = error.decode() if error else None
        opening = _dialect(message_id, user, begun)
        return StoredReply(pieces, int(attempt or 0), state.decode(), text, opening)

    async def range(self, key: Key, message_id: str, first: int, most: int) -> LogRange | None:
        """Read at most ``most`` entries of a reply from offset ``first`` on; None if there is no such reply.

        :raises ExpiredError: the log lacks an entry that it should have.
        """
        log = self._names.log_key(*key, message_id)
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.hmget(self._names.message_key(*key, message_id), ["state", "next", "attempt", "begun"])
        pipeline.xrange(log, wire.log_entry_id(first), "1", count=most)
        pipeline.xrange(log, wire.LOG_FINAL_ID, wire.LOG_FINAL_ID)
        (state, count, attempt, begun), entries, marker = await ask(pipeline.execute())
        if state is None:
            return None
        state, count = state.decode(), int(count or 0)
        if len(entries) != min(most, max(0, count - first)):
            raise ExpiredError
        pieces = [self._piece(fields, offset) for offset, (_, fields) in enumerate(entries, first)]
        decision = _decision(marker, state) if state in stream.ENDS else None
        return LogRange(first, pieces, count, state, int(attempt or 0), begun, decision)

    async def around(self, keys: Sequence[Key]) -> list[tuple[list[str], dict[str, float]]]:
        """Per channel: the messages that stream now, and those that ended recently with their age."""
        pipeline = self._redis.pipeline(transaction=False)
        for key in keys:
            active, ended = self._names.active_key(*key), self._names.ended_key(*key)
            pipeline.execute_command("EVAL", AROUND, 2, active, ended)
        return [
            (
                [message_id.decode() for message_id in active],
                {one.decode(): age / 1000 for one, age in zip(ended[::2], ended[1::2], strict=True)},
            )
            for active, ended in await ask(pipeline.execute())
        ]

    async def missing(self, key: Key, message_id: str, first: int) -> LogReading:
        """Read the frames of a message from offset ``first`` on, as the worker published them.

        :raises ValueError: the log is not in the worker's format.
        """
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.hmget(self._names.message_key(*key, message_id), ["user", "state", "next", "begun"])
        pipeline.xrange(self._names.log_key(*key, message_id), wire.log_entry_id(first), "+")
        (user, state, count, begun), entries = await ask(pipeline.execute())
        if user is None or state is None:
            return LogReading(first, None)
        if (opening := _dialect(message_id, user, begun)) is not None:
            return await self._missing_in_dialect(key, opening, first)
        user_id = msgspec.json.decode(user, type=stream.UserId)
        count = int(count or 0)
        frames = [
            stream.TokenReceived(user_id, message_id, fields[TEXT].decode(), offset).frame(key.channel)
            if TEXT in fields and INDEX not in fields  # in a reply of text all are so: the fast way
            else self._frame(fields, key.channel, user_id, message_id, offset)
            for offset, (_, fields) in enumerate(entries, first)
            if MARKER not in fields
        ]
        end = None
        if (ended := state.decode()) in stream.ENDS:
            event = stream.ending(_decision(entries, ended), user_id, message_id, count)
            end = (ended, event.frame(key.channel))
        return LogReading(first, frames if first + len(frames) == count else None, end)

    async def _missing_in_dialect(self, key: Key, opening: Opening, first: int) -> LogReading:
        """As :meth:`missing`. The whole log is read: an event says how many there were before it."""
        message_id = opening.message_id
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.hmget(self._names.message_key(*key, message_id), ["state", "next"])
        pipeline.xrange(self._names.log_key(*key, message_id), "1-0", "+")
        (state, count), entries = await ask(pipeline.execute())
        if state is None:
            return LogReading(first, None)
        teller = ReplyTeller(key.channel, opening)
        pieces = [
            self._piece(fields, offset) for offset, (_, fields) in enumerate(entries) if MARKER not in fields
        ]
        payloads = [teller.tell(piece) for piece in pieces]
        end = None
        if (ended := state.decode()) in stream.ENDS:
            end = (ended, teller.end(_decision(entries, ended)))
        return LogReading(first, payloads[first:] if len(payloads) == int(count or 0) else None, end)

    def _frame(
        self, fields: dict[bytes, bytes], channel: str, user_id: UserId, message_id: str, offset: int
    ) -> bytes:
        entry = parts.decode_entry(fields)
        if entry is None or entry.token_index is None:
            raise ValueError("neither a text nor another part nor a final marker")
        if not entry.kind:
            event = stream.TokenReceived(user_id, message_id, entry.data.decode(), entry.token_index)
            return event.frame(channel)
        if not self._knows(entry):
            return b""
        return parts.frame(entry.kind, entry.data, channel, message_id, offset, entry.token_index)

    def _piece(self, fields: dict[bytes, bytes], offset: int) -> Piece:
        entry = parts.decode_entry(fields)
        if entry is None or not self._knows(entry):
            return None
        return transcript.of_entry(entry, offset)

    def _knows(self, entry: LogEntry) -> bool:
        """Whether this version knows the entry's kind. Logs each kind that it does not know once."""
        if transcript.known(entry):
            return True
        if entry.kind not in self._unknown:
            self._unknown.add(entry.kind)
            logger.warning("parts of the kind %r are skipped: only a newer version knows them", entry.kind)
        return False


AROUND: Final = scripts.text(__package__, "around")
TEXT: Final = wire.LOG_TEXT.encode()
INDEX: Final = wire.LOG_INDEX.encode()
MARKER: Final = wire.LOG_FINAL.encode()


def _dialect(message_id: str, user: bytes | None, begun: bytes | None) -> Opening | None:
    """How the reply has begun, if it is told in a dialect that this version knows."""
    if user is None or begun is None or b'"dialect"' not in begun:
        return None
    found = stream.decode_begun(begun)
    if found.dialect != DIALECT:
        return None
    return Opening(message_id, msgspec.json.decode(user, type=stream.UserId), found)


def _decision(entries: Sequence[tuple[bytes, dict[bytes, bytes]]], state: Any) -> stream.Decision:
    """Read the final marker of a log. If the stored state differs, that state counts."""
    decision = stream.Decision(state="failed", code="internal")
    for marker in (fields[MARKER] for _, fields in entries if MARKER in fields):
        try:
            decision = msgspec.json.decode(marker, type=stream.Decision)
        except (msgspec.DecodeError, UnicodeDecodeError):
            break
    if decision.state == state:
        return decision
    return msgspec.structs.replace(decision, state=state, code="internal" if state == "failed" else "")
