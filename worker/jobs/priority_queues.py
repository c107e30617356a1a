"""Claims from several queues as if they were one: the most urgent first, paused ones not at all.

The interface is that of :class:`.queue.JobQueue`, but a job's id begins with its queue: ``urgent/1-0``.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from itertools import groupby
from typing import TYPE_CHECKING

from legato.worker.limits import QUEUE_BLOCK_MS, QUEUE_POLL_MS

from .queue import Entry

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from .queue import JobQueue, ParkedJob


class PriorityQueues:
    """The queues that one process claims from.

    One command per queue, never one for all: on a Redis Cluster they are in different slots.

    :ivar claimed: how many jobs were claimed so far.
    """

    def __init__(self, queues: Mapping[str, JobQueue], *, quota: int = 0) -> None:
        """:param queues: the most urgent first. :param quota: jobs to claim in total; 0: no limit."""
        self._queues = dict(queues)
        self._quota = quota
        self._open = list(queues)
        self._changed = asyncio.Event()
        self.claimed = 0

    @property
    def spent(self) -> bool:
        """Whether the quota is used up."""
        return 0 < self._quota <= self.claimed

    @property
    def paused(self) -> bool:
        """Whether all queues are paused."""
        return not self._open

    def restrict_to(self, names: Collection[str]) -> None:
        """Claim only from these queues from now on."""
        self._open = [name for name in self._queues if name in names]
        self._changed.set()
        self._changed.clear()

    async def prepare(self) -> None:
        """See :meth:`.queue.JobQueue.prepare`."""
        for queue in self._queues.values():
            await queue.prepare()

    async def read(self, count: int) -> list[Entry]:
        """Up to ``count`` new jobs; empty when none arrived in time, or none may be claimed."""
        if not (count := self._room(count)):
            await self._idle()
            return []
        names = list(self._open)
        if len(names) == 1:
            return await self._admit(names[0], await self._queues[names[0]].read(count))
        for name in names:
            if entries := await self._admit(name, await self._queues[name].poll(count)):
                return entries
        return await self._admit(names[0], await self._queues[names[0]].read(count, QUEUE_POLL_MS))

    async def take_over(self, count: int) -> list[Entry]:
        """Up to ``count`` jobs whose lease has expired."""
        if count := self._room(count):
            for name in list(self._open):
                if entries := await self._admit(name, await self._queues[name].take_over(count)):
                    return entries
        return []

    def _room(self, count: int) -> int:
        """How many jobs may be claimed now."""
        if not self._open:
            return 0
        return min(count, self._quota - self.claimed) if self._quota else count

    async def _idle(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(QUEUE_BLOCK_MS / 1000):
                await self._changed.wait()

    async def _admit(self, name: str, entries: list[Entry]) -> list[Entry]:
        """Count the claimed jobs; requeue them if the queue was paused meanwhile."""
        if name not in self._open:
            for entry in entries:
                await self._queues[name].requeue(entry)
            return []
        self.claimed += len(entries)
        return [entry._replace(id=f"{name}/".encode() + entry.id) for entry in entries]

    async def renew(self, ids: Collection[bytes]) -> set[bytes]:
        """See :meth:`.queue.JobQueue.renew`."""
        lost: set[bytes] = set()
        for name, group in groupby(sorted(ids), key=lambda job: job.partition(b"/")[0]):
            jobs_of_queue = [job.partition(b"/")[2] for job in group]
            answer = await self._queues[name.decode()].renew(jobs_of_queue)
            lost |= {name + b"/" + job for job in answer}
        return lost

    async def expire(self, job: bytes) -> None:
        """See :meth:`.queue.JobQueue.expire`."""
        queue, job_id = self._split(job)
        await queue.expire(job_id)

    async def acknowledge(self, job: bytes) -> None:
        """See :meth:`.queue.JobQueue.acknowledge`."""
        queue, job_id = self._split(job)
        await queue.acknowledge(job_id)

    async def requeue(self, entry: Entry) -> None:
        """See :meth:`.queue.JobQueue.requeue`."""
        queue, job_id = self._split(entry.id)
        await queue.requeue(Entry(job_id, entry.body))

    def parking(self, entry: Entry, name: str) -> ParkedJob:
        """See :meth:`.queue.JobQueue.parking`."""
        queue, job_id = self._split(entry.id)
        return queue.parking(Entry(job_id, entry.body), name)

    async def resume_due(self, now_ms: int) -> int:
        """See :meth:`.queue.JobQueue.resume_due`. A paused queue is asked, too: its jobs wait there."""
        return sum([await queue.resume_due(now_ms) for queue in self._queues.values()])

    async def dead_letter(self, entry: Entry, reason: str) -> None:
        """See :meth:`.queue.JobQueue.dead_letter`."""
        queue, job_id = self._split(entry.id)
        await queue.dead_letter(Entry(job_id, entry.body), reason)

    async def forget(self) -> None:
        """See :meth:`.queue.JobQueue.forget`."""
        for queue in self._queues.values():
            await queue.forget()

    def _split(self, job: bytes) -> tuple[JobQueue, bytes]:
        name, _, job_id = job.partition(b"/")
        return self._queues[name.decode()], job_id
