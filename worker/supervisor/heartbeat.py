"""The heartbeat of one process: reports its status, applies orders, retires it when it is due."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
from redis.exceptions import RedisError

from legato.protocol import wire
from legato.protocol.redis.cancellation import obey_cancellation
from legato.worker.limits import REPORT_SECONDS

from . import directory, notify

if TYPE_CHECKING:
    from collections.abc import Callable

    from legato.worker.jobs.consumer import Consumer
    from legato.worker.jobs.priority_queues import PriorityQueues

    from .directory import Orders, Status, WorkerDirectory
    from .notify import Notifier

log: Final = logging.getLogger("legato.worker")


class RecyclingLimits(NamedTuple):
    """When a process is replaced by a new one. 0: no limit.

    :ivar seconds: its age, by the clock of :func:`time.monotonic`.
    :ivar memory: resident MiB.
    :ivar abandoned: requests to the model that do not close.
    """

    seconds: float
    memory: int
    abandoned: int = 0

    def reason(
        self, *, spent: bool, claimed: int, age: float, memory: Callable[[], int], abandoned: int = 0
    ) -> str:
        """Why the process should be replaced, empty if it should not.

        Memory counts only once it has claimed a job: a successor without one would be no smaller.
        """
        if spent:
            return f"it has claimed {claimed} jobs"
        if 0 < self.seconds <= age:
            return f"it has run for {age:.0f} s"
        if self.memory and claimed and (resident := memory()) >= self.memory:
            return f"it has grown to {resident} MiB"
        if 0 < self.abandoned <= abandoned:
            return f"{abandoned} of its requests to the model do not close"
        return ""


UNLIMITED: Final = RecyclingLimits(0, 0)


class Heartbeat:
    """Monitors one :class:`Consumer`. Run :meth:`run` beside it.

    :param status: what does not change about this process.
    :param limits: when to retire, so that the supervisor starts another process.
    """

    def __init__(
        self,
        status: Status,
        consumer: Consumer,
        queues: PriorityQueues,
        notifier: Notifier,
        limits: RecyclingLimits = UNLIMITED,
    ) -> None:
        self._status = status
        self._consumer = consumer
        self._queues = queues
        self._notifier = notifier
        self._limits = limits
        self._began = time.monotonic()

    async def run(self, workers: WorkerDirectory) -> None:
        """Report until cancelled: to the parent process, even while Redis is down, and to the directory."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._notify())
            group.create_task(self._report(workers))

    async def _notify(self) -> None:
        while True:
            if not self._consumer.stopping and (reason := self._recycling_reason()):
                log.info("retiring, to be replaced: %s", reason)
                self._consumer.retire()
            fields = [
                notify.ALIVE,
                f"{notify.RUNNING}={self._consumer.running}",
                f"{notify.OLDEST}={self._consumer.oldest:.0f}",
            ]
            self._notifier.send(*fields, *([notify.STOPPING] if self._consumer.stopping else []))
            await asyncio.sleep(REPORT_SECONDS)

    def _recycling_reason(self) -> str:
        return self._limits.reason(
            spent=self._queues.spent,
            claimed=self._queues.claimed,
            age=time.monotonic() - self._began,
            memory=directory.memory,
            abandoned=self._consumer.abandoned,
        )

    async def _report(self, workers: WorkerDirectory) -> None:
        while True:
            try:
                self.apply(await workers.report(self.status()))
            except (RedisError, OSError):
                pass  # the consumer logs that Redis is lost
            except Exception:  # a fault of ours must not make this process look dead
                log.exception("heartbeat failed")
            obey_cancellation()
            await asyncio.sleep(REPORT_SECONDS)

    def apply(self, orders: Orders) -> None:
        """Carry out the orders."""
        all_paused = wire.ALL_QUEUES in orders.paused
        self._queues.restrict_to([] if all_paused else set(self._status.queues) - orders.paused)
        if orders.drain and not self._consumer.draining:
            log.info("ordered to drain")
            self._consumer.drain()

    def status(self) -> Status:
        """The current status of this process."""
        state = "paused" if self._queues.paused else "working"
        return msgspec.structs.replace(
            self._status,
            state="stopping" if self._consumer.stopping else state,
            running=self._consumer.running,
            jobs=self._consumer.ended,
            memory=directory.memory(),
            oldest=round(self._consumer.oldest, 1),
        )
