"""The chat's access to Redis: submits jobs, and reads the state and the token log of a reply.

The worker writes the log (``worker/``). :mod:`legato.protocol.wire` has the names that both use.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from legato.broadcaster.bus.base import BusError, RefusedError
from legato.broadcaster.channels.subscriber import Key
from legato.broadcaster.limits import MESSAGE_RESERVED_SECONDS
from legato.broadcaster.redis_client import ask
from legato.protocol import stream, wire
from legato.protocol.healing import LogReading
from legato.protocol.redis import scripts

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from legato.broadcaster.config import Chat
    from legato.protocol.redis.pipeline import Named
    from legato.protocol.stream import Job, State, UserId

CHAT_PREFIX: Final = stream.chat_channel("")


class Conflict(Exception):  # noqa: N818 - an answer to the client, not an internal error
    """The idempotency key was used with another body."""


class TooMany(Exception):  # noqa: N818 - an answer to the client, not an internal error
    """The user has the maximum number of open messages."""


class Full(Exception):  # noqa: N818 - an answer to the client, not an internal error
    """The job queue has its maximum length."""


def is_refusal(error: Exception) -> bool:
    """Whether a job was certainly not queued: a limit or Redis itself has refused it."""
    return isinstance(error, Full | TooMany | RefusedError)


class ExpiredError(Exception):
    """The log, or the requested part of it, has expired."""


class StoredReply(NamedTuple):
    """The state of a reply. ``tokens`` begin at index ``next_index - len(tokens)``."""

    text: str
    tokens: list[str]
    next_index: int
    attempt: int
    status: State
    error: str | None


class Replies:
    """Submits jobs and reads replies of one application.

    Every method raises :class:`BusError` when Redis does not answer.
    """

    def __init__(self, redis: Named, chat: Chat, app_id: str) -> None:
        self._redis = redis
        self._names = redis.names
        self._chat = chat
        self.app_id = app_id
        self.submitted = 0
        self._enqueue = scripts.load(redis, __package__, "enqueue")
        self._admit = scripts.load(redis, __package__, "admit")
        self._settle_script = scripts.load(redis, __package__, "settle")

    def is_chat(self, key: Key) -> bool:
        """Whether the channel carries replies."""
        return key.app_id == self.app_id and key.channel.startswith(CHAT_PREFIX)

    async def submit(self, job: Job) -> None:
        """Queue a job. The message's hash is written first, so that a worker and a cancel find it.

        :raises Full: and :raises TooMany: it is not queued.
        """
        await self._count_and_queue(job, 0)

    async def submit_once(self, job: Job, *, again: bool) -> None:
        """Queue the job of an idempotent request; ``again`` for a repetition.

        A repetition continues wherever the first request stopped. The job is queued exactly once per key.

        :raises Full: and :raises TooMany: it is not queued.
        """
        if not again:
            await self._count_and_queue(job, self._chat.idempotency_seconds)
        elif await self._queue(job, self._chat.idempotency_seconds):
            await self._announce(job, 0)
            await self._settle(job, queued=True)

    async def _count_and_queue(self, job: Job, mark_seconds: int) -> None:
        """Count the message as open, then queue it. The two are in different slots of a Redis Cluster.

        If the job is certainly not queued, the count is undone at once. If that is unknown (no answer, or
        this process ends), the message counts for :data:`MESSAGE_RESERVED_SECONDS` only.
        """
        if not await self._announce(job, self._chat.max_open_per_user):
            raise TooMany
        try:
            await self._queue(job, mark_seconds)
        except (Full, BusError) as error:
            if is_refusal(error):
                await self._settle(job, queued=False)
            raise
        await self._settle(job, queued=True)

    async def _queue(self, job: Job, mark_seconds: int) -> bool:
        """Queue the job. Returns False if it was queued before.

        :raises Full: the queue has its maximum length.
        """
        queue = self._chat.queue
        keys = (self._names.jobs_key(queue), self._names.queued_mark(queue, job.message_id))
        arguments = (wire.JOB_FIELD, stream.encode_job(job), mark_seconds, self._chat.max_queued)
        answer = await ask(self._enqueue(keys, arguments))
        if answer < 0:
            raise Full
        self.submitted += answer
        return bool(answer)

    async def _announce(self, job: Job, limit: int) -> bool:
        """Record the message. Returns False if its user has ``limit`` open ones already (0: no limit)."""
        user = msgspec.json.encode(job.user_id)
        now = job.queued_at // 1000
        arguments = (job.message_id, user, limit, now, self._chat.unclaimed_seconds, MESSAGE_RESERVED_SECONDS)
        return bool(await ask(self._admit(self._user_keys(job), arguments)))

    async def _settle(self, job: Job, *, queued: bool) -> None:
        """Record whether the job is queued. Errors are ignored: they do not change the answer to the user."""
        until = job.queued_at // 1000 + self._chat.unclaimed_seconds if queued else 0
        with suppress(BusError):
            await ask(self._settle_script(self._user_keys(job), (job.message_id, until)))

    def _user_keys(self, job: Job) -> tuple[str, str]:
        names = (self.app_id, job.channel)
        return self._names.message_key(*names, job.message_id), self._names.open_key(*names)

    async def remember(self, user_id: UserId, key: str, body: bytes, message_id: str) -> str | None:
        """Claim an idempotency key for a message, or return the message that has it.

        :returns: the id of the same request's first message; None if this is the first.
        :raises Conflict: the key was used with another body.
        """
        name = self._idempotency_key(user_id, key)
        digest = hashlib.sha256(body).hexdigest()
        value = f"{digest}:{message_id}"
        seconds = self._chat.idempotency_seconds
        known = await ask(self._redis.set(name, value, nx=True, ex=seconds, get=True))
        if known is None:
            return None
        known_digest, _, known_id = known.decode().partition(":")
        if known_digest != digest:
            raise Conflict
        return str(known_id)

    async def forget(self, user_id: UserId, key: str) -> None:
        """Undo :meth:`remember` after the request has failed."""
        await ask(self._redis.delete(self._idempotency_key(user_id, key)))

    def _idempotency_key(self, user_id: UserId, key: str) -> str:
        digest = hashlib.sha256(key.encode()).hexdigest()
        return self._names.idempotency_key(self.app_id, str(user_id), digest)

    async def cancel(self, user_id: UserId, message_id: str) -> bool:
        """Request the cancellation of a reply; False if the user has no such message. Idempotent."""
        message_key = self._names.message_key(self.app_id, stream.chat_channel(user_id), message_id)
        if not await ask(self._redis.exists(message_key)):
            return False
        await ask(self._redis.set(self._names.cancel_flags(message_id)[0], "1", ex=wire.CANCEL_SECONDS))
        await ask(self._redis.hset(message_key, "cancel", "1"))
        return True

    async def read(self, user_id: UserId, message_id: str, after: int) -> StoredReply | None:
        """Read a reply with the tokens after index ``after`` (-1 for all); None if the user has none such.

        :raises ExpiredError: the log has fewer tokens than the state says.
        """
        return await self.on_channel(Key(self.app_id, stream.chat_channel(user_id)), message_id, after)

    async def on_channel(self, key: Key, message_id: str, after: int = -1) -> StoredReply | None:
        """As :meth:`read`, by channel."""
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.hmget(self._names.message_key(*key, message_id), ["state", "next", "attempt", "error"])
        pipeline.xrange(self._names.log_key(*key, message_id), "1-0", "1")
        (state, count, attempt, error), entries = await ask(pipeline.execute())
        if state is None:
            return None
        texts = [fields[wire.LOG_TEXT.encode()].decode() for _, fields in entries]
        if len(texts) != int(count or 0):
            raise ExpiredError
        if after >= len(texts):
            after = len(texts) - 1
        return StoredReply(
            "".join(texts),
            texts[after + 1 :],
            len(texts),
            int(attempt or 0),
            state.decode(),
            error.decode() if error else None,
        )

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
        """Read the frames of a message from token ``first`` on, as the worker published them."""
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.hmget(self._names.message_key(*key, message_id), ["user", "state", "next"])
        pipeline.xrange(self._names.log_key(*key, message_id), wire.log_entry_id(first), "+")
        (user, state, count), entries = await ask(pipeline.execute())
        if user is None or state is None:
            return LogReading(first, None)
        user_id = msgspec.json.decode(user, type=stream.UserId)
        count = int(count or 0)
        texts = [fields[TEXT].decode() for _, fields in entries if TEXT in fields]
        frames = [
            stream.TokenReceived(user_id, message_id, text, index).frame(key.channel)
            for index, text in enumerate(texts, first)
        ]
        end = None
        if (ended := state.decode()) in stream.ENDS:
            event = stream.ending(_decision(entries, ended), user_id, message_id, count)
            end = (ended, event.frame(key.channel))
        return LogReading(first, frames if first + len(frames) == count else None, end)


AROUND: Final = scripts.text(__package__, "around")
TEXT: Final = wire.LOG_TEXT.encode()
MARKER: Final = wire.LOG_FINAL.encode()


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
