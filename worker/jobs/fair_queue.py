"""A job stream from which jobs are claimed in turns of their tenants and users.

A job stays in the stream from the beginning to the end. There is a waiting room: a consumer of the group,
:data:`legato.protocol.wire.WAITING_ROOM`, to which every new job is delivered first. ``pick.lua`` keeps in
sorted sets whose turn is next, and hands a job from the room to the worker that asks. The sets say nothing
that the stream does not: what a crash leaves out of step, :meth:`FairQueue.take_over` finds
(docs/decisions/0019-fair-admission.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from legato.protocol import wire
from legato.protocol.jobs import InvalidRequest, decode_owner
from legato.protocol.redis import scripts
from legato.protocol.redis.pipeline import awaited
from legato.worker.limits import (
    CHECKED_PER_LOOK,
    COLLECT_BATCH,
    COLLECTS_PER_CLAIM,
    QUEUE_BLOCK_MS,
    QUEUE_POLL_MS,
    STRAY_MS,
)

from .queue import JobQueue, entries_of, entry_of_script

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from legato.protocol.redis.pipeline import Named

    from .queue import Entry
    from .shares import Shares

PARTS: Final = ("owners", "waiting", "users", "tenants", "claimed", "turns")
"""The keys of a waiting room, as ``pick.lua`` takes them."""

NOBODY: Final = "|||"
"""The owner of what is no job: it waits for its turn like a job without a tenant."""

MOST_OWN: Final = 1000
"""The largest ``worker.concurrency``, and so the most jobs that one consumer holds."""


class FairQueue(JobQueue):
    """One queue, as used by one consumer. See :class:`.queue.JobQueue`.

    :ivar _held: the jobs that were handed out by :meth:`read` or :meth:`take_over`, and not given back.
    :ivar _hungry: whether the last claim got less than it asked for, so that only a new job can help.
    :ivar _unsure: whether the answer to a claim may have been lost.
    """

    def __init__(
        self, redis: Named, reader: Named, *, queue: str, consumer: str, lease: float, shares: Shares
    ) -> None:
        super().__init__(redis, reader, queue=queue, consumer=consumer, lease=lease)
        self.shares: Final = shares
        self._room = {part: redis.names.fair_key(queue, part) for part in PARTS}
        self._pick = scripts.load(reader, __package__, "pick")
        self._arrange = scripts.load(redis, __package__, "pick")
        self._take_over = scripts.load(redis, __package__, "take_over_claimed")
        self.consumer: Final = consumer
        self._held: set[bytes] = set()
        self._hungry = False
        self._unsure = False
        self._checked = 0
        self._strays_from = "-"

    async def read(self, count: int, block_ms: int | None = None) -> list[Entry]:
        """Up to ``count`` jobs whose turn it is; empty when there is none within :data:`QUEUE_POLL_MS`.

        It does not wait longer, for a job that another worker has put in order announces itself to nobody.
        """
        longest = min(QUEUE_POLL_MS, QUEUE_BLOCK_MS if block_ms is None else block_ms)
        return await self._next(count, longest if self._hungry else None)

    async def poll(self, count: int) -> list[Entry]:
        """As :meth:`read`, without waiting."""
        return await self._next(count, None)

    async def _next(self, count: int, block_ms: int | None) -> list[Entry]:
        if self._unsure and (found := await self._recovered(count)):
            return self._handed_out(found)
        new = await self._collected(block_ms)
        for _ in range(COLLECTS_PER_CLAIM):
            if len(new) < COLLECT_BATCH:
                break
            await self._put_in_order(new)
            new = await self._collected(None)
        self._unsure = True
        answer, _, _ = await self._pick(self._keys(), self._arguments(count, (), new))
        self._unsure = False
        self._hungry = len(answer) < count
        return self._handed_out([entry_of_script(job, fields) for job, fields in answer])

    async def collect(self) -> None:
        """Put new jobs in order without claiming any, so that those who wait hear of their position."""
        for _ in range(COLLECTS_PER_CLAIM):
            new = await self._collected(None)
            await self._put_in_order(new)
            if len(new) < COLLECT_BATCH:
                break

    async def _collected(self, block_ms: int | None) -> list[Entry]:
        """New jobs, which are in the waiting room from now on but in no order yet."""
        answer = await self._reader.xreadgroup(
            wire.GROUP, wire.WAITING_ROOM, {self._key: ">"}, count=COLLECT_BATCH, block=block_ms
        )
        return entries_of(cast("Any", answer)[0][1]) if answer else []

    async def _put_in_order(self, new: Sequence[Entry] = (), gone: Collection[bytes] = ()) -> None:
        """Add jobs to the order, and remove those of ``gone`` that are not in the stream any more."""
        if new or gone:
            await self._arrange(self._keys(), self._arguments(0, gone, new))

    def _keys(self) -> list[str]:
        return [self._key, *self._room.values()]

    def _arguments(
        self, count: int, gone: Collection[bytes], new: Sequence[Entry]
    ) -> list[str | bytes | int]:
        owners = [word for entry in new for word in (entry.id, _owner(entry.body))]
        who = (wire.GROUP, wire.WAITING_ROOM, self._consumer)
        return [*who, count, *self.shares, len(gone), *gone, *owners]

    def _handed_out(self, entries: list[Entry]) -> list[Entry]:
        self._held.update(entry.id for entry in entries)
        return entries

    async def _recovered(self, count: int) -> list[Entry]:
        """Up to ``count`` jobs that this consumer has claimed without knowing: the answer was lost."""
        pending: Any = await self._redis.xpending_range(
            self._key, wire.GROUP, "-", "+", MOST_OWN, self._consumer
        )
        unknown = {
            found["message_id"]: found["times_delivered"]
            for found in pending
            if found["message_id"] not in self._held
        }
        self._unsure = len(unknown) > count
        entries = await self._entries(list(unknown)[:count])
        return [entry._replace(deliveries=unknown[entry.id]) for entry in entries]

    async def _entries(self, ids: Sequence[bytes]) -> list[Entry]:
        """The entries with these ids that are still in the stream."""
        if not ids:
            return []
        async with self._redis.pipeline(transaction=False) as pipe:
            for entry_id in ids:
                pipe.xrange(self._key, entry_id, entry_id)
            return [entry for found in await pipe.execute() for entry in entries_of(found)]

    async def take_over(self, count: int) -> list[Entry]:
        """Up to ``count`` jobs whose lease has expired. If there are none, it repairs a part of the order."""
        arguments = (wire.GROUP, self._consumer, self._lease_ms, count, wire.WAITING_ROOM)
        unsure, self._unsure = self._unsure, True
        found = await self._take_over([self._key], arguments)
        self._unsure = unsure
        if not found:
            await self._put_in_order(await self._strays(), await self._perhaps_gone())
        return self._handed_out([entry_of_script(*words) for words in found])

    async def _strays(self) -> list[Entry]:
        """Jobs in the waiting room that are in no order: whoever read them died before it wrote that down."""
        pending: Any = await self._redis.xpending(self._key, wire.GROUP)
        room = wire.WAITING_ROOM.encode()
        there = sum(found["pending"] for found in pending["consumers"] if found["name"] == room)
        if there <= await awaited(self._redis.zcard(self._room["waiting"])):
            self._strays_from = "-"
            return []
        page: Any = await self._redis.xpending_range(
            self._key, wire.GROUP, self._strays_from, "+", CHECKED_PER_LOOK, wire.WAITING_ROOM, STRAY_MS
        )
        ids = [found["message_id"] for found in page]
        self._strays_from = f"({ids[-1].decode()}" if len(ids) == CHECKED_PER_LOOK else "-"
        known = await awaited(self._redis.hmget(self._room["owners"], ids)) if ids else []
        return await self._entries([one for one, owner in zip(ids, known, strict=True) if owner is None])

    async def _perhaps_gone(self) -> list[bytes]:
        """Some of the jobs that count as claimed, all of them in turn."""
        first = self._checked
        members: Any = await self._redis.zrange(self._room["claimed"], first, first + CHECKED_PER_LOOK - 1)
        self._checked = first + CHECKED_PER_LOOK if len(members) == CHECKED_PER_LOOK else 0
        return [_id_of(member) for member in members]

    async def _set_lease(self, ids: Collection[bytes], used: int) -> set[bytes]:
        lost = await super()._set_lease(ids, used)
        self._held -= lost
        return lost

    async def acknowledge(self, job: bytes) -> None:
        """See :meth:`.queue.JobQueue.acknowledge`."""
        await super().acknowledge(job)
        await self._given_back(job)

    async def requeue(self, entry: Entry) -> None:
        """Append the job to the stream again: it is the last of its user."""
        await super().requeue(entry)
        await self._given_back(entry.id)

    async def dead_letter(self, entry: Entry, reason: str) -> None:
        """See :meth:`.queue.JobQueue.dead_letter`."""
        await super().dead_letter(entry, reason)
        await self._given_back(entry.id)

    async def _given_back(self, job: bytes) -> None:
        """Count the job as claimed no more. Should this be lost, :meth:`take_over` of any worker does it."""
        await self._put_in_order(gone=[job])
        self._held.discard(job)


def _owner(body: bytes | None) -> str:
    try:
        owner = decode_owner(body or b"")
    except InvalidRequest:
        return NOBODY
    return f"{owner.tenant}|{owner.app_id}:{owner.user_id}|{owner.message_id}|{owner.channel}"


def _id_of(member: bytes) -> bytes:
    """The id of an entry in a member of the order, where it is padded."""
    first, _, second = member.rpartition(b"|")[2].partition(b"-")
    return b"%d-%d" % (int(first), int(second))
