"""Repairs the registry: registers everything again after a loss, and removes what dead nodes left."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final, Protocol

from redis.exceptions import RedisError

from legato.broadcaster.limits import CHANGES_PER_PIPELINE
from legato.protocol.redis.errors import reason_of

from .codec import decode_entry, encode_entry
from .failover import Identity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from legato.broadcaster.channels.subscriber import Key
    from legato.protocol.presence import Member
    from legato.protocol.redis.pipeline import Named

    from .lease import Lease
    from .other_nodes import OtherNodes

    Mine = Callable[[], Iterable[tuple[Key, str, Member | None]]]

logger: Final = logging.getLogger("legato.registry")


class Registrar(Protocol):
    """What the clean-up needs of the registry."""

    def joining(self, key: Key, socket_id: str) -> bool:
        """Whether a join of this subscription is pending."""

    def held_entries(self) -> set[bytes | str]:
        """Entries that stay listed under the node's name for departures that are held back."""

    def join_again(self, key: Key, socket_id: str, member: Member | None) -> None:
        """Register a subscription that the node has, whatever the limits are."""

    def take_back(self, node: str, entry: bytes | str) -> None:
        """End the subscription of an entry that is listed under a node's name."""

    def connections_lost(self) -> None:
        """Write the counts of connections again."""

    async def flush(self) -> None:
        """Wait until all changes requested so far are applied."""


class Cleanup:
    """Cleans up in its own task, whenever :meth:`look` is called.

    :param mine: everything that this node has joined and not left.
    """

    def __init__(
        self, redis: Named, lease: Lease, others: OtherNodes, registrar: Registrar, mine: Mine
    ) -> None:
        self._redis = redis
        self._names = redis.names
        self._lease = lease
        self._others = others
        self._registrar = registrar
        self._mine = mine
        self._identity = Identity(redis)
        self._wanted = asyncio.Event()
        self._again = False

    async def start(self) -> None:
        """Record the identity of the Redis server."""
        await self._identity.changed()

    def look(self) -> None:
        """Look for lost data and dead nodes."""
        self._wanted.set()

    def nothing_lost(self) -> None:
        """Cancel re-registration: the node rejoins with no subscriptions."""
        self._again = False

    def something_lost(self) -> None:
        """Register everything again, and declare nobody dead before all nodes could renew their leases."""
        logger.warning("Redis may have lost data: registering everything again")
        self._lease.contact.restart(self._lease.clock())
        self._registrar.connections_lost()
        self._again = True

    async def run(self) -> None:
        """Run until cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                if await self._identity.changed():
                    self.something_lost()
                if self._again:
                    await self._register_again()
                for node in await self._others.dead():
                    await self._take_back(node)
            except (RedisError, OSError) as error:
                self._lease.doubt()
                logger.warning("the clean-up of the registry failed, trying again: %s", reason_of(error))
            except Exception:  # a bug here must not end this task
                logger.exception("the clean-up of the registry failed")

    async def _register_again(self) -> None:
        """Reconcile the registry with this node's subscriptions.

        If it fails, or Redis loses something meanwhile, it is repeated.
        """
        self._again = False
        try:
            await self._register_all()
        except BaseException:
            self._again = True
            raise

    async def _register_all(self) -> None:
        chunk = 0
        for key, socket_id, member in self._mine():
            if self._registrar.joining(key, socket_id):
                continue
            self._registrar.join_again(key, socket_id, member)
            chunk += 1
            if chunk % CHANGES_PER_PIPELINE == 0:
                await self._registrar.flush()
        await self._registrar.flush()
        listed = await self._redis.smembers(self._names.entries_key(self._lease.node))
        mine = {encode_entry(*one) for one in self._mine()} | self._registrar.held_entries()
        for entry in listed - mine:
            key, socket_id, _ = decode_entry(entry)
            if not self._registrar.joining(key, socket_id):
                self._registrar.take_back(self._lease.node, entry)
        await self._registrar.flush()

    async def _take_back(self, node: str) -> None:
        """End the subscriptions of a dead node.

        In random batches: nodes that do it at the same time share the work.
        """
        listed = self._names.entries_key(node)
        while entries := await self._some(listed):
            logger.warning("node %s is dead, ending %d of its subscriptions", node, len(entries))
            for entry in entries:
                self._registrar.take_back(node, entry)
            await self._registrar.flush()
        await self._others.forget(node)

    async def _some(self, listed: str) -> list[bytes]:
        entries: Any = await self._redis.srandmember(listed, CHANGES_PER_PIPELINE)
        return list(entries)
