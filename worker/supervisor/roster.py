"""Who works, what is paused, and who is to stop: how workers are seen and directed through Redis alone.

Every worker process and supervisor says what it is and does twice a second, and hears with the answer what
is wanted of it. Nothing here is needed for a reply to be right: when Redis forgets it, it is written anew.
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

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from legato.protocol.redis.pipeline import Named


EVERY: Final = 0.5
"""Seconds between two signs of life."""

KEPT: Final = 10
"""Seconds after which one that says nothing any more is taken for gone."""

ORDER_KEPT: Final = 86_400
"""Seconds that an order waits for a process that is frozen."""

_MIB: Final = 1024 * 1024


class Status(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one process says of itself.

    :ivar state: ``working``, ``paused`` (all its queues are), or ``stopping``.
    :ivar since: when it began, in milliseconds since 1970, by its own clock.
    :ivar running: replies that run now; of a supervisor, all of its processes'.
    :ivar oldest: seconds since the oldest of them was claimed, but for times without Redis or database.
    :ivar jobs: replies that it has ended.
    :ivar memory: resident MiB.
    :ivar supervisor: id of the one that started it.
    :ivar processes: of a supervisor: how many claim jobs.
    :ivar stopping: of a supervisor: how many only finish what they have.
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
    """What is wanted: the queues, or :data:`wire.ALL_QUEUES`, to leave alone; whether to stop."""

    paused: frozenset[str]
    drain: bool


class Roster:
    """The list of all who work on one Redis."""

    def __init__(self, redis: Named) -> None:
        self._redis = redis
        self._names = redis.names

    async def enter(self, queues: Iterable[str]) -> None:
        """Before the first :meth:`say`: note the queues, and drop the names of processes that were killed."""
        await self._redis.sadd(self._names.queues_key, *queues)
        await self.everybody()

    async def say(self, status: Status) -> Orders:
        """Give a sign of life, and hear what is wanted."""
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.sadd(self._names.workers_key, status.id)
            pipe.set(self._names.worker_key(status.id), msgspec.json.encode(status), ex=KEPT)
            pipe.hkeys(self._names.paused_key)
            pipe.get(self._names.order_key(status.id))
            _, _, paused, order = await pipe.execute()
        return Orders(frozenset(name.decode() for name in paused), order == wire.ORDER_DRAIN.encode())

    async def leave(self, worker_id: str) -> None:
        """The last word of a process."""
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.srem(self._names.workers_key, worker_id)
            pipe.delete(self._names.worker_key(worker_id))
            pipe.delete(self._names.order_key(worker_id))
            await pipe.execute()

    async def everybody(self) -> list[Status]:
        """All that live, supervisors first; those that do not are dropped from the list."""
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
        """Every queue that a worker ever served."""
        return sorted(name.decode() for name in await _members(self._redis, self._names.queues_key))

    async def drain(self, ids: Collection[str]) -> None:
        """Tell processes to stop."""
        async with self._redis.pipeline(transaction=False) as pipe:
            for worker_id in ids:
                pipe.set(self._names.order_key(worker_id), wire.ORDER_DRAIN, ex=ORDER_KEPT)
            await pipe.execute()

    async def paused(self) -> dict[str, int]:
        """Paused queues, or :data:`wire.ALL_QUEUES`, with the time of it in milliseconds since 1970."""
        found: dict[bytes, bytes] = await awaited(self._redis.hgetall(self._names.paused_key))
        return {name.decode(): int(since) for name, since in found.items()}

    async def pause(self, queues: Iterable[str]) -> None:
        """Have these left alone, until further notice."""
        now = time.time_ns() // 1_000_000
        await awaited(self._redis.hset(self._names.paused_key, mapping=dict.fromkeys(queues, now)))

    async def resume(self, queues: Collection[str]) -> None:
        """Undo :meth:`pause` for these, or for everything when there are none."""
        if queues:
            await awaited(self._redis.hdel(self._names.paused_key, *queues))
        else:
            await self._redis.delete(self._names.paused_key)


async def _members(redis: Named, key: str) -> set[bytes]:
    members: set[bytes] = await awaited(redis.smembers(key))
    return members


def new_id() -> str:
    """An id that no other process has or had: host, pid and chance."""
    host = "".join(letter if letter.isalnum() or letter in "-._" else "-" for letter in socket.gethostname())
    return f"{host[:60]}-{os.getpid()}-{secrets.token_hex(4)}"


def memory() -> int:
    """Resident MiB of this process; where only its peak is known, that."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit // _MIB
    return pages * resource.getpagesize() // _MIB
