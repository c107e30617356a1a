"""The registry over all nodes, in Redis.

Every change is a script that works on the keys of one channel. What a node has added is listed under the
node's name too, and hangs on its lease: when that lapses, any other node takes it back, once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
from redis.exceptions import NoScriptError, RedisError

from protocol import presence, wire

from . import scripts
from .bus import RETRY_SECONDS, ask, end_task, reason_of
from .hub import Key
from .redis_cluster import Cluster
from .registry import Cached, Counts, Joined, Left, added_envelope, removed_envelope

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from redis.asyncio import Redis

    from protocol.presence import Member

logger: Final = logging.getLogger("legato.registry")

LEASE_SECONDS: Final = 15
BATCH: Final = 500
CLOSE_SECONDS: Final = 2.0
VERSION_DIGITS: Final = 16  # before the event that a cache channel keeps: see remember.lua

_Commands = list[tuple[Any, ...]]

_SCRIPTS: Final = {name: scripts.text(name) for name in ("join", "leave", "release")}


class _Change(NamedTuple):
    """One call of a script, and what to do with its answer. ``entry`` is the line in the list of ``node``."""

    script: str
    node: str
    key: Key
    arguments: tuple[str | bytes | int, ...]
    entry: bytes | str
    done: Callable[[Any], None]


class _Subscription(NamedTuple):
    """``entry`` is its line in the list of ``node``, where it was made."""

    node: str
    key: Key
    socket_id: str
    member: Member | None
    entry: bytes | str


class RedisRegistry:
    """See :mod:`broadcaster.registry`.

    :param node_id: unique to this process's start.
    :param lapsed: called when this node finds that its own lease has lapsed: the others have taken back
        what it had.
    :param holding: of an application's id, whether its departures are held back (section 11.4).
    """

    def __init__(
        self,
        redis: Redis,
        node_id: str,
        lapsed: Callable[[], None],
        lease: float = LEASE_SECONDS,
        holding: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._redis = redis
        self._node = node_id
        self._lapsed = lapsed
        self._holding = holding
        self._lease_ms = round(lease * 1000)
        self._remember = redis.register_script(scripts.text("remember"))
        self._held_until = 0.0
        self._sha: dict[str, str] = {}
        self._changes: deque[_Change] = deque()
        self._ready = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, left: Callable[[Key, Member | None, Left], None]) -> None:
        """Take the lease, and begin to carry changes out."""
        self._left = left
        await ask(self._take_lease())
        self._tasks = [asyncio.create_task(self._carry_out()), asyncio.create_task(self._keep_lease())]

    async def close(self) -> None:
        """Carry out what waits, and give the lease back."""
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._idle.wait()
        except TimeoutError:
            logger.warning("%d changes are left to the others, when the lease lapses", len(self._changes))
        for task in self._tasks:
            await end_task(task)
        if not self._changes:
            try:
                await self._redis.srem(wire.NODES_KEY, self._node)
                await self._redis.delete(wire.lease_key(self._node), wire.entries_key(self._node))
            except (RedisError, OSError) as error:
                logger.warning("the node's lease is left to lapse: %s", reason_of(error))

    # --- changes

    def join(
        self, key: Key, socket_id: str, member: Member | None, limit: int, done: Callable[[Joined], None]
    ) -> None:
        """In the next pipeline."""
        user, encoded, envelope = "", b"", b""
        if member is not None:
            user, encoded = member.id, presence.encode_member(member)
            envelope = wire.encode_envelope(added_envelope(key, socket_id, member))
        arguments = (socket_id, self._node, user, encoded, limit, envelope)
        entry = _entry(key, socket_id, member)
        self._change(_Change("join", self._node, key, arguments, entry, lambda answer: done(_joined(answer))))

    def leave(
        self,
        key: Key,
        socket_id: str,
        member: Member | None,
        done: Callable[[Left], None],
        *,
        disconnect: bool = False,
    ) -> None:
        """In the next pipeline."""
        entry = _entry(key, socket_id, member)
        self._leave(_Subscription(self._node, key, socket_id, member, entry), disconnect, done)

    def release(self, key: Key, user_id: str | None, done: Callable[[bool], None]) -> None:
        """In the next pipeline."""
        field = "c" if user_id is None else f"u{user_id}"
        arguments = (field, self._node)
        self._change(_Change("release", self._node, key, arguments, "", lambda answer: done(bool(answer))))

    def _leave(self, gone: _Subscription, disconnect: bool, done: Callable[[Left], None]) -> None:
        user, envelope = "", b""
        if gone.member is not None:
            user = gone.member.id
            envelope = wire.encode_envelope(removed_envelope(gone.key, gone.socket_id, gone.member))
        holds = self._holding(gone.key.app_id) and not gone.key.channel.startswith("#")
        holder = self._node if holds else ""
        arguments = (gone.socket_id, user, envelope, holder, int(disconnect))
        self._change(
            _Change("leave", gone.node, gone.key, arguments, gone.entry, lambda answer: done(_left(answer)))
        )

    def _change(self, change: _Change) -> None:
        self._changes.append(change)
        self._idle.clear()
        self._ready.set()

    async def _carry_out(self) -> None:
        while True:
            await self._ready.wait()
            self._ready.clear()
            while self._changes:
                batch = [self._changes[n] for n in range(min(BATCH, len(self._changes)))]
                answers = await self._insist(batch)
                for change, answer in zip(batch, answers, strict=True):
                    self._changes.popleft()
                    try:
                        change.done(answer)
                    except Exception:  # a fault with one client must not hold the others up
                        logger.exception("a change was carried out, but not followed up")
            self._idle.set()

    async def _insist(self, batch: list[_Change]) -> list[Any]:
        """Until Redis answers; every change may be sent again."""
        attempt = 0
        while True:
            try:
                return await self._send(batch)
            except NoScriptError:
                self._sha.clear()
            except (RedisError, OSError) as error:
                if attempt == 0:
                    logger.warning("Redis does not take changes (%s), trying on", reason_of(error))
                await asyncio.sleep(RETRY_SECONDS[min(attempt, len(RETRY_SECONDS) - 1)])
                attempt += 1

    async def _send(self, batch: list[_Change]) -> list[Any]:
        if not self._sha:
            self._sha = {name: await self._redis.script_load(text) for name, text in _SCRIPTS.items()}
        # Listed before it is there and until it is gone: a crash in between costs nothing.
        listed = [(change.node, change.entry) for change in batch if change.script == "join"]
        last = {(change.node, change.entry): change.script for change in batch if change.script != "release"}
        gone = [place for place, script in last.items() if script == "leave"]
        results = await self._in_order(
            [("SADD", wire.entries_key(node), entry) for node, entry in listed],
            [self._call(change) for change in batch],
            [("SREM", wire.entries_key(node), entry) for node, entry in gone],
        )
        await self._note_occupied(batch, results)
        return results

    def _call(self, change: _Change) -> tuple[Any, ...]:
        keys = _keys(change.key)
        if change.script == "release":
            keys = keys[-1:]
        return ("EVALSHA", self._sha[change.script], len(keys), *keys, *change.arguments)

    async def _in_order(self, before: _Commands, calls: _Commands, after: _Commands) -> list[Any]:
        """What ``calls`` answer. One server keeps a pipeline's order; over several, each waits."""
        phases = (before, calls, after) if isinstance(self._redis, Cluster) else ([*before, *calls, *after],)
        answers: list[Any] = []
        for commands in phases:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for command in commands:
                    pipeline.execute_command(*command)
                answers += await pipeline.execute()
        return answers[len(before) : len(before) + len(calls)]

    async def _note_occupied(self, batch: list[_Change], results: list[Any]) -> None:
        """A hint for :meth:`occupied`, which looks each channel up."""
        occupied: dict[str, list[str]] = {}
        for change, result in zip(batch, results, strict=True):
            if change.script == "join" and result[0] == b"ok" and result[2] and change.key.channel[0] != "#":
                occupied.setdefault(change.key.app_id, []).append(change.key.channel)
        for app_id, channels in occupied.items():
            await self._redis.sadd(wire.occupied_key(app_id), *channels)

    # --- leases

    @property
    def held(self) -> bool:
        """Whether this node's lease stands, by what it last heard of it."""
        return time.monotonic() < self._held_until

    def _hold(self, asked: float) -> None:
        self._held_until = asked + self._lease_ms / 1000

    async def _take_lease(self) -> None:
        asked = time.monotonic()
        await self._redis.sadd(wire.NODES_KEY, self._node)
        await self._redis.set(wire.lease_key(self._node), "1", px=self._lease_ms)
        self._hold(asked)

    async def _keep_lease(self) -> None:
        while True:
            await asyncio.sleep(self._lease_ms / 3000)
            asked = time.monotonic()
            try:
                kept = await self._redis.set(wire.lease_key(self._node), "1", px=self._lease_ms, xx=True)
                if kept:
                    self._hold(asked)
                else:
                    logger.error("the node's lease has lapsed: its connections start anew")
                    self._lapsed()
                    await self._take_lease()
                await self._take_back()
            except (RedisError, OSError) as error:
                logger.warning("the node's lease cannot be renewed: %s", reason_of(error))
            except Exception:  # a fault of ours must not end the lease
                logger.exception("looking after the leases broke off")

    async def _take_back(self) -> None:
        """What nodes without a lease have left behind."""
        for node in await self._redis.smembers(wire.NODES_KEY):
            name = _text(node)
            if name == self._node or await self._redis.exists(wire.lease_key(name)):
                continue
            entries = await self._redis.smembers(wire.entries_key(name))
            if not entries:
                await self._redis.srem(wire.NODES_KEY, name)
                continue
            logger.warning("node %s is gone, taking back its %d subscriptions", name, len(entries))
            for entry in entries:
                self._take_back_one(name, entry)

    def _take_back_one(self, node: str, entry: bytes | str) -> None:
        app_id, channel, socket_id, encoded = msgspec.json.decode(
            entry, type=tuple[str, str, str, msgspec.Raw]
        )
        key = Key(app_id, channel)
        member = None if bytes(encoded) == b"null" else presence.decode_member(bytes(encoded))
        gone = _Subscription(node, key, socket_id, member, entry)
        self._leave(gone, True, lambda left: self._left(key, member, left))

    # --- questions

    async def counts(self, keys: Sequence[Key]) -> list[Counts]:
        """Of each channel."""
        pipeline = self._redis.pipeline(transaction=False)
        for key in keys:
            pipeline.hlen(wire.subscriptions_key(*key))
            pipeline.hlen(wire.users_key(*key))
        lengths = await ask(pipeline.execute())
        return [Counts(*pair) for pair in zip(lengths[::2], lengths[1::2], strict=True)]

    async def occupied(self, app_id: str) -> list[str]:
        """Names of the channels that have subscribers, sorted; a hint that is out of date is dropped."""
        hints = sorted(name.decode() for name in await ask(self._redis.smembers(wire.occupied_key(app_id))))
        counts = await self.counts([Key(app_id, name) for name in hints])
        vacant = [name for name, count in zip(hints, counts, strict=True) if not count.subscriptions]
        if vacant:
            await ask(self._redis.srem(wire.occupied_key(app_id), *vacant))
        return [name for name in hints if name not in set(vacant)]

    async def members(self, key: Key) -> list[str]:
        """User ids on a presence channel."""
        return [name.decode() for name in await ask(self._redis.hkeys(wire.users_key(*key)))]

    async def remember(self, key: Key, event: str, data: str, seconds: int) -> int:
        """Keep the last event of a cache channel. Answers its version."""
        value = msgspec.json.encode([event, data])
        return int(await ask(self._remember((wire.cache_key(*key),), (value, seconds))))

    async def recall(self, key: Key) -> Cached | None:
        """The last event, unless it is too old."""
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.get(wire.cache_key(*key))
        pipeline.ttl(wire.cache_key(*key))
        value, ttl = await ask(pipeline.execute())
        if value is None:
            return None
        version, encoded = value[:VERSION_DIGITS], value[VERSION_DIGITS:]
        event, data = msgspec.json.decode(encoded, type=tuple[str, str])
        return Cached(event, data, max(ttl, 0), int(version))

    async def versions(self, keys: Sequence[Key]) -> list[int]:
        """Of each cache channel, 0 without an event."""
        pipeline = self._redis.pipeline(transaction=False)
        for key in keys:
            pipeline.getrange(wire.cache_key(*key), 0, VERSION_DIGITS - 1)
        return [int(version or 0) for version in await ask(pipeline.execute())]


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _keys(key: Key) -> tuple[str, ...]:
    names = (wire.subscriptions_key, wire.users_key, wire.members_key, wire.bus_channel, wire.held_key)
    return tuple(name(*key) for name in names)


def _entry(key: Key, socket_id: str, member: Member | None) -> bytes:
    encoded = None if member is None else msgspec.Raw(presence.encode_member(member))
    return msgspec.json.encode([*key, socket_id, encoded])


def _joined(answer: list[Any]) -> Joined:
    if answer[0] == b"full":
        return Joined(0, full=True)
    _, count, first, first_of_user, members = answer
    users = tuple(presence.decode_member(one) for one in members)
    return Joined(
        count, bool(first), bool(first_of_user), users, back=first == 2, user_back=first_of_user == 2
    )


def _left(answer: list[Any]) -> Left:
    count, last, last_of_user = answer
    return Left(count, bool(last), bool(last_of_user), held=last == 2)
