"""Supervises worker processes: balances them over queues, replaces worn ones, kills stuck ones.

:class:`WorkerPool` does not use Redis: its goal is a number of processes per queue, and it starts and stops
processes accordingly. :class:`Supervisor` reads the load of the queues from Redis and sets the goal.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from os import getpid
from typing import TYPE_CHECKING, Final

import msgspec
from redis.exceptions import RedisError

from legato.protocol.redis.cancellation import obey_cancellation
from legato.protocol.settings import SUPERVISOR_NAME
from legato.worker import redis_clients as clients
from legato.worker.jobs import backlog
from legato.worker.limits import REPORT_SECONDS
from legato.worker.supervisor import directory, notify
from legato.worker.supervisor.directory import Status, WorkerDirectory

from . import balance, logs
from .children import Spec
from .console import OWN_NAME
from .heartbeats import HeartbeatSockets, StallClock
from .up import LEGATO, WORKER_READY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import legato.worker.config
    from legato.protocol.redis.pipeline import Named
    from legato.worker.config import Worker

    from .children import Child, ProcessTree
    from .heartbeats import ChildStatus

TICK: Final = 0.5
GRACE: Final = 10
"""A process that has not ended a reply this many seconds after ``worker.timeout`` is killed."""

LEAVE_SECONDS: Final = 2
"""Time-out of the last commands to Redis."""


@dataclass(frozen=True)
class PoolMember:
    """One process of the pool."""

    index: int
    queue: str
    child: Child
    status: ChildStatus


class WorkerPool:
    """The processes, numbered from 0. A new one gets the smallest free number.

    :ivar goal: wanted number of processes per queue; a queue may be several, separated by commas.
    """

    def __init__(self, first: Spec, settings: Worker, goal: Mapping[str, int]) -> None:
        """:param first: how to start a process; name, queue and heartbeat socket are added."""
        self.goal = dict(goal)
        self.active: list[PoolMember] = []
        self.leaving: list[PoolMember] = []
        self.changed = asyncio.Event()
        self._first = first
        self._settings = settings
        self._sockets = HeartbeatSockets()
        self._stall_clock = StallClock(TICK)
        self._tree: ProcessTree | None = None

    async def begin(self, tree: ProcessTree) -> None:
        """Start all processes, and wait until they are ready.

        :raises CommandError: one of them was not.
        """
        self._tree = tree
        tree.start()
        self.reconcile()
        await tree.ready()
        self._first = replace(self._first, lasting=True)

    def close(self) -> None:
        """Close the heartbeat sockets. The tree stops the processes."""
        for member in (*self.active, *self.leaving):
            member.status.close()
        self._sockets.close()

    def counts(self) -> dict[str, int]:
        """Number of processes that claim jobs, per queue."""
        return {queue: len(self._of(queue)) for queue in self.goal}

    def running(self, queue: str) -> int:
        """Number of running replies in the processes of a queue that claim jobs."""
        return sum(member.status.running for member in self._of(queue))

    def all_running(self) -> int:
        """Number of running replies."""
        return sum(member.status.running for member in (*self.active, *self.leaving))

    def reconcile(self) -> None:
        """Start and stop processes to reach the goal; replace those that are worn, stuck or dead."""
        self._kill_the_stuck()
        self._part_with_those_who_stop()
        for queue, goal in self.goal.items():
            members = self._of(queue)
            for member in sorted(members, key=lambda member: member.status.running)[: len(members) - goal]:
                self._let_go(member, signal.SIGUSR1)
            for _ in range(goal - len(members)):
                self._hire(queue)

    def _of(self, queue: str) -> list[PoolMember]:
        return [member for member in self.active if member.queue == queue]

    def _kill_the_stuck(self) -> None:
        gap = self._stall_clock.look()
        for member in (*self.active, *self.leaving):
            member.status.excuse(gap)
            if not member.child.has_ended and (reason := self._stuck(member.status)):
                self._say(f"{member.child.spec.name} {reason} and is killed")
                member.status.forget()
                member.child.restart()

    def _stuck(self, status: ChildStatus) -> str:
        """Why a process must be killed; empty if it need not."""
        if status.silent(self._settings.stall_seconds, self._first.ready_seconds):
            return "gives no sign of life"
        if status.oldest > self._settings.timeout + GRACE:
            return f"has not ended a reply in {status.oldest} s"
        return ""

    def _part_with_those_who_stop(self) -> None:
        for member in [member for member in self.active if member.status.stopping]:
            self._let_go(member)
        for member in [member for member in self.leaving if member.child.has_ended]:
            self.leaving.remove(member)
            member.status.close()
            self._at_work.remove(member.child)

    def _let_go(self, member: PoolMember, number: signal.Signals | None = None) -> None:
        member.child.retire(number)
        self.active.remove(member)
        self.leaving.append(member)

    def _hire(self, queue: str) -> None:
        """Start a process, unless too many are still ending: their memory is not free yet."""
        if len(self.leaving) >= self._settings.processes:
            return
        taken = {member.index for member in (*self.active, *self.leaving)}
        index = next(index for index in range(len(taken) + 1) if index not in taken)
        port = self._settings.metrics_port
        status = self._sockets.listen(self.changed.set)
        spec = replace(
            self._first,
            name=f"worker.{index}",
            command=(
                *(*self._first.command, "--queue", queue),
                *("--metrics-port", str(port and port + index)),
            ),
            environ={**self._first.environ, notify.ADDRESS: status.address},
            starts=status.forget,
        )
        self.active.append(PoolMember(index, queue, self._at_work.add(spec), status))

    @property
    def _at_work(self) -> ProcessTree:
        if self._tree is None:
            raise RuntimeError("begin() has not been called")
        return self._tree

    def _say(self, text: str) -> None:
        self._at_work.console.line(OWN_NAME, text)


class Supervisor:
    """Runs a pool until its tree ends."""

    def __init__(
        self, argv: Sequence[str], settings: legato.worker.config.Settings, environ: Mapping[str, str]
    ) -> None:
        """:param argv: the options of ``legato worker``."""
        self._settings = settings.worker
        self._redis = settings.redis
        self._notifier = notify.Notifier(environ)
        self._status = Status(
            directory.new_id(),
            "supervisor",
            socket.gethostname(),
            getpid(),
            settings.worker.queues,
            time.time_ns() // 1_000_000,
            balance=settings.worker.balance,
        )
        verbose, hide = logs.of_child(settings.log.level)
        timed = logs.time_of_child(settings.log.time, sys.stderr.fileno())
        first = Spec(
            name="worker",
            command=(*LEGATO, "worker", *argv, "--processes", "1", "--balance", "off"),
            environ={**environ, **verbose, **timed, SUPERVISOR_NAME: self._status.id},
            ready=WORKER_READY,
            hide=hide,
        )
        self._pool = WorkerPool(first, settings.worker, first_goal(settings.worker))

    @property
    def names(self) -> list[str]:
        """The usual names of its processes."""
        return [f"worker.{index}" for index in range(self._settings.processes)]

    async def run(self, tree: ProcessTree) -> None:
        """Supervise until cancelled.

        :raises CommandError: a process was not ready in time at the start.
        """
        redis = clients.connect(self._redis.url, self._redis.prefix)
        workers = WorkerDirectory(redis)
        try:
            await self._pool.begin(tree)
            self._notifier.send(notify.READY)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._supervise())
                group.create_task(self._report(workers, tree))
                if self._settings.balance == "auto":
                    group.create_task(self._balance(redis, tree))
        finally:
            self._notifier.send(notify.STOPPING)
            self._notifier.close()
            self._pool.close()
            with suppress(RedisError, OSError, TimeoutError):
                async with asyncio.timeout(LEAVE_SECONDS):
                    await workers.unregister(self._status.id)
            await redis.aclose()

    async def _supervise(self) -> None:
        while True:
            self._notifier.send(notify.ALIVE)
            self._pool.reconcile()
            with suppress(TimeoutError):
                async with asyncio.timeout(TICK):
                    await self._pool.changed.wait()
            self._pool.changed.clear()

    async def _report(self, workers: WorkerDirectory, tree: ProcessTree) -> None:
        while True:
            with suppress(RedisError, OSError):  # the workers say that Redis is lost
                orders = await workers.report(self.status())
                if orders.drain:
                    tree.console.line(OWN_NAME, "told to drain")
                    tree.end()
            obey_cancellation()
            await asyncio.sleep(REPORT_SECONDS)

    def status(self) -> Status:
        """Its current status."""
        pool = self._pool
        fields = {"running": pool.all_running(), "processes": len(pool.active), "stopping": len(pool.leaving)}
        return msgspec.structs.replace(self._status, memory=directory.memory(), **fields)

    async def _balance(self, redis: Named, tree: ProcessTree) -> None:
        worker = self._settings
        bounds = balance.Bounds(
            worker.min_processes, worker.processes, worker.balance_max_shift, worker.concurrency
        )
        while True:
            await asyncio.sleep(worker.balance_cooldown)
            try:
                loads = {queue: await self._load(redis, queue) for queue in worker.queues}
            except (RedisError, OSError):
                continue
            finally:
                obey_cancellation()
            before, after = self._pool.goal, balance.step(self._pool.goal, loads, bounds)
            for queue in worker.queues:
                if before[queue] != after[queue]:
                    change = f"{before[queue]} -> {after[queue]} processes"
                    tree.console.line(OWN_NAME, f"queue {queue}: {change}")
            self._pool.goal = after
            self._pool.changed.set()

    async def _load(self, redis: Named, queue: str) -> balance.Load:
        measured = await backlog.measure(redis, queue)
        return balance.Load(measured.oldest, self._pool.running(queue))


def first_goal(worker: Worker) -> dict[str, int]:
    """Initial number of processes per queue; without balancing, all queues are one."""
    if worker.balance == "off":
        return {worker.queue: worker.processes}
    if worker.balance == "simple":
        return balance.evenly(worker.queues, worker.processes)
    return dict.fromkeys(worker.queues, worker.min_processes)
