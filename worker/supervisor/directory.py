"""The directory of live workers in Redis, and the orders for them: paused queues, drain.

Every worker process and supervisor reports its status twice a second and reads its orders in the same round
trip. No reply depends on the directory: if Redis loses it, the next reports write it again.
"""

from __future__ import annotations

import os
import resource
import secrets
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import msgspec

from legato.protocol import wire
from legato.protocol.redis.pipeline import awaited
from legato.worker.limits import ORDER_EXPIRY_SECONDS, REPORT_EXPIRY_SECONDS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from legato.protocol.redis.pipeline import Named


_MIB: Final = 1024 * 1024


class Status(msgspec.Struct, frozen=True, omit_defaults=True):
    """The status of one process.

    :ivar state: ``working``, ``paused`` (all its queues are), or ``stopping``.
    :ivar since: when it started, in milliseconds since the epoch, by its own clock.
    :ivar running: replies that run now; for a supervisor, in all of its processes.
    :ivar oldest: seconds since the oldest claim among them, less those without Redis or database.
    :ivar jobs: jobs that it has finished.
    :ivar memory: resident MiB.
    :ivar supervisor: id of the one that started it.
    :ivar processes: for a supervisor: how many claim jobs.
    :ivar stopping: for a supervisor: how many only finish their jobs.
    """

    id: str
    kind: Literal["process", "supervisor"]
    host: str
    pid: int
    queues: tuple[str, ...]
    since: int
    state: str = "working"
    running: int = 0
    jobs: int = 0
    memory: int = 0
    supervisor: str = ""
    processes: int = 0
    stopping: int = 0
    balance: str = ""
    oldest: float = 0


class Orders(NamedTuple):
    """Orders for a worker: the paused queues, or :data:`wire.ALL_QUEUES`; whether to drain."""

    paused: frozenset[str]
    drain: bool


class WorkerDirectory:
    """All workers of one installation."""

    def __init__(self, redis: Named) -> None:
        self._redis = redis
        self._names = redis.names

    async def register(self, queues: Iterable[str]) -> None:
        """Before the first :meth:`report`: add the queues, and remove the entries of killed processes."""
        await self._redis.sadd(self._names.queues_key, *queues)
        await self.workers()

    async def report(self, status: Status) -> Orders:
        """Publish the status; answers the orders."""
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.sadd(self._names.workers_key, status.id)
            pipe.set(self._names.worker_key(status.id), msgspec.json.encode(status), ex=REPORT_EXPIRY_SECONDS)
            pipe.hkeys(self._names.paused_key)
            pipe.get(self._names.order_key(status.id))
            _, _, paused, order = await pipe.execute()
        return Orders(frozenset(name.decode() for name in paused), order == wire.ORDER_DRAIN.encode())

    async def unregister(self, worker_id: str) -> None:
        """Remove a process that ends."""
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.srem(self._names.workers_key, worker_id)
            pipe.delete(self._names.worker_key(worker_id))
            pipe.delete(self._names.order_key(worker_id))
            await pipe.execute()

    async def workers(self) -> list[Status]:
        """All live workers, supervisors first. Removes the entries of dead ones."""
        ids = sorted(worker_id.decode() for worker_id in await _members(self._redis, self._names.workers_key))
        if not ids:
            return []
        async with self._redis.pipeline(transaction=False) as pipe:
            for worker_id in ids:
                pipe.get(self._names.worker_key(worker_id))
            found = await pipe.execute()
        if gone := [worker_id for worker_id, text in zip(ids, found, strict=True) if text is None]:
            await self._redis.srem(self._names.workers_key, *gone)
        statuses = [msgspec.json.decode(text, type=Status) for text in found if text is not None]
        return sorted(statuses, key=lambda status: (status.kind != "supervisor", status.host, status.since))

    async def queues(self) -> list[str]:
        """Every queue that a worker has ever served."""
        return sorted(name.decode() for name in await _members(self._redis, self._names.queues_key))

    async def drain(self, ids: Collection[str]) -> None:
        """Order workers to drain."""
        async with self._redis.pipeline(transaction=False) as pipe:
            for worker_id in ids:
                pipe.set(self._names.order_key(worker_id), wire.ORDER_DRAIN, ex=ORDER_EXPIRY_SECONDS)
            await pipe.execute()

    async def paused(self) -> dict[str, int]:
        """Paused queues, or :data:`wire.ALL_QUEUES`, with the time in milliseconds since the epoch."""
        found: dict[bytes, bytes] = await awaited(self._redis.hgetall(self._names.paused_key))
        return {name.decode(): int(since) for name, since in found.items()}

    async def pause(self, queues: Iterable[str]) -> None:
        """Pause queues until :meth:`resume`."""
        now = time.time_ns() // 1_000_000
        await awaited(self._redis.hset(self._names.paused_key, mapping=dict.fromkeys(queues, now)))

    async def resume(self, queues: Collection[str]) -> None:
        """Undo :meth:`pause` for these queues, or for all if there are none."""
        if queues:
            await awaited(self._redis.hdel(self._names.paused_key, *queues))
        else:
            await self._redis.delete(self._names.paused_key)


async def _members(redis: Named, key: str) -> set[bytes]:
    members: set[bytes] = await awaited(redis.smembers(key))
    return members


def new_id() -> str:
    """A process id that is never used again: host, pid and a random part."""
    host = "".join(letter if letter.isalnum() or letter in "-._" else "-" for letter in socket.gethostname())
    return f"{host[:60]}-{os.getpid()}-{secrets.token_hex(4)}"


def memory() -> int:
    """Resident MiB of this process; its peak where the current value is unknown."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit // _MIB
    return pages * resource.getpagesize() // _MIB
