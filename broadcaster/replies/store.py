"""The chat's access to Redis: submits jobs, cancels replies, and reads them."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from legato.broadcaster.bus.base import BusError, RefusedError
from legato.broadcaster.channels.subscriber import Key
from legato.broadcaster.limits import MESSAGE_RESERVED_SECONDS
from legato.broadcaster.redis_client import ask
from legato.protocol import stream, wire
from legato.protocol.conversations import SentMessage
from legato.protocol.jobs import encode_job
from legato.protocol.redis import scripts

from .approvals import Approvals
from .door_chats import DoorChats
from .logs import ReplyLogs
from .open_messages import OpenMessages

if TYPE_CHECKING:
    from legato.broadcaster.config import Chat
    from legato.protocol.jobs import Job
    from legato.protocol.redis.pipeline import Named
    from legato.protocol.stream import UserId

    from .logs import StoredReply


class Conflict(Exception):  # noqa: N818 - an answer to the client, not an internal error
    """The idempotency key was used with another body."""


class TooMany(Exception):  # noqa: N818 - an answer to the client, not an internal error
    """The user has the maximum number of open messages."""


class Full(Exception):  # noqa: N818 - an answer to the client, not an internal error
    """The job queue has its maximum length."""


def is_refusal(error: Exception) -> bool:
    """Whether a job was certainly not queued: a limit or Redis itself has refused it."""
    return isinstance(error, Full | TooMany | RefusedError)


class Replies(ReplyLogs):
    """Submits jobs and reads replies of one application.

    Every method raises :class:`BusError` when Redis does not answer.
    """

    def __init__(self, redis: Named, chat: Chat, app_id: str) -> None:
        super().__init__(redis, app_id, chat.channels)
        self._chat = chat
        self.approvals = Approvals(redis)
        self.open_messages = OpenMessages(redis, app_id)
        self.door_chats = DoorChats(redis, app_id)
        self.submitted = 0
        self._enqueue = scripts.load(redis, __package__, "enqueue")
        self._admit = scripts.load(redis, __package__, "admit")
        self._settle_script = scripts.load(redis, __package__, "settle")
        self._remember = scripts.load(redis, __package__, "remember")
        self._refuse = scripts.load(redis, __package__, "refuse")

    async def submit(self, job: Job) -> None:
        """Queue a job. The message's hash is written first, so that a worker and a cancel find it.

        :raises Full: and :raises TooMany: it is not queued.
        """
        await self._count_and_queue(job, 0)

    async def submit_once(self, job: Job, *, again: bool) -> bool:
        """Queue the job of an idempotent request; ``again`` for a repetition.

        A repetition continues wherever the first request stopped. The job is queued exactly once per key.

        :returns: whether it is queued with this call.
        :raises Full: and :raises TooMany: it is not queued.
        """
        if not again:
            return await self._count_and_queue(job, self._chat.idempotency_seconds)
        queued = await self._queue(job, self._chat.idempotency_seconds)
        if queued:
            await self._announce(job, 0)
            await self._settle(job, queued=True)
        return queued

    async def _count_and_queue(self, job: Job, mark_seconds: int) -> bool:
        """Count the message as open, then queue it. The two are in different slots of a Redis Cluster.

        Returns False if it was queued before.

        If the job is certainly not queued, the count is undone at once. If that is unknown (no answer, or
        this process ends), the message counts for :data:`MESSAGE_RESERVED_SECONDS` only.
        """
        if not await self._announce(job, self._chat.max_open_per_user):
            raise TooMany
        try:
            queued = await self._queue(job, mark_seconds)
        except (Full, BusError) as error:
            if is_refusal(error):
                await self._settle(job, queued=False)
            raise
        await self._settle(job, queued=True)
        return queued

    async def _queue(self, job: Job, mark_seconds: int) -> bool:
        """Queue the job. Returns False if it was queued before.

        :raises Full: the queue has its maximum length.
        """
        queue = self._chat.queue
        keys = (self._names.jobs_key(queue), self._names.queued_mark(queue, job.message_id))
        arguments = (wire.JOB_FIELD, encode_job(job), mark_seconds, self._chat.max_queued)
        answer = await ask(self._enqueue(keys, arguments))
        if answer < 0:
            raise Full
        self.submitted += answer
        return bool(answer)

    async def _announce(self, job: Job, limit: int) -> bool:
        """Record the message. Returns False if its user has ``limit`` open ones already (0: no limit)."""
        user = msgspec.json.encode(job.user_id)
        now = job.queued_at // 1000
        seconds = (self._chat.unclaimed_seconds, MESSAGE_RESERVED_SECONDS)
        sent = b"" if job.conversation_id is None else msgspec.json.encode(SentMessage.of(job))
        arguments = (job.message_id, user, limit, now, *seconds, job.conversation_id or "", sent)
        return bool(await ask(self._admit(self._user_keys(job), arguments)))

    async def _settle(self, job: Job, *, queued: bool) -> None:
        """Record whether the job is queued. Errors are ignored: they do not change the answer to the user."""
        until = job.queued_at // 1000 + self._chat.unclaimed_seconds if queued else 0
        with suppress(BusError):
            await ask(self._settle_script(self._user_keys(job), (job.message_id, until)))

    def _user_keys(self, job: Job) -> tuple[str, str]:
        names = (self.app_id, job.channel)
        return self._names.message_key(*names, job.message_id), self._names.open_key(*names)

    async def remember(self, user_id: UserId, key: str, body: bytes, message_id: str) -> tuple[str, bool]:
        """Claim an idempotency key for a message.

        :returns: the id of the same request's first message, and whether this request begins it.
        :raises Conflict: the key was used with another body.
        """
        arguments = (hashlib.sha256(body).hexdigest(), message_id, self._chat.idempotency_seconds)
        begins, *found = await ask(self._remember((self._idempotency_key(user_id, key),), arguments))
        if begins < 0:
            raise Conflict
        return found[0].decode(), bool(begins)

    async def known(self, user_id: UserId, key: str) -> str | None:
        """The message that has an idempotency key; None if there is none."""
        value = await ask(self._redis.get(self._idempotency_key(user_id, key)))
        return None if value is None else str(value.decode().split(":")[1])

    async def refuse(self, user_id: UserId, key: str, body: bytes, message_id: str) -> None:
        """Let a request that was refused begin its message anew: see :meth:`remember`."""
        arguments = (hashlib.sha256(body).hexdigest(), message_id)
        await ask(self._refuse((self._idempotency_key(user_id, key),), arguments))

    def _idempotency_key(self, user_id: UserId, key: str) -> str:
        digest = hashlib.sha256(key.encode()).hexdigest()
        return self._names.idempotency_key(self.app_id, str(user_id), digest)

    async def owned(self, user_id: UserId, message_id: str, channel: str | None = None) -> Key | None:
        """The channel of a message, if the user may read and cancel it there; None otherwise.

        :param channel: None for the user's own channel, on which every message is the user's. On another one
           the message has to be recorded as the user's.
        """
        own = stream.chat_channel(user_id)
        if channel is None or channel == own:
            return Key(self.app_id, own)
        key = Key(self.app_id, channel)
        user = await ask(self._redis.hget(self._names.message_key(*key, message_id), "user"))
        # JSON; 7 and "7" are one user, as they are one channel. No id has an escape.
        return key if user is not None and user.decode().strip('"') == str(user_id) else None

    async def exists(self, key: Key, message_id: str) -> bool:
        """Whether there is such a message."""
        return bool(await ask(self._redis.exists(self._names.message_key(*key, message_id))))

    async def cancel(self, user_id: UserId, message_id: str, channel: str | None = None) -> bool:
        """Request the cancellation of a reply; False if the user has no such message. Idempotent.

        A worker ends a reply that waits for an approval, too.
        """
        key = await self.owned(user_id, message_id, channel)
        if key is None:
            return False
        if not await self.exists(key, message_id):
            return False
        message_key = self._names.message_key(*key, message_id)
        await ask(self._redis.set(self._names.cancel_flags(message_id)[0], "1", ex=wire.CANCEL_SECONDS))
        await ask(self._redis.hset(message_key, "cancel", "1"))
        await self.approvals.stop_waiting(key, message_id)
        return True

    async def cancel_conversation(self, user_id: UserId, conversation_id: str) -> None:
        """Cancel the open messages of a conversation whose replies go to the user's own channel."""
        for message_id in await self.open_messages.ids(user_id, conversation_id):
            await self.cancel(user_id, message_id)

    async def read(self, user_id: UserId, message_id: str, channel: str | None = None) -> StoredReply | None:
        """Read a reply; None if the user has none such.

        :raises ExpiredError: the log has fewer entries than the state says.
        """
        key = await self.owned(user_id, message_id, channel)
        return None if key is None else await self.on_channel(key, message_id)
