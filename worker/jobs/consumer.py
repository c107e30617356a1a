"""The main loop of one process: claims jobs, renews their leases, forwards cancels, and drains."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from redis import exceptions

from legato.protocol import wire
from legato.protocol.jobs import InvalidRequest, Job, decode_job
from legato.protocol.redis.cancellation import obey_cancellation
from legato.protocol.redis.connections import UnavailableError
from legato.protocol.redis.errors import reason_of
from legato.protocol.redis.retry import FIRST, Backend, Backoff
from legato.worker.limits import (
    CANCEL_POLL_SECONDS,
    DRAIN_SETTLE_SECONDS,
    MAX_JOB_DELIVERIES,
    MODEL_CLOSE_SECONDS,
    RENEWALS_PER_LEASE,
    TAKE_OVER_SECONDS,
    WAITING_SWEEP_SECONDS,
)
from legato.worker.replies.runner import Outcome
from legato.worker.replies.stop import Control, StopReason

from . import dead_letters as dead
from .running import RunningJobs

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from legato.worker.observability.counters import Counters
    from legato.worker.replies.runner import Runner
    from legato.worker.replies.stop import StoppableRequest

    from .cancel import CancelFlags
    from .priority_queues import PriorityQueues
    from .queue import Entry, JobQueue

log: Final = logging.getLogger("legato.worker")

REDIS_DOWN: Final = (
    exceptions.ConnectionError,  # includes "loading"
    exceptions.TimeoutError,
    exceptions.ReadOnlyError,
    exceptions.OutOfMemoryError,
    exceptions.ClusterError,  # a slot without a master
    exceptions.AskError,  # like "moved": a slot whose migration takes longer than a command waits
    exceptions.TryAgainError,
    UnavailableError,
)


class Limits(NamedTuple):
    """Limits of one process.

    :ivar concurrency: replies at once.
    :ivar lease: seconds.
    :ivar drain: seconds that running replies may continue after a drain begins.
    """

    concurrency: int
    lease: float
    drain: float


class Consumer:
    """Runs until :meth:`retire` or :meth:`drain`. Cancelling it drops everything at once.

    :ivar stopping: it claims no more jobs.
    :ivar draining: it claims no more jobs, and running replies have a deadline.
    """

    def __init__(
        self,
        jobs: JobQueue | PriorityQueues,
        flags: CancelFlags,
        runner: Runner,
        redis: Backend,
        limits: Limits,
    ) -> None:
        self._jobs = jobs
        self._flags = flags
        self._runner = runner
        self._redis = redis
        self._limits = limits
        self._running = RunningJobs(self._uptime)
        self.stopping = False
        self.draining = False
        self._drain_deadline = asyncio.Event()
        self._next_takeover = 0.0
        self._settle: dict[Outcome, Callable[[Entry], Awaitable[None]]] = {
            Outcome.DONE: lambda entry: jobs.acknowledge(entry.id),
            Outcome.EXHAUSTED: lambda entry: jobs.dead_letter(entry, dead.CLAIMED_TOO_OFTEN),
            Outcome.UNSAVED: lambda entry: jobs.dead_letter(entry, dead.NOT_PERSISTED),
            Outcome.REQUEUED: jobs.requeue,
            Outcome.RELEASED: lambda entry: jobs.expire(entry.id),
            Outcome.FENCED: _nothing,
            Outcome.WAITING: lambda entry: jobs.acknowledge(entry.id),
        }

    async def aclose(self) -> None:
        """End what runs beside the jobs."""
        await self._runner.aclose()

    async def run(self) -> None:
        """Claim and answer until drained."""
        periodic = [
            asyncio.create_task(self._every(seconds, action, name))
            for seconds, action, name in (
                (self._limits.lease / RENEWALS_PER_LEASE, self._renew, "renewing leases"),
                (CANCEL_POLL_SECONDS, self._forward_cancels, "reading cancel flags"),
                (WAITING_SWEEP_SECONDS, self._resume_due, "looking for overdue approvals"),
            )
        ]
        try:
            await self._claim()
            await self._wait_for_running()
            await self._jobs.forget()
        except (exceptions.RedisError, RuntimeError) as error:
            self._redis.failed(error)  # the consumer's name stays in the group; another process removes it
        finally:
            tasks: list[asyncio.Task[Any]] = [*periodic, *self._flags.asking]
            tasks += [job.task for job in self._running]
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=DRAIN_SETTLE_SECONDS)  # a request may never close

    @property
    def counters(self) -> Counters:
        """The counters of this process."""
        return self._runner.counters

    @property
    def running(self) -> int:
        """How many replies run."""
        return len(self._running)

    @property
    def ended(self) -> int:
        """How many jobs have ended, in whatever way."""
        return self._running.ended

    @property
    def oldest(self) -> float:
        """Seconds since the oldest claim of a running job, without those in which Redis or the database was
        down; 0 without any.
        """
        return self._running.oldest

    @property
    def abandoned(self) -> int:
        """How many requests to the model are still open after :data:`MODEL_CLOSE_SECONDS`."""
        return self._running.abandoned

    def _uptime(self) -> float:
        """A clock that stands still while Redis or the database is down."""
        return time.monotonic() - self._redis.away - self._runner.database.away

    def retire(self) -> None:
        """Claim no more jobs; running replies continue to their end."""
        self.stopping = True
        self._running.changed.set()

    def drain(self) -> None:
        """Claim no more jobs; running replies have :attr:`Limits.drain` seconds to end."""
        if not self.draining:
            self.draining = True
            self.retire()
            log.info("draining: %d running, at most %.0f s", self.running, self._limits.drain)
            loop = asyncio.get_running_loop()
            loop.call_later(self._limits.drain, self._stop_all)
            loop.call_later(self._limits.drain + DRAIN_SETTLE_SECONDS, self._drain_deadline.set)

    def _stop_all(self) -> None:
        for job in self._running:
            job.control.stop(StopReason.DRAIN)

    async def _claim(self) -> None:
        waits, group_lost = Backoff(FIRST, TAKE_OVER_SECONDS), False
        while not self.stopping:
            self._running.changed.clear()
            free = self._limits.concurrency - len(self._running)
            if free <= 0:
                await self._running.changed.wait()
                continue
            try:
                if group_lost:
                    await self._jobs.prepare()
                entries = await self._next_entries(free)
            except exceptions.RedisError as error:
                group_lost = str(error).startswith("NOGROUP")  # the server came back without its data
                self._redis.failed(error)
                await self._pause(waits.next())
            except Exception:  # without this loop the process is of no use
                log.exception("claiming failed")
                await self._pause(waits.next())
            else:
                group_lost = False
                waits.reset()
                self._redis.answered()
                obey_cancellation()
                for entry in entries:
                    self._start(entry)

    async def _pause(self, seconds: float) -> None:
        """Sleep, but wake up early for a drain."""
        try:
            async with asyncio.timeout(seconds):
                await self._running.changed.wait()
        except TimeoutError:
            pass

    async def _next_entries(self, count: int) -> list[Entry]:
        """Jobs with an expired lease first, for their readers have waited longest; then new ones."""
        now = asyncio.get_running_loop().time()
        if now >= self._next_takeover:
            self._next_takeover = now + min(TAKE_OVER_SECONDS, self._limits.lease / RENEWALS_PER_LEASE)
            if entries := await self._jobs.take_over(count):
                return entries
        return await self._jobs.read(count)

    def _start(self, entry: Entry) -> None:
        if entry.id in self._running:  # our own lease expired; taking the job over has renewed it
            return
        self._count(entry)
        control = Control()
        try:
            job = decode_job(entry.body or b"")
        except InvalidRequest as error:
            message_id, work = "", self._dead_letter(entry, str(error))
        else:
            message_id, work = job.message_id, self._answer(entry, job, control)
        self._running.add(entry.id, message_id, control, asyncio.create_task(work))

    def _count(self, entry: Entry) -> None:
        if entry.deliveries > 1:
            self.counters.handovers.takeovers += 1
        else:
            self.counters.latencies.queue_wait.observe(max(0.0, time.time() - entry.queued_ms / 1000))

    async def _dead_letter(self, entry: Entry, reason: str) -> None:
        log.warning("job %s: moved to the dead letters: %s", entry.id.decode(), reason)
        await self._redis.insist(lambda: self._jobs.dead_letter(entry, reason))

    async def _answer(self, entry: Entry, job: Job, control: Control) -> None:
        """Run the job and settle it by its outcome."""
        try:
            too_late = self.stopping  # it came with the last read
            outcome = Outcome.REQUEUED if too_late else await self._run(entry, job, control)
            self._running.settle(entry.id)
            await self._redis.insist(lambda: self._settle[outcome](entry))
        except Exception:  # a fault of ours must end neither the process nor the job
            log.exception("reply %s: internal error, left to another attempt", job.message_id)
            if entry.deliveries >= MAX_JOB_DELIVERIES:
                await self._dead_letter(entry, dead.BROKE_OFF)
        finally:
            self._running.settle(entry.id)
            await self._wait_for_close(job, control.request)

    async def _run(self, entry: Entry, job: Job, control: Control) -> Outcome:
        parking = self._jobs.parking(entry, wire.parked_name(job.app_id, job.channel, job.message_id))
        return await self._runner.run(job, control, entry.ticket, parking)

    async def _wait_for_close(self, job: Job, request: StoppableRequest | None) -> None:
        """Wait for the request to the model to close, so that open requests do not outnumber the slots."""
        if request is not None and not await request.close(MODEL_CLOSE_SECONDS):
            self._running.abandon(request)
            self.counters.abandoned += 1
            log.error("reply %s: the request to the model does not close, left open", job.message_id)

    async def _wait_for_running(self) -> None:
        """Wait for running replies; when draining, no longer than the deadline and the time to settle."""
        deadline = asyncio.create_task(self._drain_deadline.wait(), name="deadline")
        replies = asyncio.create_task(self._running.until_empty(), name="replies")
        try:
            await asyncio.wait({deadline, replies}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            deadline.cancel()
            replies.cancel()

    async def _every(self, seconds: float, action: Callable[[], Awaitable[None]], name: str) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                await self._redis.insist(action)
            except exceptions.RedisError as error:
                log.warning("%s failed: %s", name, reason_of(error))
            except Exception:  # without this task, leases expire and cancels are ignored
                log.exception("%s failed", name)

    async def _resume_due(self) -> None:
        if resumed := await self._jobs.resume_due(time.time_ns() // 1_000_000):
            log.info("%d replies that waited for an approval are queued again", resumed)

    async def _renew(self) -> None:
        if not self._running:
            return
        lost = await self._jobs.renew(self._running.leased())
        for entry_id in lost:
            job = self._running.get(entry_id)
            if job is not None and not self._running.is_settling(entry_id):
                self.counters.handovers.leases_lost += 1
                log.warning("reply %s: stopped, the lease is lost", job.message_id)
                job.task.cancel()

    async def _forward_cancels(self) -> None:
        if not self._running:
            return
        ids = {job.message_id for job in self._running if job.message_id}
        cancelled = await self._flags.those_set(ids)
        for job in self._running:
            if job.message_id in cancelled:
                job.control.stop(StopReason.CANCELLED)


async def _nothing(_: Entry) -> None:
    pass
