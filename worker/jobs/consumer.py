"""The loop of one process: claim jobs while there is room, keep their leases, pass on cancels, drain."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from redis import exceptions

from legato.protocol import stream
from legato.protocol.redis.cancellation import obey_cancellation
from legato.protocol.redis.connections import UnavailableError
from legato.protocol.redis.errors import reason_of
from legato.protocol.redis.retry import FIRST, Backend, Backoff
from legato.worker.replies.runner import Outcome
from legato.worker.replies.stop import Control, Stop

from . import dead_letters as dead

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from legato.worker.replies.runner import Runner
    from legato.worker.replies.stop import Request

    from .cancel import CancelFlags
    from .intake import Intake
    from .queue import Entry, Jobs

log: Final = logging.getLogger("legato.worker")

CANCEL_POLL: Final = 0.25
"""Seconds between two looks at the flags: half of the time in which a cancel is to be noticed."""

RENEWALS: Final = 3
"""How often a lease is renewed within its time: two of them may fail before it is lost."""

MOST_DELIVERIES: Final = 10
"""A job that broke off as often is a fault of the job's, and is buried."""

CLOSE_SECONDS: Final = 10.0
"""How long a request to the model may take to close. Its reply has ended, but keeps its place until then."""

TAKE_OVER_EVERY: Final = 1.0
SETTLE: Final = 1.0
"""Seconds after the drain's deadline for handing jobs over, before they are simply dropped to the lease; and
for those that are dropped to end.
"""

REDIS_DOWN: Final = (
    exceptions.ConnectionError,  # includes "loading"
    exceptions.TimeoutError,
    exceptions.ReadOnlyError,
    exceptions.OutOfMemoryError,
    exceptions.ClusterError,  # a slot without a master
    exceptions.AskError,  # with "moved": a slot that is on its way, longer than a command waits
    exceptions.TryAgainError,
    UnavailableError,
)


class Limits(NamedTuple):
    """Replies at once; seconds of a lease; seconds that running replies may go on when drained."""

    concurrency: int
    lease: float
    drain: float


class _Running(NamedTuple):
    """``since``: of :meth:`Consumer._worked`, when it was claimed."""

    message_id: str
    since: float
    control: Control
    task: asyncio.Task[None]


class Consumer:
    """Runs until :meth:`retire` or :meth:`drain`, or until it is cancelled, which drops everything at once.

    :ivar stopping: it claims no more.
    :ivar draining: it claims no more, and running replies have a deadline.
    :ivar figures: what it counts.
    :ivar ended: how many jobs it has let go of, in whatever way.
    """

    def __init__(
        self, jobs: Jobs | Intake, flags: CancelFlags, runner: Runner, redis: Backend, limits: Limits
    ) -> None:
        self._jobs = jobs
        self._flags = flags
        self._runner = runner
        self.figures = runner.figures
        self._redis = redis
        self._limits = limits
        self._running: dict[bytes, _Running] = {}
        self._settling: set[bytes] = set()
        self._abandoned: set[Request] = set()
        self.stopping = False
        self.draining = False
        self.ended = 0
        self._time_is_up = asyncio.Event()
        self._changed = asyncio.Event()
        self._next_takeover = 0.0
        self._settle: dict[Outcome, Callable[[Entry], Awaitable[None]]] = {
            Outcome.DONE: lambda entry: jobs.acknowledge(entry.id),
            Outcome.GIVEN_UP: lambda entry: jobs.bury(entry, dead.CLAIMED_TOO_OFTEN),
            Outcome.UNSAVED: lambda entry: jobs.bury(entry, dead.NOT_PERSISTED),
            Outcome.HANDED_BACK: jobs.requeue,
            Outcome.LEFT: lambda entry: jobs.expire(entry.id),
            Outcome.FENCED: _nothing,
        }

    async def run(self) -> None:
        """Claim and answer until drained."""
        chores = [
            asyncio.create_task(self._every(self._limits.lease / RENEWALS, self._renew)),
            asyncio.create_task(self._every(CANCEL_POLL, self._pass_on_cancels)),
        ]
        try:
            await self._claim()
            await self._let_finish()
            await self._jobs.forget()
        except (exceptions.RedisError, RuntimeError) as error:
            self._redis.failed(error)  # the consumer's name stays behind; another process removes it
        finally:
            tasks: list[asyncio.Task[Any]] = [*chores, *self._flags.asking]
            tasks += [running.task for running in self._running.values()]
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=SETTLE)  # no longer for one whose request does not close

    @property
    def running(self) -> int:
        """How many replies run."""
        return len(self._running)

    @property
    def oldest(self) -> float:
        """Seconds since the oldest claim of a job that runs, without those in which Redis or the database was
        down; 0 without any.
        """
        now = self._worked()
        claims = [running.since for job, running in self._running.items() if job not in self._settling]
        return max((0.0, *(now - since for since in claims)))

    def _worked(self) -> float:
        """A clock that stands still while there is nothing to do but wait."""
        return time.monotonic() - self._redis.away - self._runner.database.away

    @property
    def abandoned(self) -> int:
        """How many requests to the model should have closed long ago, and have not."""
        self._abandoned = {request for request in self._abandoned if not request.closed}
        return len(self._abandoned)

    def retire(self) -> None:
        """Claim no more; running replies go on to their end."""
        self.stopping = True
        self._changed.set()

    def drain(self) -> None:
        """Claim no more; give running replies the drain's time to end."""
        if not self.draining:
            self.draining = True
            self.retire()
            log.info("draining: %d replies run, %.0f s for them", len(self._running), self._limits.drain)
            loop = asyncio.get_running_loop()
            loop.call_later(self._limits.drain, self._stop_all)
            loop.call_later(self._limits.drain + SETTLE, self._time_is_up.set)

    def _stop_all(self) -> None:
        for running in self._running.values():
            running.control.stop(Stop.DRAIN)

    async def _claim(self) -> None:
        waits, group_lost = Backoff(FIRST, TAKE_OVER_EVERY), False
        while not self.stopping:
            self._changed.clear()
            room = self._limits.concurrency - len(self._running)
            if room <= 0:
                await self._changed.wait()
                continue
            try:
                if group_lost:
                    await self._jobs.prepare()
                entries = await self._next_entries(room)
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
        """Sleep; a drain ends it early."""
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            pass

    async def _next_entries(self, room: int) -> list[Entry]:
        """Jobs whose lease ran out first, for somebody has waited long; then new ones."""
        now = asyncio.get_running_loop().time()
        if now >= self._next_takeover:
            self._next_takeover = now + min(TAKE_OVER_EVERY, self._limits.lease / RENEWALS)
            if entries := await self._jobs.take_over(room):
                return entries
        return await self._jobs.read(room)

    def _start(self, entry: Entry) -> None:
        if entry.id in self._running:  # our own lease ran out, and taking the job over has renewed it
            return
        self._count(entry)
        control = Control()
        try:
            job = stream.decode_job(entry.body or b"")
        except stream.InvalidRequest as error:
            message_id, work = "", self._bury(entry, str(error))
        else:
            message_id, work = job.message_id, self._answer(entry, job, control)
        task = asyncio.create_task(work)
        self._running[entry.id] = _Running(message_id, self._worked(), control, task)
        task.add_done_callback(lambda _: self._ended(entry))

    def _count(self, entry: Entry) -> None:
        if entry.deliveries > 1:
            self.figures.takeovers += 1
        else:
            self.figures.queue_wait.observe(max(0.0, time.time() - entry.queued_ms / 1000))

    def _ended(self, entry: Entry) -> None:
        self._running.pop(entry.id, None)
        self._settling.discard(entry.id)
        self.ended += 1
        self._changed.set()

    async def _bury(self, entry: Entry, reason: str) -> None:
        log.warning("job %s: moved to the dead letters: %s", entry.id.decode(), reason)
        await self._redis.insist(lambda: self._jobs.bury(entry, reason))

    async def _answer(self, entry: Entry, job: stream.Job, control: Control) -> None:
        try:
            came_too_late = self.stopping  # with the last read
            outcome = (
                Outcome.HANDED_BACK if came_too_late else await self._runner.run(job, control, entry.ticket)
            )
            self._settling.add(entry.id)
            await self._redis.insist(lambda: self._settle[outcome](entry))
        except Exception:  # a fault of ours must end neither the process nor the job
            log.exception("reply %s: broke off, left to another try", job.message_id)
            if entry.deliveries >= MOST_DELIVERIES:
                await self._bury(entry, dead.BROKE_OFF)
        finally:
            self._settling.add(entry.id)
            await self._let_close(job, control.request)

    async def _let_close(self, job: stream.Job, request: Request | None) -> None:
        """Wait for the request to the model to close, lest there be many more of them than places."""
        if request is not None and not await request.close(CLOSE_SECONDS):
            self._abandoned.add(request)
            self.figures.abandoned += 1
            log.error("reply %s: the request to the model does not close, left open", job.message_id)

    async def _let_finish(self) -> None:
        """Wait for running replies: if drained until the deadline, and a little for handing the rest over."""
        deadline = asyncio.create_task(self._time_is_up.wait(), name="deadline")
        replies = asyncio.create_task(self._all_ended(), name="replies")
        try:
            await asyncio.wait({deadline, replies}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            deadline.cancel()
            replies.cancel()

    async def _all_ended(self) -> Literal[True]:
        while self._running:
            self._changed.clear()
            await self._changed.wait()
        return True

    async def _every(self, seconds: float, chore: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(seconds)
            if self._running:
                try:
                    await self._redis.insist(chore)
                except exceptions.RedisError as error:
                    log.warning("%s failed: %s", chore.__name__, reason_of(error))
                except Exception:  # without the chore, leases run out and cancels go unheard
                    log.exception("%s failed", chore.__name__)

    async def _renew(self) -> None:
        lost = await self._jobs.renew([job for job in self._running if job not in self._settling])
        for job in lost - self._settling:  # one that is settled by now is nobody's any more
            if running := self._running.get(job):
                self.figures.leases_lost += 1
                log.warning("reply %s: the lease is lost, stopped", running.message_id)
                running.task.cancel()

    async def _pass_on_cancels(self) -> None:
        ids = {running.message_id for running in self._running.values() if running.message_id}
        cancelled = await self._flags.those_set(ids)
        for running in self._running.values():
            if running.message_id in cancelled:
                running.control.stop(Stop.CANCELLED)


async def _nothing(_: Entry) -> None:
    pass
