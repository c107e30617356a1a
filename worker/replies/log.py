"""The log of one message in Redis, with a fencing token: only the newest claim can write to it.

Every write is a script that checks the claim first, so that a worker that has lost its job without knowing it
cannot add a token or a second terminal event. All writes are idempotent but for :meth:`MessageLog.publish`,
whose event readers would then get twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, cast

import msgspec

from legato.protocol import wire
from legato.protocol.redis import scripts

from .batch import BatchedScript

if TYPE_CHECKING:
    from collections.abc import Sequence

    from legato.protocol.redis.pipeline import Named
    from legato.protocol.stream import Job, State

Verdict = Literal["run", "finished", "exhausted", "cancelled"]

_SCRIPTS: Final = ("claim", "publish", "decide", "finish", "release")


class FencedError(Exception):
    """Another worker has claimed the message, or it has expired. Stop at once, write nothing."""


class GapError(Exception):
    """Redis has lost tokens that come before those to be written. Nothing is written.

    :ivar next: how many tokens it has.
    """

    def __init__(self, text: str, next_: int) -> None:
        super().__init__(text)
        self.next = next_


class Claim(NamedTuple):
    """The result of a claim.

    :ivar verdict: ``run``; ``finished``: nothing is left to do; ``exhausted``: claimed more often than
        allowed; ``cancelled``. Unless ``finished``, the claim holds the fence.
    :ivar attempt: how often the message has been claimed, including this time.
    :ivar next: the number of tokens in the log.
    :ivar decision: the value of the final marker, empty without one.
    :ivar usage: the usage of earlier attempts, as JSON; empty if unknown.
    """

    verdict: Verdict
    attempt: int
    next: int
    decision: bytes
    usage: bytes = b""


class Token(msgspec.Struct, frozen=True):
    """One token: its index, its text, and the Pusher frame that carries it."""

    index: int
    text: str
    frame: bytes


class TokenLog:
    """Opens the logs of messages. One per process.

    :param tries: how often a message may be claimed.
    :param retention: seconds for which a finished message is kept.
    """

    def __init__(self, redis: Named, *, tries: int, retention: int) -> None:
        self.redis = redis
        self.tries = tries
        self.retention = retention
        self.scripts: dict[str, scripts.Script] = {
            name: scripts.load(redis, __package__, name) for name in _SCRIPTS
        }
        self.append = BatchedScript(redis, scripts.load(redis, __package__, "append"))

    def open(self, job: Job, claim: str, ticket: str = "") -> MessageLog:
        """The log of the job's message under ``claim``, a unique fencing token.

        :param ticket: of the delivery by which the job came (:attr:`legato.worker.jobs.queue.Entry.ticket`).
        """
        return MessageLog(self, job, claim, ticket)


class MessageLog:
    """One message under one claim. Every method but :meth:`texts` raises FencedError."""

    def __init__(self, log: TokenLog, job: Job, claim: str, ticket: str) -> None:
        names, key = log.redis.names, (job.app_id, job.channel)
        self._log = log
        self._id = job.message_id
        self._user = msgspec.json.encode(job.user_id)
        self._claim = claim
        self._ticket = ticket
        self._message = names.message_key(*key, job.message_id)
        self._tokens = names.log_key(*key, job.message_id)
        self._active = names.active_key(*key)
        self._open = names.open_key(*key)
        self._ended = names.ended_key(*key)
        self._bus = names.bus_channel(*key)
        self._next = 0  # as last reported by Redis

    @property
    def next(self) -> int:
        """How many tokens Redis has, as last reported."""
        return self._next

    async def claim(self) -> Claim:
        """Take the fence. Idempotent: a repeated claim counts once.

        :raises FencedError: the job was delivered again since, and has been claimed by its new owner.
        """
        keys = (self._message, self._tokens, self._active)
        arguments = (self._claim, self._log.tries, self._user, self._id, wire.LOG_FINAL_ID, self._ticket)
        verdict, *found = await self._call("claim", keys, *arguments)
        claim = Claim(cast("Verdict", verdict.decode()), *found)
        self._next = claim.next
        return claim

    async def claim_again(self, claim: str) -> Claim:
        """Begin another attempt, as a takeover would: from now on ``claim`` is the fencing token."""
        self._claim = claim
        return await self.claim()

    async def publish(self, frame: bytes, usage: bytes = b"") -> None:
        """Publish an event without logging it, and store the usage; either may be empty."""
        keys = (self._message, self._bus)
        envelope = frame and _envelope(frame, (self._id, self._next), wire.ASIDE)
        await self._call("publish", keys, self._claim, envelope, usage)

    async def append(self, tokens: Sequence[Token]) -> bool:
        """Log and publish consecutive tokens in one round trip; tokens that are logged already are skipped.

        :returns: whether a cancel was requested.
        :raises GapError: the first index is beyond the end of the log.
        """
        keys = (self._message, self._tokens, self._bus)
        arguments: list[str | bytes | int] = [self._claim, tokens[0].index, wire.LOG_TEXT]
        for token in tokens:
            envelope = wire.encode_token(token.frame, self._id, token.index)
            arguments += (wire.log_entry_id(token.index), token.text, envelope)
        answer = self._checked("append", await self._log.append(keys, arguments))
        self._next = answer[1]
        return bool(answer[2])

    async def decide(self, decision: bytes) -> None:
        """Write the final marker: how the message ends. A later claim finishes it accordingly.

        :raises GapError: the log has lost tokens.
        """
        keys = (self._message, self._tokens)
        marker = (wire.LOG_FINAL_ID, wire.LOG_FINAL, decision)
        await self._call("decide", keys, self._claim, *marker, self._next)

    async def finish(self, state: State, frame: bytes, error: str = "") -> None:
        """Store the final state, publish the terminal event and let the log expire; once per message.

        :raises GapError: the log has lost tokens.
        """
        keys = (self._message, self._tokens, self._active, self._bus, self._open, self._ended)
        envelope = _envelope(frame, (self._id, self._next), wire.END, state)
        known = (wire.ENDED_SECONDS, wire.MAX_ENDED)
        arguments = (self._claim, self._id, state, error, envelope, self._log.retention, *known, self._next)
        await self._call("finish", keys, *arguments)

    async def release(self) -> bool:
        """Undo the claim, so that it does not count as a try. False, with no effect, if the log has tokens.

        :raises GapError: the log has lost tokens.
        """
        keys = (self._message, self._active)
        return bool((await self._call("release", keys, self._claim, self._id, self._next))[0] == b"ok")

    async def texts(self) -> list[str]:
        """The text of each logged token."""
        before_final = f"({wire.LOG_FINAL_ID}"
        entries: Any = await self._log.redis.xrange(self._tokens, wire.log_entry_id(0), before_final)
        return [fields[wire.LOG_TEXT.encode()].decode() for _, fields in entries]

    async def _call(self, name: str, keys: Sequence[str], *arguments: str | bytes | int) -> list[Any]:
        return self._checked(name, await self._log.scripts[name](keys, arguments))

    def _checked(self, name: str, answer: list[Any]) -> list[Any]:
        if answer[0] == b"fenced":
            raise FencedError(self._id)
        if answer[0] == b"gap":
            raise GapError(f"{self._id}: Redis has {answer[1]} tokens, {name} comes after more", answer[1])
        return answer


def _envelope(frame: bytes, stream: tuple[str, int], command: str = "", detail: str = "") -> bytes:
    return wire.encode_envelope(wire.Envelope(frame, None, stream, command, detail))
