"""How a queue stands: what waits and for how long, what runs, what was given up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from redis.exceptions import ResponseError

from legato.protocol import wire

if TYPE_CHECKING:
    from legato.protocol.redis.pipeline import Named

_BEGIN: Final = "0-0"


class Backlog(NamedTuple):
    """One queue.

    :ivar waiting: jobs that no worker has been given.
    :ivar oldest: seconds that the oldest of them waits; 0 when none does.
    :ivar pending: jobs that a worker has.
    :ivar dead: dead letters.
    """

    waiting: int
    oldest: float
    pending: int
    dead: int


async def measure(redis: Named, queue: str) -> Backlog:
    """Ask Redis how the queue stands.

    The age is that of the first entry behind the last one given out, by the server's own clock: the group's
    ``lag`` is unknown as soon as an entry was deleted, which is how every job ends.
    """
    key = redis.names.jobs_key(queue)
    async with redis.pipeline(transaction=False) as pipe:
        pipe.xlen(key)
        pipe.xlen(redis.names.dead_key(queue))
        length, dead = await pipe.execute()
    last, pending = await _group(redis, key)
    entries: Any = await redis.xrange(key, f"({last}", "+", count=1)
    return Backlog(max(0, length - pending), await _age(redis, entries), pending, dead)


async def _group(redis: Named, key: str) -> tuple[str, int]:
    """The last id that the workers were given, and how many jobs they have."""
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
