"""The registry of a cluster, in Redis.

Every change is a script on the keys of one channel. What a node has added is also listed under the node's
name, and lasts as long as its lease (:mod:`.lease`): when that lapses, another node takes it back, once.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import RedisError

from legato.broadcaster.channels.subscriber import Key
from legato.broadcaster.limits import (
    HOLD_BACK_MARGIN_SECONDS,
    LEASE_SECONDS,
    REGISTRY_CLOSE_SECONDS,
    REGISTRY_STUCK_SECONDS,
    SCRIPT_ANSWER_SECONDS,
)
from legato.broadcaster.redis_client import ask
from legato.protocol import presence, wire
from legato.protocol.redis.cancellation import end_task
from legato.protocol.redis.errors import reason_of

from .base import added_envelope, removed_envelope
from .cleanup import Cleanup
from .codec import Change, Hold, RegistryOwner, decode_entry, decode_joined, decode_left, encode_entry
from .connection_counts import ConnectionCounts
from .holds import Holds
from .lease import OPEN, Lease
from .lease_keeper import LeaseKeeper
from .lease_thread import LeaseThread
from .other_nodes import OtherNodes
from .queries import RegistryQueries
from .writes import Changes

if TYPE_CHECKING:
    from collections.abc import Callable

    from legato.protocol.presence import Member
    from legato.protocol.redis.pipeline import Named

    from .base import Joined, Left
    from .codec import NodeEntry

logger: Final = logging.getLogger("legato.registry")

ANY: Final = 1_000_000_000
"""No limit of members: for subscriptions that were admitted already."""


class RedisRegistry(RegistryQueries):
    """See :mod:`legato.broadcaster.registry.base`.

    :param node_id: unique to this start of the process.
    :param lease: seconds.
    :param connect: makes one more client of the same Redis, for the thread that renews the lease while the
        event loop is busy; None for no thread.
    """

    def __init__(
        self,
        redis: Named,
        node_id: str,
        owner: RegistryOwner,
        lease: float = LEASE_SECONDS,
        connect: Callable[[], Named] | None = None,
    ) -> None:
        super().__init__(redis)
        self._lease = Lease(redis, node_id, lease, owner.state)
        thread = None if connect is None else LeaseThread(self._lease, connect)
        self._keeper = LeaseKeeper(self._lease, thread, self)
        self._others = OtherNodes(redis, self._lease)
        self._owner = owner
        self._changes = Changes(redis, self._keeper.settle, self._lease.doubt, self._stands)
        self._cleanup = Cleanup(redis, self._lease, self._others, self, owner.mine)
        self._connections = ConnectionCounts(redis, self._lease, self._others)
        self._calls = (f"{node_id}:{number}" for number in itertools.count())
        self._joining: Counter[tuple[Key, str]] = Counter()
        self._holds = Holds()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, left: Callable[[Key, Member | None, Left], None]) -> None:
        """Take the lease, and start to carry out changes."""
        self._left = left
        await self._keeper.start()
        await self._cleanup.start()
        works = self._keeper.run(), self._cleanup.run(), self._connections.keep_telling()
        self._tasks = [asyncio.create_task(work) for work in works]

    @property
    def name(self) -> str:
        """The node id."""
        return self._lease.node

    async def close(self, *, whole: bool = True) -> None:
        """Carry out pending changes, and give the lease back. Others take over held departures."""
        try:
            async with asyncio.timeout(REGISTRY_CLOSE_SECONDS):
                await self.flush()
        except TimeoutError:
            logger.warning(
                "%d changes were not carried out: the other nodes will clean up", len(self._changes)
            )
        for task in self._tasks:
            await end_task(task)
        await self._keeper.close()
        await self._changes.close()
        if not self._changes:
            try:
                await self._connections.forget()
                await self._lease.end(handed_over=bool(self._holds) or not whole)
            except (RedisError, OSError) as error:
                logger.warning("cannot release the node's lease; it will expire: %s", reason_of(error))

    async def flush(self) -> None:
        """Wait until all changes requested so far are applied."""
        await self._changes.flush()

    # --- changes

    def join(
        self, key: Key, socket_id: str, member: Member | None, limit: int, done: Callable[[Joined], None]
    ) -> None:
        """Queue for the next pipeline."""
        self._join(key, socket_id, member, (limit, 0), done)

    def enter(self, app_id: str, socket_id: str, limit: int, done: Callable[[bool], None]) -> None:
        """Queue for the next pipeline."""
        key = Key(app_id, wire.CONNECTIONS)
        self._join(key, socket_id, None, (0, limit), lambda joined: done(not joined.full))

    def connected(self, app_id: str, count: int) -> None:
        """Record the count; the other nodes see it a little later."""
        self._connections.set(app_id, count)

    async def connections(self, app_id: str) -> int:
        """Connections of the application on all nodes."""
        return int(await ask(self._connections.everywhere(app_id)))

    def _join(
        self,
        key: Key,
        socket_id: str,
        member: Member | None,
        limits: tuple[int, int],
        done: Callable[[Joined], None],
    ) -> None:
        user, encoded, envelope = "", b"", b""
        if member is not None:
            user, encoded = member.id, presence.encode_member(member)
            envelope = wire.encode_envelope(added_envelope(key, socket_id, member))
        users, subscriptions = limits
        node = self._lease.node
        arguments = (socket_id, node, user, encoded, users, envelope, subscriptions)
        entry = node, encode_entry(key, socket_id, member)

        def answered(answer: list[Any]) -> None:
            self._joining[key, socket_id] -= 1
            if self._joining[key, socket_id] <= 0:
                del self._joining[key, socket_id]
            joined = decode_joined(answer)
            if joined.full:  # before the caller can try again
                self._forget(key, (entry,))
            if joined.back:
                self._forget(key, self._holds.let_go(key, "c"))
            if joined.user_back:
                self._forget(key, self._holds.let_go(key, f"u{user}"))
            done(joined)

        self._joining[key, socket_id] += 1
        self._holds.reclaim(entry)
        self._changes.put(Change("join", key, arguments, answered, lists=(entry,)))

    def leave(
        self,
        key: Key,
        socket_id: str,
        member: Member | None,
        done: Callable[[Left], None],
        *,
        disconnect: bool = False,
        name: str = "",
    ) -> None:
        """Queue for the next pipeline. A subscription under an old node id ends like one of another node."""
        entry = name or self._lease.node, encode_entry(key, socket_id, member)
        self._leave(key, socket_id, member, entry, done, disconnect=disconnect)

    def _leave(
        self,
        key: Key,
        socket_id: str,
        member: Member | None,
        entry: NodeEntry,
        done: Callable[[Left], None],
        *,
        disconnect: bool,
    ) -> None:
        """``entry`` says where it is listed: under the name of this node, or of a dead one.

        A departure that is held back stays listed until it is released: others find it if this node dies.
        """
        user, envelope = "", b""
        if member is not None:
            user = member.id
            envelope = wire.encode_envelope(removed_envelope(key, socket_id, member))
        own = self._lease.node, entry[1]
        holder = own[0] if self._owner.holding(key.app_id) and not key.channel.startswith("#") else ""
        seconds = round(HOLD_BACK_MARGIN_SECONDS + 4 * self._lease.seconds), SCRIPT_ANSWER_SECONDS
        arguments = (socket_id, user, envelope, holder, int(disconnect), entry[0], *seconds)

        def answered(answer: list[Any]) -> None:
            left = decode_left(answer)
            fields = [f"u{user}"] if left.last_of_user and disconnect else []
            fields += ["c"] if left.held else []
            is_back = (key, socket_id) in self._joining  # and needs the entry itself
            for field in fields if holder else ():
                self._forget(key, self._holds.let_go(key, field))
                self._holds.hold(key, field, Hold(holder, own), keep=not is_back)
            if holder and not fields and not is_back:
                self._forget(key, (own,))
            done(left)

        lists = (own,) if holder and own != entry else ()
        forgets = (entry,) if not holder or own != entry else ()
        call = next(self._calls) if holder else ""
        self._changes.put(Change("leave", key, arguments, answered, lists, forgets, call))

    def release(self, key: Key, user_id: str | None, done: Callable[[bool], None]) -> None:
        """Queue for the next pipeline."""
        field = "c" if user_id is None else f"u{user_id}"
        holder = self._holds.holder(key, field, self._lease.node)
        forgets = self._holds.let_go(key, field)
        arguments = field, holder, SCRIPT_ANSWER_SECONDS
        call = next(self._calls)
        self._changes.put(
            Change("release", key, arguments, lambda answer: done(bool(answer)), (), forgets, call)
        )

    def _forget(self, key: Key, entries: tuple[NodeEntry, ...]) -> None:
        if entries:
            self._changes.put(Change("", key, (), lambda _: None, forgets=entries))

    def _stands(self, change: Change) -> bool:
        """Whether a join is still wanted; not if the lease had expired and its client was closed."""
        return change.lists[0][0] == self._lease.node

    # --- the lease: see .lease_keeper.Holder

    def start_anew(self) -> None:
        """Drop all state and rejoin under a new node id. Other nodes remove what the old one has."""
        logger.error(
            "the other nodes have declared this node dead: its clients are closed and must reconnect"
        )
        self._changes.drop_joins()
        self._joining.clear()
        self._cleanup.nothing_lost()
        self._owner.lapsed()
        self._lease.rename()
        self._connections.tell_again()

    def lease_revived(self) -> None:
        """Register everything again: Redis may have lost other data too."""
        self._cleanup.something_lost()

    def lease_renewed(self) -> None:
        """Look for dead nodes."""
        self._cleanup.look()

    @property
    def held(self) -> bool:
        """Whether this node's lease stands, as far as it knows."""
        return self._lease.held

    @property
    def stuck(self) -> bool:
        """Whether Redis has not accepted changes for some time."""
        return self._changes.stuck() > REGISTRY_STUCK_SECONDS

    async def peers(self) -> bool:
        """Whether another node takes connections. Also tells the others the state of this one."""
        await ask(self._keeper.renew())
        return OPEN in (await ask(self._others.states())).values()

    # --- for the clean-up: see .cleanup.Registrar

    def joining(self, key: Key, socket_id: str) -> bool:
        """Whether a join of this subscription is pending."""
        return (key, socket_id) in self._joining

    def held_entries(self) -> set[bytes | str]:
        """Entries that stay listed for departures that are held back."""
        return self._holds.entries

    def join_again(self, key: Key, socket_id: str, member: Member | None) -> None:
        """Queue for the next pipeline, regardless of limits."""
        self._join(key, socket_id, member, (ANY, 0), lambda _: None)

    def connections_lost(self) -> None:
        """Write the counts again."""
        self._connections.tell_again()

    def take_back(self, node: str, entry: bytes | str) -> None:
        """Queue for the next pipeline."""
        key, socket_id, member = decode_entry(entry)

        def done(left: Left) -> None:
            if key.channel != wire.CONNECTIONS:
                self._left(key, member, left)

        self._leave(key, socket_id, member, (node, entry), done, disconnect=True)
