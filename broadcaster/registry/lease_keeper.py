"""Keeps the node's lease: renews it on time, and reports the outcome."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, Protocol

from redis.exceptions import RedisError

from legato.broadcaster.redis_client import ask
from legato.protocol.redis.errors import reason_of

from .lease import Renewal

if TYPE_CHECKING:
    from .lease import Lease
    from .lease_thread import LeaseThread

logger: Final = logging.getLogger("legato.registry")


class Holder(Protocol):
    """The owner of the lease."""

    def start_anew(self) -> None:
        """The others have declared this node dead: drop all state and rejoin under a new node id."""

    def lease_revived(self) -> None:
        """The lease was missing in Redis: other data may be missing too."""

    def lease_renewed(self) -> None:
        """The lease was renewed. Called at regular intervals, so periodic work can hang on it."""


class LeaseKeeper:
    """Renews the lease every third of its time, and before a change when it is in doubt.

    :param thread: renews it while the event loop is busy; None for no thread.
    """

    def __init__(self, lease: Lease, thread: LeaseThread | None, holder: Holder) -> None:
        self._lease = lease
        self._thread = thread
        self._holder = holder
        self.renewing = asyncio.Lock()

    async def start(self) -> None:
        """Acquire the lease."""
        await ask(self._lease.renew())
        if self._thread is not None:
            self._thread.start()

    async def close(self) -> None:
        """End the thread. Call this before releasing the lease: the thread would renew it."""
        if self._thread is not None:
            await self._thread.close()

    async def run(self) -> None:
        """Renew it until cancelled."""
        while True:
            await asyncio.sleep(self._lease.seconds / 3)
            try:
                await self.renew()
            except (RedisError, OSError) as error:
                self._lease.doubt()
                logger.warning("the node's lease cannot be renewed: %s", reason_of(error))
            except Exception:  # a bug here must not end the lease
                logger.exception("the renewal of the lease failed")

    async def renew(self) -> None:
        """Renew it now; raises what redis-py raises."""
        async with self.renewing:
            await self._renew()

    async def settle(self) -> None:
        """Renew it if it is in doubt; raises what redis-py raises."""
        if self._lease.doubtful:
            async with self.renewing:
                if self._lease.doubtful:  # otherwise somebody else has just renewed it
                    await self._renew()

    async def _renew(self) -> None:
        renewal = await self._lease.renew()
        if renewal is Renewal.GONE:
            self._holder.start_anew()
            await self._lease.renew()
        elif renewal is Renewal.REVIVED:
            self._holder.lease_revived()
        self._holder.lease_renewed()
