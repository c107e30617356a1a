"""Publishes to those who wait for their turn how many jobs come before theirs.

Every worker of a queue with fair admission has this task; one at a time publishes. ``positions.lua`` says
which, and in which order the jobs come. A position is an estimate: it changes when other jobs come.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, NamedTuple

from redis.exceptions import RedisError

from legato.protocol import wire
from legato.protocol.redis import scripts
from legato.protocol.redis.cancellation import obey_cancellation
from legato.protocol.stream import Queued
from legato.worker.limits import (
    POSITIONS_LISTED,
    POSITIONS_PER_LOOK,
    POSITIONS_SECONDS,
    REPORTER_MS,
)
from legato.worker.replies.batch import BatchedScript

if TYPE_CHECKING:
    from collections.abc import Iterable

    from legato.protocol.redis.pipeline import Named

    from .fair_queue import FairQueue

log: Final = logging.getLogger("legato.worker")

_PARTS: Final = ("owners", "waiting", "users", "tenants", "turns", "reporter")


class _Told(NamedTuple):
    """What was published of a message last, and with which look."""

    position: int
    look: int


_NOTHING: Final = _Told(-1, 0)


class Positions:
    """The waiting room of one queue, as its tenants see it.

    :ivar waiting: jobs in it.
    :ivar tenants: tenants that have jobs in it.
    """

    def __init__(self, redis: Named, queue: FairQueue) -> None:
        self.waiting = 0
        self.tenants = 0
        self._names = redis.names
        self._jobs = queue
        self._keys = [redis.names.fair_key(queue.name, part) for part in _PARTS]
        self._script = scripts.load(redis, __package__, "positions")
        self._publish = BatchedScript(redis, scripts.load(redis, __package__, "queued"))
        self._told: dict[bytes, _Told] = {}
        self._known: frozenset[bytes] = frozenset()
        self._looks = 0

    @property
    def queue(self) -> str:
        """The name of the queue."""
        return self._jobs.name

    async def run(self) -> None:
        """Look again and again, for ever."""
        while True:
            await asyncio.sleep(POSITIONS_SECONDS)
            try:
                await self.look()
            except (RedisError, OSError):  # the consumer reports it
                pass
            except Exception:  # without this task, nobody hears of positions
                log.exception("publishing positions failed")
            obey_cancellation()

    async def look(self) -> None:
        """Put new jobs in order, measure, and publish positions that have changed.

        Who is busy with replies claims nothing, but those who wait have to hear of it all the same.
        """
        await self._jobs.collect()
        shares = self._jobs.shares
        own = (shares.of_tenants, shares.of_users)
        arguments = (self._jobs.consumer, REPORTER_MS, POSITIONS_LISTED, *own)
        self.waiting, self.tenants, listed = await self._script(self._keys, arguments)
        self._looks += 1
        order = dict(zip(listed[::2], listed[1::2], strict=True))
        quiet, self._known = order.keys() <= self._known, frozenset(order)
        self._told = {job: told for job, told in self._told.items() if job in order}
        await asyncio.gather(
            *(self._tell(job, position, order[job]) for job, position in self._changed(order, quiet))
        )

    def _changed(self, order: Iterable[bytes], quiet: bool) -> list[tuple[bytes, int]]:
        """Jobs whose position is not the one published last; not too many, the longest untold first.

        Without a new job (``quiet``) no position grows, although a maximum can let one job overtake another.
        """
        changed = []
        for position, job in enumerate(order):
            told = self._told.get(job, _NOTHING)
            if position < told.position or (position > told.position and not (quiet and told.look)):
                changed.append((told.look, position, job))
        return [(job, position) for _, position, job in sorted(changed)[:POSITIONS_PER_LOOK]]

    async def _tell(self, job: bytes, position: int, owner: bytes) -> None:
        _, user, message_id, channel = owner.decode().split("|")
        if not message_id:  # it is no job
            return
        key = (user.partition(":")[0], channel)
        envelope = wire.encode_envelope(wire.Envelope(Queued(message_id, position).frame(channel)))
        keys = (self._names.message_key(*key, message_id), self._names.bus_channel(*key))
        await self._publish(keys, (envelope,))
        self._told[job] = _Told(position, self._looks)
