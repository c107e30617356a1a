"""The log of one message in Redis, with a fencing token: only the newest claim can write to it.

Every write is a script that checks the claim first, so that a worker that has lost its job without knowing it
cannot add a token or a second terminal event. All writes are idempotent but for :meth:`MessageLog.publish`,
whose event readers would then get twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, cast

import msgspec

from legato.protocol import wire
from legato.protocol.conversations import SentMessage
from legato.protocol.parts import decode_entry
from legato.protocol.redis import scripts

from .batch import BatchedScript

if TYPE_CHECKING:
    from collections.abc import Sequence

    from legato.protocol.jobs import Job
    from legato.protocol.parts import LogEntry
    from legato.protocol.redis.pipeline import Named
    from legato.protocol.stream import State

Verdict = Literal["run", "finished", "exhausted", "cancelled"]

_SCRIPTS: Final = {
    **dict.fromkeys(("claim", "publish", "release", "park", "expire", "remember"), True),
    **dict.fromkeys(("append", "append_parts", "decide", "finish"), False),
}
"""Name -> whether it is urgent. A reader can spare the milliseconds that the others may wait for company."""


class FencedError(Exception):
    """Another worker has claimed the message, or it has expired. Stop at once, write nothing."""


class GapError(Exception):
    """Redis has lost entries that come before those to be written. Nothing is written.

    :ivar next: how many entries it has.
    """

    def __init__(self, text: str, next_: int) -> None:
        super().__init__(text)
        self.next = next_


class Claim(NamedTuple):
    """The result of a claim.

    :ivar verdict: ``run``; ``finished``: nothing is left to do; ``exhausted``: claimed more often than
        allowed; ``cancelled``. Unless ``finished``, the claim holds the fence.
    :ivar attempt: how often the message has been claimed, including this time.
    :ivar next: the number of entries in the log.
    :ivar decision: the value of the final marker, empty without one.
    :ivar usage: the usage of earlier attempts, as JSON; empty if unknown.
    :ivar resumed: 1 if the reply was parked, not interrupted.
    """

    verdict: Verdict
    attempt: int
    next: int
    decision: bytes
    usage: bytes = b""
    resumed: int = 0


class Token(msgspec.Struct, frozen=True):
    """One token whose index is its offset: that, its text, and the Pusher frame that carries it.

    So all entries before it are tokens, too.
    """

    index: int
    text: str
    frame: bytes


class LogPart(msgspec.Struct, frozen=True):
    """Any other entry of a log.

    :ivar index: its offset.
    :ivar kind: of :mod:`legato.protocol.parts`; empty for text.
    :ivar data: the text, or the part as JSON.
    :ivar token_index: of the text, or of the next text.
    :ivar frame: the Pusher frame, or several, one a line; empty if readers do not see it.
    :ivar private: what only workers may read, as JSON; empty for nothing.
    :ivar call: the call that needs an approval from now on; empty for none.
    """

    index: int
    kind: str
    data: bytes
    token_index: int
    frame: bytes
    private: bytes = b""
    call: str = ""


LogRecord = Token | LogPart


class StoredLog(NamedTuple):
    """A log as it was read.

    :ivar entries: without the final marker.
    :ivar private: by offset.
    """

    entries: list[LogEntry]
    private: dict[int, bytes]


class Beside(NamedTuple):
    """What an append does beside its entries; each may be empty.

    :ivar frame: of an event that is published before them, without being logged.
    :ivar usage: to be stored, as JSON.
    :ivar decision: how the message ends, if these are its last entries: the final marker (:meth:`.decide`).
    :ivar begun: to be stored unless there is one: :class:`legato.protocol.stream.Begun` as JSON.
    """

    frame: bytes = b""
    usage: bytes = b""
    decision: bytes = b""
    begun: bytes = b""


NOTHING: Final = Beside()


class TokenLog:
    """Opens the logs of messages. One per process.

    :param tries: how often a message may be claimed.
    :param retention: seconds for which a finished message is kept.
    """

    def __init__(self, redis: Named, *, tries: int, retention: int) -> None:
        self.redis = redis
        self.tries = tries
        self.retention = retention
        self.scripts = {
            name: BatchedScript(redis, scripts.load(redis, __package__, name), urgent=urgent)
            for name, urgent in _SCRIPTS.items()
        }

    def open(self, job: Job, claim: str, ticket: str = "") -> MessageLog:
        """The log of the job's message under ``claim``, a unique fencing token.

        :param ticket: of the delivery by which the job came (:attr:`legato.worker.jobs.queue.Entry.ticket`).
        """
        return MessageLog(self, job, claim, ticket)


class MessageLog:
    """One message under one claim. Every method that writes raises FencedError."""

    def __init__(self, log: TokenLog, job: Job, claim: str, ticket: str) -> None:
        names, key = log.redis.names, (job.app_id, job.channel)
        self._log = log
        self._key = (*key, job.message_id)
        self._id = job.message_id
        self._claim = claim
        self._message = names.message_key(*key, job.message_id)
        self._tokens = names.log_key(*key, job.message_id)
        self._active = names.active_key(*key)
        self._bus = names.bus_channel(*key)
        self._claiming = _claiming(job, ticket)
        self._next = 0  # as last reported by Redis
        self._decision = b""  # that the last append has written

    @property
    def next(self) -> int:
        """How many entries Redis has, as last reported."""
        return self._next

    async def claim(self) -> Claim:
        """Take the fence. Idempotent: a repeated claim counts once.

        :raises FencedError: the job was delivered again since, and has been claimed by its new owner.
        """
        keys = (self._message, self._tokens, self._active)
        verdict, *found = await self._call("claim", keys, self._claim, self._log.tries, *self._claiming)
        claim = Claim(cast("Verdict", verdict.decode()), *found)
        self._next = claim.next
        return claim

    async def claim_again(self, claim: str) -> Claim:
        """Begin another attempt, as a takeover would: from now on ``claim`` is the fencing token."""
        self._claim = claim
        return await self.claim()

    async def publish(self, frame: bytes, usage: bytes = b"", begun: bytes = b"") -> None:
        """Publish an event without logging it, and store the usage; either may be empty.

        :param begun: as in :class:`Beside`.
        """
        await self._call("publish", (self._message, self._bus), self._claim, self._aside(frame), usage, begun)

    async def begin(self, begun: bytes) -> bytes:
        """Store how the reply begins, as for :meth:`publish`. Answers what is stored: the first counts."""
        keys = (self._message, self._bus)
        stored: bytes = (await self._call("publish", keys, self._claim, b"", b"", begun))[1]
        return stored

    def _aside(self, frame: bytes) -> bytes:
        return frame and _envelope(frame, (self._id, self._next), wire.ASIDE)

    async def append(self, entries: Sequence[LogRecord], beside: Beside = NOTHING) -> bool:
        """Log and publish consecutive entries in one round trip; those that are logged already are skipped.

        :returns: whether a cancel was requested.
        :raises GapError: the first offset is beyond the end of the log.
        """
        name: Literal["append", "append_parts"]
        keys: tuple[str, ...] = (self._message, self._tokens, self._bus)
        frame, usage, decision, begun = beside
        words: list[str | bytes | int] = [self._claim, entries[0].index, self._aside(frame)]
        words += (usage, decision, begun)
        if isinstance(entries[-1], Token):
            name = "append"
            words.append(wire.LOG_TEXT)
            for entry in cast("Sequence[Token]", entries):
                envelope = wire.encode_token(entry.frame, self._id, entry.index)
                words += (wire.log_entry_id(entry.index), entry.text, envelope)
        else:  # behind another part, no text is a Token
            name, keys = "append_parts", keys + self._private()
            words += (wire.LOG_TEXT, wire.LOG_KIND, wire.LOG_DATA, wire.LOG_INDEX)
            for part in entries:
                words += _words(part, self._id)
        if decision:
            words += (wire.LOG_FINAL_ID, wire.LOG_FINAL)
        answer = self._checked(name, await self._log.scripts[name](keys, words))
        self._next = answer[1]
        self._decision = decision
        return bool(answer[2])

    def _private(self) -> tuple[str, str]:
        names = self._log.redis.names
        return names.steps_key(*self._key), names.approvals_key(*self._key)

    async def decide(self, decision: bytes) -> None:
        """Write the final marker: how the message ends. A later claim finishes it accordingly.

        :raises GapError: the log has lost entries.
        """
        written, self._decision = self._decision, b""
        if written != decision:  # otherwise the last append has done it
            keys = (self._message, self._tokens)
            marker = (wire.LOG_FINAL_ID, wire.LOG_FINAL, decision)
            await self._call("decide", keys, self._claim, *marker, self._next)

    async def finish(self, state: State, frame: bytes, error: str = "") -> None:
        """Store the final state, publish the terminal event and let the log expire; once per message.

        :raises GapError: the log has lost entries.
        """
        names = self._log.redis.names
        channel = self._key[:2]
        lists = (names.open_key(*channel), names.ended_key(*channel))
        keys = (self._message, self._tokens, self._active, self._bus, *lists, *self._private())
        envelope = _envelope(frame, (self._id, self._next), wire.END, state)
        known = (wire.ENDED_SECONDS, wire.MAX_ENDED)
        arguments = (self._claim, self._id, state, error, envelope, self._log.retention, *known, self._next)
        await self._call("finish", keys, *arguments)

    async def release(self) -> bool:
        """Undo the claim, so that it does not count as a try. False, with no effect, if the log has tokens.

        :raises GapError: the log has lost entries.
        """
        keys = (self._message, self._active)
        return bool((await self._call("release", keys, self._claim, self._id, self._next))[0] == b"ok")

    async def read(self) -> StoredLog:
        """All entries."""
        before_final = f"({wire.LOG_FINAL_ID}"
        found: Any = await self._log.redis.xrange(self._tokens, wire.log_entry_id(0), before_final)
        entries = [entry for _, fields in found if (entry := decode_entry(fields)) is not None]
        private: Any = {}
        if any(entry.kind for entry in entries):
            private = await self._log.redis.hgetall(self._log.redis.names.steps_key(*self._key))
        return StoredLog(entries, {int(field): value for field, value in private.items() if field.isdigit()})

    async def approvals(self) -> dict[str, bytes]:
        """The calls that need an approval: call -> the decision as JSON, empty while there is none."""
        found: Any = await self._log.redis.hgetall(self._log.redis.names.approvals_key(*self._key))
        return {call.decode(): value for call, value in found.items()}

    async def expire(self, call: str, decision: bytes) -> bytes:
        """Store a decision on a call unless there is one. Answers the stored one, as JSON."""
        keys = (self._message, self._log.redis.names.approvals_key(*self._key))
        stored: bytes = (await self._call("expire", keys, self._claim, call, decision))[1]
        return stored

    async def park(self, queue: str) -> bool:
        """Give the claim back while calls wait for their approval. False, with no effect, if none does.

        The claim does not count as a try. Afterwards nothing can be written under it.

        :raises GapError: the log has lost entries.
        """
        keys = (self._message, self._log.redis.names.approvals_key(*self._key))
        return bool((await self._call("park", keys, self._claim, queue, self._next))[0] == b"ok")

    async def recall(self, key: str) -> bytes | None:
        """A value of :meth:`remember`."""
        found: Any = await self._log.redis.hget(self._log.redis.names.steps_key(*self._key), f"once:{key}")
        return found if found is None else bytes(found)

    async def remember(self, key: str, value: bytes) -> bytes:
        """Store a value for as long as the reply runs, unless there is one. Answers the stored one."""
        keys = (self._message, self._log.redis.names.steps_key(*self._key))
        stored: bytes = (await self._call("remember", keys, self._claim, f"once:{key}", value))[1]
        return stored

    async def _call(self, name: str, keys: Sequence[str], *arguments: str | bytes | int) -> list[Any]:
        return self._checked(name, await self._log.scripts[name](keys, arguments))

    def _checked(self, name: str, answer: list[Any]) -> list[Any]:
        if answer[0] == b"fenced":
            raise FencedError(self._id)
        if answer[0] == b"gap":
            raise GapError(f"{self._id}: Redis has {answer[1]} entries, {name} comes after more", answer[1])
        return answer


def _envelope(frame: bytes, stream: tuple[str, int], command: str = "", detail: str = "") -> bytes:
    return wire.encode_envelope(wire.Envelope(frame, None, stream, command, detail))


def _claiming(job: Job, ticket: str) -> tuple[str | bytes, ...]:
    """What a claim of the job's message stores or asks for, in the order of claim.lua."""
    sent: tuple[str, bytes] = ("", b"")
    if job.conversation_id is not None:
        sent = (job.conversation_id, msgspec.json.encode(SentMessage.of(job)))
    return (msgspec.json.encode(job.user_id), job.message_id, wire.LOG_FINAL_ID, ticket, *sent)


def _words(entry: LogRecord, message_id: str) -> tuple[str | bytes | int, ...]:
    """The arguments of ``append_parts.lua`` for an entry."""
    where = wire.log_entry_id(entry.index)
    if isinstance(entry, Token):
        envelope = wire.encode_token(entry.frame, message_id, entry.index)
        return (where, "", entry.text, "", envelope, b"", b"")
    if b"\n" in entry.frame:
        envelope = _envelope(entry.frame, (message_id, entry.index), wire.MANY)
    elif entry.frame:
        envelope = wire.encode_token(entry.frame, message_id, entry.index)
    else:
        envelope = _envelope(b"", (message_id, entry.index), wire.SKIP)
    return (where, entry.kind, entry.data, entry.token_index, envelope, entry.private, entry.call)
