"""Jobs that wait for an approval, outside of the job stream, so that no worker holds them meanwhile.

A worker parks a job. Whoever decides the last approval, cancels the message, or finds the deadline over
queues it again. Everything here is idempotent: a call whose answer is lost may be repeated. All keys of a
call are of one queue, and in one slot of a Cluster. A ``name`` is that of
:func:`legato.protocol.wire.parked_name`, a time is in milliseconds since the epoch.

Every function raises :class:`redis.exceptions.RedisError` if Redis does not answer, or answers with an error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from legato.protocol import wire

from . import scripts

if TYPE_CHECKING:
    from .pipeline import Named

_RESUME: Final = scripts.text(__package__, "resume")


async def park(redis: Named, queue: str, name: str, job: bytes, deadline_ms: int) -> None:
    """Keep a job until it is resumed, at the latest soon after the deadline.

    A repeated call does not undo :func:`hurry`.
    """
    async with redis.pipeline(transaction=True) as pipe:
        pipe.hset(redis.names.parked_key(queue), name, job)
        pipe.zadd(redis.names.waiting_key(queue), {name: deadline_ms}, lt=True)
        await pipe.execute()


async def resume(redis: Named, queue: str, name: str) -> bool:
    """Queue a parked job again; False if it is not parked."""
    names = redis.names
    keys = (names.parked_key(queue), names.waiting_key(queue), names.jobs_key(queue))
    script = redis.register_script(_RESUME)
    return bool(await script(keys, (name, wire.JOB_FIELD)))


async def due(redis: Named, queue: str, now_ms: int, count: int) -> list[str]:
    """Up to ``count`` names of jobs to resume at this time, the longest overdue first."""
    waiting = redis.names.waiting_key(queue)
    found: Any = await redis.zrange(waiting, "-inf", now_ms, byscore=True, offset=0, num=count)
    return [name.decode() for name in found]


async def hurry(redis: Named, queue: str, name: str, at_ms: int) -> None:
    """Resume a parked job at this time, unless it is due earlier. No effect on one that is not parked."""
    await redis.zadd(redis.names.waiting_key(queue), {name: at_ms}, xx=True, lt=True)


async def postpone(redis: Named, queue: str, name: str, at_ms: int) -> None:
    """Make a parked job due at this time, unless it is due later. No effect on one that is not parked."""
    await redis.zadd(redis.names.waiting_key(queue), {name: at_ms}, xx=True, gt=True)


async def remove(redis: Named, queue: str, name: str) -> None:
    """Forget a parked job: it is not queued again."""
    async with redis.pipeline(transaction=True) as pipe:
        pipe.hdel(redis.names.parked_key(queue), name)
        pipe.zrem(redis.names.waiting_key(queue), name)
        await pipe.execute()
