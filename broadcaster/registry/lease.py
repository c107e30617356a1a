"""A node's lease in Redis: what the node has added to the registry lasts as long as the lease.

The lease is one key, so all nodes see its changes in one order:

* The node renews it every third of its time (:mod:`.lease_keeper`), or a thread does if the event loop is
  late (:mod:`.lease_thread`). While the key exists, the node lives.
* When it has expired, the first writer decides. The node itself may set it again, and nothing has happened.
  Any other node may set it to :data:`GONE`: then the node is dead under this name, and the others take back
  what it has added. A node that finds its lease gone starts anew under another name.

What a node sees of the others is in :mod:`.other_nodes`.
"""

from __future__ import annotations

import enum
import secrets
import threading
import time
from typing import TYPE_CHECKING, Final

from legato.broadcaster.limits import DEAD_LEASE_SECONDS
from legato.protocol.redis import scripts

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio.client import Pipeline

    from legato.protocol.redis.pipeline import Named


OPEN: Final = "open"
"""The state of a node that accepts connections."""

FULL: Final = "full"
"""The state of a node that has reached its limit of connections."""

LEAVING: Final = "leaving"
"""The state of a node that is about to stop."""

GONE: Final = "gone"
"""The value of a dead node's lease."""

_RENEW: Final = scripts.text(__package__, "renew")


def _clock() -> float:
    """Seconds, including those during which the machine slept."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def new_name() -> str:
    """A unique name for a node. Short, since Redis stores it with each subscription."""
    return secrets.token_urlsafe(8)


class Renewal(enum.Enum):
    """What became of the lease."""

    GONE = 0
    KEPT = 1
    REVIVED = 2
    """The key was missing: the lease had lapsed unnoticed, or Redis has lost its data."""


class Contact:
    """Since when this node has been in touch with the same Redis, without a long pause.

    :param lease: seconds.
    """

    def __init__(self, lease: float) -> None:
        self._lease = lease
        self._since: float | None = None
        self._last = 0.0

    def made(self, now: float) -> None:
        """Redis has renewed the lease."""
        if self._since is None or now - self._last > self._lease * 2 / 3:
            self._since = now
        self._last = now

    def lost(self) -> None:
        """Redis has failed to answer, or this node has a new name."""
        self._since = None

    def restart(self, now: float) -> None:
        """Redis is another server, or has lost leases: count from now."""
        self._since = now

    def lasts(self, now: float) -> float:
        """Seconds; negative without contact."""
        return -1.0 if self._since is None else now - self._since


class Lease:
    """The lease of this node. Methods raise what redis-py raises.

    All of it is for the node's event loop; :attr:`runs_out`, :attr:`key` and :meth:`renew_beside` are for one
    more thread.

    :ivar node: the name of this node; another one after :meth:`rename`.
    :ivar clock: seconds, including those during which the machine slept.
    :ivar contact: since when this node may judge others.
    :param seconds: how long the lease lasts without being renewed.
    :param state: what the others are told, :data:`OPEN`, :data:`FULL` or :data:`LEAVING`.
    """

    def __init__(
        self,
        redis: Named,
        node: str,
        seconds: float,
        state: Callable[[], str],
        clock: Callable[[], float] = _clock,
    ) -> None:
        self.node = node
        self.seconds = seconds
        self.clock = clock
        self.contact = Contact(seconds)
        self._redis = redis
        self._state = state
        self._told = OPEN
        self._lock = threading.Lock()  # held for a few assignments, never across an await
        self._until = 0.0
        self._doubted = False
        self._revived = False  # set by the thread, not seen by the loop yet
        self._past: set[str] = set()  # names to list again: changes under them may have arrived late

    @property
    def doubtful(self) -> bool:
        """Whether to :meth:`renew` before anything else: it may have lapsed, or Redis may be another."""
        return self._doubted or self.clock() >= self._until

    @property
    def held(self) -> bool:
        """Whether it stands, as far as this node knows."""
        return self.clock() < self._until

    def doubt(self) -> None:
        """Redis did not answer: renew before anything else."""
        self._doubted = True
        self.contact.lost()

    def rename(self) -> None:
        """Take a new node id. The old one stays listed until all its entries are removed."""
        self._past.add(self.node)
        with self._lock:
            self.node = new_name()
            self._until = 0.0
            self._revived = False
        self.contact.lost()

    async def renew(self) -> Renewal:
        """Renew the lease, and list the node."""
        began = self.clock()
        self._told = self._state()
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.sadd(self._redis.names.nodes_key, self.node, *self._past)
            self._call(pipeline, self.node)
            _, answer = await pipeline.execute()
        self._past.clear()
        renewal = Renewal(answer)
        with self._lock:
            if renewal is not Renewal.GONE:
                self._until = max(self._until, began + self.seconds)
                self._doubted = False
                renewal = Renewal.REVIVED if self._revived else renewal
            self._revived = False
        self.contact.made(self.clock())
        return renewal

    def _call(self, pipeline: Pipeline, node: str) -> None:
        milliseconds = round(self.seconds * 1000)
        pipeline.eval(_RENEW, 1, self._redis.names.lease_key(node), self._told, milliseconds, GONE)

    # --- for another thread

    @property
    def runs_out(self) -> bool:
        """Whether half of its time has passed without a renewal."""
        return 0 < self._until < self.clock() + self.seconds / 2

    @property
    def key(self) -> str:
        """The lease's key in Redis."""
        return self._redis.names.lease_key(self.node)

    async def renew_beside(self, redis: Named) -> Renewal:
        """As :meth:`renew`, with the state that was told last. The loop's next renewal returns the outcome.

        :param redis: a client of the calling thread.
        """
        began, node = self.clock(), self.node
        async with redis.pipeline(transaction=False) as pipeline:
            self._call(pipeline, node)
            (answer,) = await pipeline.execute()
        renewal = Renewal(answer)
        with self._lock:
            if node != self.node:  # the loop has found it gone meanwhile
                return Renewal.GONE
            if renewal is Renewal.GONE:
                self._until = 0.0
            else:
                self._until = max(self._until, began + self.seconds)
            if renewal is Renewal.REVIVED:
                self._revived = self._doubted = True
        return renewal

    async def end(self, *, handed_over: bool) -> None:
        """Delete the lease; or mark this node as gone, so that the others remove what is left.

        :param handed_over: whether something is left.
        """
        lease = self._redis.names.lease_key(self.node)
        if handed_over:
            await self._redis.set(lease, GONE, ex=DEAD_LEASE_SECONDS)
        else:
            await self._redis.srem(self._redis.names.nodes_key, self.node)
            await self._redis.delete(lease)
            await self._redis.delete(self._redis.names.entries_key(self.node))
