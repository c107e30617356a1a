"""Renews the node's lease from a thread while the event loop is too busy to do it.

The event loop renews the lease itself as long as it has time (:mod:`.lease_keeper`). The thread has an event
loop and a Redis connection of its own. It looks a few times per lease, and renews a lease of which half the
time has passed. Python code in the main loop cannot starve it: the interpreter switches threads every 5 ms. A
long call into C code that keeps the interpreter's lock can; then the lease expires as without a thread.

An event loop that has not run for :data:`LOOP_HANG_LEASES` leases counts as dead: its lease is left to lapse.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from redis.exceptions import RedisError

from legato.broadcaster.limits import (
    LEASE_CHECKS_PER_LEASE,
    LEASE_THREAD_JOIN_SECONDS,
    LOOP_HANG_LEASES,
    THREAD_RENEWAL_SECONDS,
)
from legato.protocol.redis.errors import reason_of

from .lease import Renewal

if TYPE_CHECKING:
    from collections.abc import Callable

    from legato.protocol.redis.pipeline import Named

    from .lease import Lease

logger: Final = logging.getLogger("legato.registry")


class LeaseThread:
    """One thread beside the event loop that starts it.

    :param connect: makes a Redis client. Called in the thread.
    :param hang_leases: as :data:`LOOP_HANG_LEASES`.
    """

    def __init__(
        self, lease: Lease, connect: Callable[[], Named], hang_leases: float = LOOP_HANG_LEASES
    ) -> None:
        self._lease = lease
        self._connect = connect
        self._bound = hang_leases * lease.seconds
        self._pause = lease.seconds / LEASE_CHECKS_PER_LEASE
        self._beat = 0.0
        self._busy = self._hung = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._stopping = False
        self._work: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)

    def start(self) -> None:
        """Start, called in the event loop that is watched."""
        self._loop = asyncio.get_running_loop()
        self._live()
        self._thread.start()

    async def close(self) -> None:
        """End the thread. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._stopping = True
        if self._work is not None:
            with suppress(RuntimeError):  # its loop is closed already
                self._work.get_loop().call_soon_threadsafe(self._work.cancel)
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, LEASE_THREAD_JOIN_SECONDS)

    def _live(self) -> None:
        """Record that the watched loop runs."""
        assert self._loop is not None  # noqa: S101 - set by start()
        self._beat = self._lease.clock()
        self._timer = self._loop.call_later(self._pause, self._live)

    # --- in the thread

    def _run(self) -> None:
        try:
            with suppress(asyncio.CancelledError):
                asyncio.run(self._keep())
        except Exception:  # without it, the lease depends on the loop alone
            logger.exception("the thread that renews the node's lease has ended")

    async def _keep(self) -> None:
        self._work = asyncio.current_task()
        redis = self._connect()
        try:
            await self._connected(redis)
            while not self._stopping:
                await self._look(redis)
                await asyncio.sleep(self._pause)
        finally:
            await redis.aclose()

    async def _connected(self, redis: Named) -> None:
        """Connect now: when the lease is short of time, the process may be out of file descriptors."""
        try:
            async with asyncio.timeout(THREAD_RENEWAL_SECONDS):
                async with redis.pipeline(transaction=False) as pipeline:
                    pipeline.exists(self._lease.key)
                    await pipeline.execute()
        except (RedisError, OSError):  # a TimeoutError is one. The loop says when Redis cannot be reached
            return

    async def _look(self, redis: Named) -> None:
        silent = self._lease.clock() - self._beat
        hung = silent > self._bound
        if hung and not self._hung:
            logger.error("the event loop has not run for %.0f s: the node's lease will expire", silent)
        self._hung = hung
        if hung or not self._lease.runs_out:
            return
        try:
            async with asyncio.timeout(THREAD_RENEWAL_SECONDS):
                renewal = await self._lease.renew_beside(redis)
        except (RedisError, OSError) as error:
            if silent > self._lease.seconds / 2:
                logger.warning("a thread cannot renew the node's lease: %s", reason_of(error))
            return
        busy = silent > 2 * self._pause
        if busy and not self._busy and renewal is not Renewal.GONE:
            logger.warning("the event loop has not run for %.1f s: a thread renews the node's lease", silent)
        self._busy = busy
