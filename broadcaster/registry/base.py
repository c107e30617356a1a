"""Cluster-wide state: subscriptions, presence members, signed-in users, cached events.

The contract; one test suite checks it for both implementations:

* ``join`` and ``leave`` are carried out in the order of the calls, and ``done`` is called for each in that
  order, at once or later. Both may be repeated: a subscription counts once.
* ``member_added`` is published for the first connection of a user on a presence channel, ``member_removed``
  for the end of the last one, in the same order on every node.
* Of all ``done`` calls on all nodes, exactly one reports that a channel became occupied, vacated, and so on.

A signed-in user is a subscription to :func:`legato.protocol.users.user_channel`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple, Protocol

from legato.broadcaster.channels.subscriber import Key
from legato.broadcaster.slices import in_order, slices
from legato.protocol import presence, wire
from legato.protocol.wire import Envelope

from .event_cache import EventCache

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from legato.protocol.presence import Member

    from .event_cache import Cached


class Joined(NamedTuple):
    """The answer to a join.

    :ivar members: the distinct users of a presence channel, including the new one.
    :ivar back: it ends the hold-back of the channel's departure, on whichever node that is.
    :ivar user_back: the same for the departure of the user.
    """

    subscriptions: int
    first: bool = False
    first_of_user: bool = False
    members: tuple[Member, ...] = ()
    full: bool = False
    back: bool = False
    user_back: bool = False


class Left(NamedTuple):
    """The answer to a leave.

    :ivar subscriptions: those that remain.
    :ivar held: the departure of the last one is to be held back (section 11.4).
    """

    subscriptions: int
    last: bool = False
    last_of_user: bool = False
    held: bool = False


class Counts(NamedTuple):
    """Connections, and on a presence channel distinct users."""

    subscriptions: int
    users: int


class Registry(Protocol):
    """See the contract above. Coroutines raise ``BusError`` if Redis does not answer."""

    @property
    def held(self) -> bool:
        """Whether this node holds its lease; otherwise the others remove its subscriptions."""

    @property
    def stuck(self) -> bool:
        """Whether Redis has not accepted changes for some time."""

    @property
    def name(self) -> str:
        """The node id in the registry. It changes when the node loses its lease and rejoins."""

    async def start(self, left: Callable[[Key, Member | None, Left], None]) -> None:
        """Start. ``left`` is called for each departure from a node that died."""

    async def close(self, *, whole: bool = True) -> None:
        """Apply pending changes, within a short time.

        :param whole: whether :meth:`leave` has been called for everything; other nodes remove the rest.
        """

    def join(
        self, key: Key, socket_id: str, member: Member | None, limit: int, done: Callable[[Joined], None]
    ) -> None:
        """Subscribe. ``limit``: maximum users of a presence channel; beyond it, only ``full`` is set."""

    def enter(self, app_id: str, socket_id: str, limit: int, done: Callable[[bool], None]) -> None:
        """Count a connection unless there are ``limit`` (0: no limit); ``done`` gets whether it is counted.

        Undone by :meth:`leave` with :data:`legato.protocol.wire.CONNECTIONS` as the channel.
        """

    def connected(self, app_id: str, count: int) -> None:
        """Note that this node has ``count`` connections of the application."""

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
        """Undo :meth:`join`. After a disconnect the departure is held back until :meth:`release`.

        :param name: the registry's :attr:`name` at the join; empty for the current one.
        """

    def release(self, key: Key, user_id: str | None, done: Callable[[bool], None]) -> None:
        """End the hold-back of a user's departure, or with None of the channel's.

        ``done`` gets whether the departure stands: nobody has come back.
        """

    async def flush(self) -> None:
        """Wait until all changes requested so far are applied."""

    async def peers(self) -> bool:
        """Whether another node accepts connections."""

    async def connections(self, app_id: str) -> int:
        """Connections of the application on all nodes."""

    async def counts(self, keys: Sequence[Key]) -> list[Counts]:
        """Return the counts of each channel."""

    async def occupied(self, app_id: str, prefix: str = "") -> dict[str, Counts]:
        """The channels that have subscribers and whose names begin with ``prefix``, sorted."""

    async def members(self, key: Key) -> list[str]:
        """User ids on a presence channel."""

    async def member_lists(self, keys: Sequence[Key]) -> list[list[Member]]:
        """Return the distinct users of each presence channel."""

    async def remember(self, key: Key, event: str, data: str, seconds: int) -> int:
        """Keep the last event of a cache channel. Answers its version."""

    async def recall(self, key: Key) -> Cached | None:
        """Return the last event, unless it has expired."""

    async def versions(self, keys: Sequence[Key]) -> list[int]:
        """Return the version of each cache channel's last event, 0 without one."""


def added_envelope(key: Key, socket_id: str, member: Member) -> Envelope:
    """Tells everybody else on the channel."""
    return Envelope(presence.member_added(key.channel, member), socket_id)


def removed_envelope(key: Key, socket_id: str, member: Member) -> Envelope:
    """Tells everybody else on the channel."""
    return Envelope(presence.member_removed(key.channel, member), socket_id)


class _SubscribedChannel:
    """Subscriptions of one channel; of its users the first connection's member, and how many they have."""

    __slots__ = ("members", "sockets", "users")

    def __init__(self) -> None:
        self.sockets: set[str] = set()
        self.users: dict[str, int] = {}
        self.members: dict[str, Member] = {}


class LocalRegistry:
    """One process, no Redis.

    :param publish: delivers an announcement to the channel.
    :param clock: seconds, for the age of cached events.
    """

    held = True
    stuck = False
    name = ""

    def __init__(
        self, publish: Callable[[Key, Envelope], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._publish = publish
        self._channels: dict[Key, _SubscribedChannel] = {}
        self._connections: dict[str, int] = {}
        self._cache = EventCache(clock)

    async def start(self, left: Callable[[Key, Member | None, Left], None]) -> None:
        """Nothing to start: there are no other nodes."""

    async def close(self, *, whole: bool = True) -> None:
        """No-op: nothing is pending."""
        del whole

    def join(
        self, key: Key, socket_id: str, member: Member | None, limit: int, done: Callable[[Joined], None]
    ) -> None:
        """Apply at once."""
        channel = self._channels.get(key)
        if channel is None:
            channel = self._channels[key] = _SubscribedChannel()
        is_new = socket_id not in channel.sockets
        first_of_user = is_new and member is not None and member.id not in channel.users
        if first_of_user and len(channel.users) >= limit:
            done(Joined(len(channel.sockets), full=True))
            return
        channel.sockets.add(socket_id)
        if is_new and member is not None:
            channel.users[member.id] = channel.users.get(member.id, 0) + 1
            if first_of_user:
                channel.members[member.id] = member
                self._publish(key, added_envelope(key, socket_id, member))
        count = len(channel.sockets)
        done(Joined(count, is_new and count == 1, first_of_user, tuple(channel.members.values())))

    def enter(self, app_id: str, socket_id: str, limit: int, done: Callable[[bool], None]) -> None:
        """Apply at once."""
        key = Key(app_id, wire.CONNECTIONS)
        channel = self._channels.get(key)
        there = set() if channel is None else channel.sockets
        fits = socket_id in there or not 0 < limit <= len(there)
        if fits:
            self._channels.setdefault(key, _SubscribedChannel()).sockets.add(socket_id)
        done(fits)

    def connected(self, app_id: str, count: int) -> None:
        """Apply at once."""
        self._connections[app_id] = count

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
        """Apply at once."""
        del name
        channel = self._channels.get(key)
        if channel is None or socket_id not in channel.sockets:
            done(Left(0 if channel is None else len(channel.sockets)))
            return
        channel.sockets.remove(socket_id)
        last_of_user = member is not None and channel.users[member.id] == 1
        if member is not None:
            channel.users[member.id] -= 1
            if last_of_user:
                del channel.users[member.id]
                self._publish(key, removed_envelope(key, socket_id, channel.members.pop(member.id)))
        if not channel.sockets:
            del self._channels[key]
        last = not channel.sockets
        done(Left(len(channel.sockets), last, last_of_user, held=last and disconnect))

    def release(self, key: Key, user_id: str | None, done: Callable[[bool], None]) -> None:
        """Answer at once: a single process sees every return itself."""
        del key, user_id
        done(True)

    async def flush(self) -> None:
        """No-op: nothing is pending."""

    async def peers(self) -> bool:
        """False: there are no other nodes."""
        return False

    async def connections(self, app_id: str) -> int:
        """Connections of this process."""
        return self._connections.get(app_id, 0)

    async def counts(self, keys: Sequence[Key]) -> list[Counts]:
        """Return the counts of each channel."""
        found = [self._channels.get(key) for key in keys]
        return [Counts(0, 0) if one is None else Counts(len(one.sockets), len(one.users)) for one in found]

    async def occupied(self, app_id: str, prefix: str = "") -> dict[str, Counts]:
        """The channels that have subscribers and whose names begin with ``prefix``, sorted."""
        names: list[str] = []
        async for part in slices(list(self._channels)):
            names += [key.channel for key in part if key.app_id == app_id and key.channel.startswith(prefix)]
        found: dict[str, Counts] = {}
        async for shown in slices(await in_order(names)):
            keys = [Key(app_id, name) for name in shown if name[0] != "#"]
            counts = zip(keys, await self.counts(keys), strict=True)
            found |= {key.channel: count for key, count in counts if count.subscriptions}
        return found

    async def members(self, key: Key) -> list[str]:
        """User ids on a presence channel."""
        channel = self._channels.get(key)
        return [] if channel is None else list(channel.users)

    async def member_lists(self, keys: Sequence[Key]) -> list[list[Member]]:
        """Return the distinct users of each presence channel."""
        found = [self._channels.get(key) for key in keys]
        return [[] if channel is None else list(channel.members.values()) for channel in found]

    async def remember(self, key: Key, event: str, data: str, seconds: int) -> int:
        """Cache the event; expired entries are removed lazily."""
        return self._cache.remember(key, event, data, seconds)

    async def recall(self, key: Key) -> Cached | None:
        """The last event, unless it has expired."""
        return self._cache.recall(key)

    async def versions(self, keys: Sequence[Key]) -> list[int]:
        """Return the version of each cache channel, 0 without an event."""
        found = [self._cache.recall(key) for key in keys]
        return [0 if cached is None else cached.version for cached in found]
