"""The signs of life of one process, and what it hears in return: pauses, the order to stop, its own wear."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
from redis.exceptions import RedisError

from legato.protocol import wire
from legato.protocol.redis.cancellation import obey_cancellation

from . import notify, roster

if TYPE_CHECKING:
    from collections.abc import Callable

    from legato.worker.jobs.consumer import Consumer
    from legato.worker.jobs.intake import Intake

    from .notify import Notifier
    from .roster import Orders, Roster, Status

log: Final = logging.getLogger("legato.worker")


class Wear(NamedTuple):
    """How much a process does before another takes its place. 0: no bound.

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
        """Why the process is worn, empty when it is not.

        One that has claimed nothing is as good as its successor would be, however big it is.
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


UNBOUNDED: Final = Wear(0, 0)


class Vitals:
    """Watches over one :class:`Consumer`. Run :meth:`attend` beside it.

    :param status: what does not change about this process.
    :param wear: after what to make way for another process, which somebody else has to start.
    """

    def __init__(
        self, status: Status, consumer: Consumer, intake: Intake, notifier: Notifier, wear: Wear = UNBOUNDED
    ) -> None:
        self._status = status
        self._consumer = consumer
        self._intake = intake
        self._notifier = notifier
        self._wear = wear
        self._began = time.monotonic()

    async def attend(self, staff: Roster) -> None:
        """Give signs of life until cancelled. Whoever started us hears them also while Redis is away."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._beat())
            group.create_task(self._report(staff))

    async def _beat(self) -> None:
        while True:
            if not self._consumer.stopping and (reason := self._worn()):
                log.info("making way for a new process: %s", reason)
                self._consumer.retire()
            words = [
                notify.ALIVE,
                f"{notify.RUNNING}={self._consumer.running}",
                f"{notify.OLDEST}={self._consumer.oldest:.0f}",
            ]
            self._notifier.send(*words, *([notify.STOPPING] if self._consumer.stopping else []))
            await asyncio.sleep(roster.EVERY)

    def _worn(self) -> str:
        return self._wear.reason(
            spent=self._intake.spent,
            claimed=self._intake.claimed,
            age=time.monotonic() - self._began,
            memory=roster.memory,
            abandoned=self._consumer.abandoned,
        )

    async def _report(self, staff: Roster) -> None:
        while True:
            try:
                self.obey(await staff.say(self.status()))
            except (RedisError, OSError):
                pass  # the consumer says that Redis is lost
            except Exception:  # a fault of ours must not make this process look dead
                log.exception("signs of life failed")
            obey_cancellation()
            await asyncio.sleep(roster.EVERY)

    def obey(self, orders: Orders) -> None:
        """Do what is wanted."""
        everything = wire.ALL_QUEUES in orders.paused
        self._intake.only([] if everything else set(self._status.queues) - orders.paused)
        if orders.drain and not self._consumer.draining:
            log.info("told to drain")
            self._consumer.drain()

    def status(self) -> Status:
        """What there is to say of this process now."""
        state = "paused" if self._intake.paused else "working"
        return msgspec.structs.replace(
            self._status,
            state="stopping" if self._consumer.stopping else state,
            running=self._consumer.running,
            jobs=self._consumer.ended,
            memory=roster.memory(),
            oldest=round(self._consumer.oldest, 1),
        )
