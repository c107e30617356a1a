"""Dead letters: reading, retrying and removing them.

A message has one terminal event. Most dead letters were written after it, so their message cannot be answered
again: such a job is retried only as a new message with a new id. An entry that no worker could decode has had
no terminal event, and is retried as it is.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import msgspec

from legato.protocol import stream, wire
from legato.protocol.jobs import InvalidRequest, Job, decode_job, encode_job
from legato.protocol.redis import scripts
from legato.protocol.redis.pipeline import awaited
from legato.worker.limits import DEAD_LETTERS_PER_READ

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from legato.protocol.redis.pipeline import Named


CLAIMED_TOO_OFTEN: Final = "claimed too often"
NOT_PERSISTED: Final = "not persisted"
BROKE_OFF: Final = "broke off again and again"
"""Why :class:`.consumer.Consumer` gives up a job that can be decoded."""

AFTER_THE_END: Final = frozenset({CLAIMED_TOO_OFTEN, NOT_PERSISTED})
"""The reasons that come after the terminal event."""

Revival = Literal["queued", "ended", "gone"]

_FIELD: Final = wire.JOB_FIELD.encode()


class DeadLetter(NamedTuple):
    """One job that was given up.

    :ivar id: its id among the dead letters.
    :ivar body: the job as it was.
    """

    id: str
    body: bytes
    reason: str

    @property
    def since(self) -> int:
        """When the job was moved here: milliseconds since the epoch, by Redis' clock."""
        return int(self.id.partition("-")[0])

    @property
    def job(self) -> Job | None:
        """The job, if it is one."""
        try:
            return decode_job(self.body)
        except InvalidRequest:
            return None


class DeadLetters:
    """The dead letters of one queue."""

    def __init__(self, redis: Named, queue: str) -> None:
        self._redis = redis
        self._jobs = redis.names.jobs_key(queue)
        self._key = redis.names.dead_key(queue)
        self._revive = scripts.load(redis, __package__, "revive")

    async def newest(self, count: int) -> list[DeadLetter]:
        """Up to ``count``, newest first."""
        return _letters(await self._redis.xrevrange(self._key, count=count))

    async def all(self) -> AsyncIterator[DeadLetter]:
        """All that exist now, oldest first."""
        last = await self.newest(1)
        begin = "-"
        while last and (
            batch := _letters(await self._redis.xrange(self._key, begin, last[0].id, DEAD_LETTERS_PER_READ))
        ):
            for letter in batch:
                yield letter
            begin = f"({batch[-1].id}"

    async def find(self, letter_id: str) -> DeadLetter | None:
        """The letter of this id."""
        found = _letters(await self._redis.xrange(self._key, letter_id, letter_id, 1))
        return found[0] if found else None

    async def revive(self, letter: DeadLetter, *, anew: bool) -> Revival:
        """Put a job back: ``queued``; not if its message has ``ended``, or the letter is ``gone``.

        :param anew: as a new message where the old one has ended.
        """
        body, job = letter.body, letter.job
        if job is not None and await self._has_ended(letter, job):
            if not anew:
                return "ended"
            body = encode_job(msgspec.structs.replace(job, message_id=str(uuid.uuid4())))
        done = await self._revive([self._jobs, self._key], [letter.id, wire.JOB_FIELD, body])
        return "queued" if done else "gone"

    async def _has_ended(self, letter: DeadLetter, job: Job) -> bool:
        key = self._redis.names.message_key(job.app_id, job.channel, job.message_id)
        state: bytes | None = await awaited(self._redis.hget(key, "state"))
        if state is None:  # it has expired
            return letter.reason in AFTER_THE_END
        return state.decode() in stream.ENDS

    async def remove(self, letter_id: str) -> bool:
        """Whether it was there."""
        return bool(await self._redis.xdel(self._key, letter_id))

    async def purge(self, older_than: float = 0.0) -> int:
        """Remove all that are at least that many seconds old; answers how many."""
        seconds, microseconds = await self._redis.time()
        bound = int(seconds * 1000 + microseconds / 1000 - older_than * 1000) + 1
        removed: int = await self._redis.xtrim(self._key, minid=max(0, bound), approximate=False)
        return removed

    async def count(self) -> int:
        """How many there are."""
        length: int = await self._redis.xlen(self._key)
        return length


def _letters(entries: Any) -> list[DeadLetter]:
    return [
        DeadLetter(
            entry.decode(), fields.get(_FIELD, b""), fields.get(b"reason", b"").decode("utf-8", "replace")
        )
        for entry, fields in entries
    ]
