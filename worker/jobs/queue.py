"""One job stream: claim, lease, acknowledge, requeue, dead-letter.

A job belongs to one consumer from the moment it is read until it is acknowledged, or until its lease runs
out and another consumer takes it over. Consumer names are unique to a process start, so nothing is ever
resumed under an old name: the jobs of a dead process are taken over like any other job with an expired lease.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from redis.exceptions import ResponseError

from legato.protocol import wire
from legato.protocol.redis import parked, scripts
from legato.protocol.redis.pipeline import awaited
from legato.worker.limits import (
    CONSUMER_IDLE_MS,
    MAX_DEAD_LETTERS,
    QUEUE_BLOCK_MS,
    WAITING_POSTPONE_MS,
    WAITING_SWEEP_COUNT,
)
from legato.worker.replies.batch import BatchedScript

if TYPE_CHECKING:
    from collections.abc import Collection

    from legato.protocol.redis.pipeline import Named


_FIELD: Final = wire.JOB_FIELD.encode()
_SCRIPTS: Final = ("renew", "requeue", "dead_letter", "forget", "take_over")


class Entry(NamedTuple):
    """A claimed entry of the stream. ``body`` is the job as JSON, None where the field is missing.

    ``deliveries`` counts the consumers that it was given to, this one included.
    """

    id: bytes
    body: bytes | None
    deliveries: int = 1

    @property
    def queued_ms(self) -> int:
        """When it was put into the stream, by Redis' clock: milliseconds since the epoch."""
        return int(self._id[0])

    @property
    def ticket(self) -> str:
        """Sorts behind the tickets of all earlier deliveries of the message's jobs."""
        first, second = self._id
        return f"{int(first):020}-{int(second):020}-{self.deliveries:010}"

    @property
    def _id(self) -> tuple[bytes, bytes]:
        first, _, second = self.id.rpartition(b"/")[2].partition(b"-")
        return first, second


class ParkedJob:
    """One job that is set aside (:class:`legato.worker.replies.agent_writer.Parking`)."""

    def __init__(self, redis: Named, queue: str, name: str, body: bytes) -> None:
        self.queue = queue
        self._redis = redis
        self._name = name
        self._body = body

    async def begin(self, deadline_ms: int) -> None:
        """Set it aside. It is queued again when it is resumed, at the latest after the deadline."""
        await parked.park(self._redis, self.queue, self._name, self._body, deadline_ms)

    async def end(self) -> None:
        """Do not queue it again."""
        await parked.remove(self._redis, self.queue, self._name)


class JobQueue:
    """One queue, as used by one consumer.

    :param reader: a client for blocking reads, without retries: a repeated read strands jobs.
    :param consumer: a name that no other process has ever had.
    :param lease: seconds after which a job that is not renewed can be taken over.
    """

    def __init__(self, redis: Named, reader: Named, *, queue: str, consumer: str, lease: float) -> None:
        self.name = queue
        self._redis = redis
        self._reader = reader
        self._key = redis.names.jobs_key(queue)
        self._dead = redis.names.dead_key(queue)
        self._consumer = consumer
        self._lease_ms = round(lease * 1000)
        self._scripts = {name: scripts.load(redis, __package__, name) for name in _SCRIPTS}
        self._acknowledge = BatchedScript(redis, scripts.load(redis, __package__, "acknowledge"))

    async def prepare(self) -> None:
        """Create the consumer group if needed. It begins at id 0, so that jobs queued before are run too."""
        try:
            await self._redis.xgroup_create(self._key, wire.GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise
        await self.forget(b"")

    async def read(self, count: int, block_ms: int | None = None) -> list[Entry]:
        """Up to ``count`` new jobs, oldest first; empty when none came within :data:`QUEUE_BLOCK_MS`."""
        return await self._read(count, QUEUE_BLOCK_MS if block_ms is None else block_ms)

    async def poll(self, count: int) -> list[Entry]:
        """As :meth:`read`, without waiting."""
        return await self._read(count, None)

    async def _read(self, count: int, block_ms: int | None) -> list[Entry]:
        answer = await self._reader.xreadgroup(
            wire.GROUP, self._consumer, {self._key: ">"}, count=count, block=block_ms
        )
        return entries_of(cast("Any", answer)[0][1]) if answer else []

    async def take_over(self, count: int) -> list[Entry]:
        """Up to ``count`` jobs whose lease has expired."""
        arguments = (wire.GROUP, self._consumer, self._lease_ms, count)
        found = await self._scripts["take_over"]([self._key], arguments)
        return [entry_of_script(*words) for words in found]

    async def renew(self, ids: Collection[bytes]) -> set[bytes]:
        """Renew the leases; answers the ids that belong to another consumer by now."""
        return await self._set_lease(ids, used=0)

    async def expire(self, job: bytes) -> None:
        """End the lease, so that the next search of another worker takes the job over."""
        await self._set_lease([job], used=self._lease_ms)

    async def _set_lease(self, ids: Collection[bytes], used: int) -> set[bytes]:
        lost = await self._scripts["renew"]([self._key], [wire.GROUP, self._consumer, used, *ids])
        return set(lost)

    async def acknowledge(self, job: bytes) -> None:
        """Remove a finished job from the stream."""
        await self._acknowledge([self._key], [wire.GROUP, job])

    async def requeue(self, entry: Entry) -> None:
        """Append the job to the stream again."""
        arguments = (wire.GROUP, self._consumer, entry.id, wire.JOB_FIELD, entry.body or b"")
        await self._scripts["requeue"]([self._key], arguments)

    def parking(self, entry: Entry, name: str) -> ParkedJob:
        """Sets the job aside; ``name``: that of its message (:func:`legato.protocol.wire.parked_name`)."""
        return ParkedJob(self._redis, self.name, name, entry.body or b"")

    async def resume_due(self, now_ms: int) -> int:
        """Queue parked jobs again whose time has come. Answers how many.

        Only those whose message waits. A worker that died while it parked its job may have left a copy of it:
        whoever has the message does not need that, and one that has ended must not be answered again.
        """
        names = await parked.due(self._redis, self.name, now_ms, WAITING_SWEEP_COUNT)
        return sum([await self._resume(name, now_ms) for name in names])

    async def _resume(self, name: str, now_ms: int) -> bool:
        message = self._redis.names.message_key(*wire.parked_message(name))
        state: bytes | None = await awaited(self._redis.hget(message, "state"))
        if state == b"waiting":
            return await parked.resume(self._redis, self.name, name)
        if state == b"streaming":  # perhaps it is just being parked
            await parked.postpone(self._redis, self.name, name, now_ms + WAITING_POSTPONE_MS)
        else:
            await parked.remove(self._redis, self.name, name)
        return False

    async def dead_letter(self, entry: Entry, reason: str) -> None:
        """Move the job to the dead letters."""
        arguments = (wire.GROUP, entry.id, wire.JOB_FIELD, entry.body or b"", reason, MAX_DEAD_LETTERS)
        await self._scripts["dead_letter"]([self._key, self._dead], arguments)

    async def forget(self, consumer: bytes | None = None) -> None:
        """Remove this consumer from the group, and those that have been idle for an hour."""
        name = self._consumer if consumer is None else consumer
        await self._scripts["forget"]([self._key], [wire.GROUP, name, CONSUMER_IDLE_MS])


def entries_of(answer: list[tuple[bytes, Any]]) -> list[Entry]:
    """The entries in an answer of XREADGROUP or XRANGE."""
    return [Entry(job, (fields or {}).get(_FIELD)) for job, fields in answer]


def entry_of_script(job: bytes, fields: list[bytes], deliveries: int = 1) -> Entry:
    """The entry that a script returns, with a flat list of fields and values."""
    return Entry(job, dict(zip(fields[::2], fields[1::2], strict=True)).get(_FIELD), deliveries)
