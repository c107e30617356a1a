"""Measures a queue: waiting, claimed and dead jobs, and the age of the oldest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from redis.exceptions import ResponseError

from legato.protocol import wire

if TYPE_CHECKING:
    from legato.protocol.redis.pipeline import Named

_BEGIN: Final = "0-0"


class Backlog(NamedTuple):
    """One queue.

    :ivar waiting: jobs that were delivered to no worker. Those in the waiting room are among them.
    :ivar oldest: age of the oldest of them in seconds; 0 without any.
    :ivar pending: jobs that a worker has claimed.
    :ivar dead: dead letters.
    """

    waiting: int
    oldest: float
    pending: int
    dead: int


async def measure(redis: Named, queue: str) -> Backlog:
    """Read the backlog from Redis.

    The age is that of the first undelivered entry, by the server's clock. The group's ``lag`` cannot be used:
    it is unknown once an entry was deleted, as every finished job is.
    """
    key = redis.names.jobs_key(queue)
    async with redis.pipeline(transaction=False) as pipe:
        pipe.xlen(key)
        pipe.xlen(redis.names.dead_key(queue))
        pipe.zcard(redis.names.fair_key(queue, "waiting"))
        length, dead, in_room = await pipe.execute()
    last, delivered = await _group(redis, key)
    pending = max(0, delivered - in_room)
    oldest: Any = await redis.xrange(key, f"({last}", "+", count=1)
    if in_room:
        room: Any = await redis.xpending_range(key, wire.GROUP, "-", "+", 1, wire.WAITING_ROOM)
        oldest = [(found["message_id"], None) for found in room] or oldest
    return Backlog(max(0, length - pending), await _age(redis, oldest), pending, dead)


async def _group(redis: Named, key: str) -> tuple[str, int]:
    """The last delivered id, and the number of pending jobs."""
    try:
        groups: Any = await redis.xinfo_groups(key)
    except ResponseError:  # no such stream
        return _BEGIN, 0
    for group in groups:
        if group["name"] == wire.GROUP.encode():
            return group["last-delivered-id"].decode(), group["pending"]
    return _BEGIN, 0


async def _age(redis: Named, entries: list[tuple[bytes, Any]]) -> float:
    if not entries:
        return 0.0
    seconds, microseconds = await redis.time()
    age: float = seconds + microseconds / 1e6 - int(entries[0][0].partition(b"-")[0]) / 1000
    return max(0.0, age)
