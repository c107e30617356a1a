"""Queries of the registry in Redis: counts, members, channels, and cached events."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

from legato.broadcaster.channels.subscriber import Key
from legato.broadcaster.limits import CHANNELS_PER_QUERY, ITEMS_PER_TURN
from legato.broadcaster.redis_client import ask
from legato.broadcaster.slices import in_order, slices
from legato.protocol import presence
from legato.protocol.redis import scripts

from .base import Counts
from .event_cache import Cached

if TYPE_CHECKING:
    from collections.abc import Sequence

    from legato.protocol.presence import Member
    from legato.protocol.redis.pipeline import Named

VERSION_DIGITS: Final = 16
"""Digits before the cached event: see remember.lua."""

PRESENCE: Final = "presence-"

_cached_decoder: Final = msgspec.json.Decoder(tuple[str, str])


def glob_of(prefix: str) -> str | None:
    """Redis' pattern for what begins with ``prefix``; None for everything."""
    return re.sub(r"([\\*?\[\]^-])", r"\\\1", prefix) + "*" if prefix else None


class RegistryQueries:
    """See :class:`legato.broadcaster.registry.base.Registry`."""

    def __init__(self, redis: Named) -> None:
        self._redis = redis
        self._names = redis.names
        self._remember = scripts.load(redis, __package__, "remember")

    async def counts(self, keys: Sequence[Key]) -> list[Counts]:
        """Of each channel."""
        return [
            count async for part in slices(keys, CHANNELS_PER_QUERY) for count in await self._counts(part)
        ]

    async def _counts(self, keys: Sequence[Key]) -> list[Counts]:
        """Only presence channels are also asked for their users."""
        presence_keys = [key for key in keys if key.channel.startswith(PRESENCE)]
        pipeline = self._redis.pipeline(transaction=False)
        for key in keys:
            pipeline.hlen(self._names.subscriptions_key(*key))
        for key in presence_keys:
            pipeline.hlen(self._names.users_key(*key))
        lengths = await ask(pipeline.execute())
        users = dict(zip(presence_keys, lengths[len(keys) :], strict=True))
        return [Counts(count, users.get(key, 0)) for key, count in zip(keys, lengths, strict=False)]

    async def occupied(self, app_id: str, prefix: str = "") -> dict[str, Counts]:
        """The channels that have subscribers and whose names begin with ``prefix``, sorted.

        Channels without a hint are not queried. Stale hints are dropped.
        """
        found: dict[str, Counts] = {}
        async for part in slices(await in_order(await self._hints(app_id, prefix)), CHANNELS_PER_QUERY):
            counts = dict(zip(part, await self.counts([Key(app_id, name) for name in part]), strict=True))
            if vacant := [name for name, count in counts.items() if not count.subscriptions]:
                counts |= await self._drop_hints(app_id, vacant)
            found |= {name: count for name, count in counts.items() if count.subscriptions}
        return found

    async def _hints(self, app_id: str, prefix: str) -> list[str]:
        names: dict[bytes, None] = {}  # a scan may return a name twice
        pattern, cursor = glob_of(prefix), 0
        while True:
            key = self._names.occupied_key(app_id)
            cursor, part = await ask(self._redis.sscan(key, cursor, match=pattern, count=ITEMS_PER_TURN))
            names |= dict.fromkeys(part)
            if not cursor:
                return [name.decode() for name in names]

    async def _drop_hints(self, app_id: str, vacant: Sequence[str]) -> dict[str, Counts]:
        """Answers the counts anew: hints of channels that somebody has come to meanwhile have to stay."""
        await ask(self._redis.srem(self._names.occupied_key(app_id), *vacant))
        counts = dict(zip(vacant, await self.counts([Key(app_id, name) for name in vacant]), strict=True))
        if back := [name for name, count in counts.items() if count.subscriptions]:
            await ask(self._redis.sadd(self._names.occupied_key(app_id), *back))
        return counts

    async def members(self, key: Key) -> list[str]:
        """User ids on a presence channel."""
        return [name.decode() for name in await ask(self._redis.hkeys(self._names.users_key(*key)))]

    async def member_lists(self, keys: Sequence[Key]) -> list[list[Member]]:
        """Return the distinct users of each presence channel."""
        pipeline = self._redis.pipeline(transaction=False)
        for key in keys:
            pipeline.hvals(self._names.members_key(*key))
        return [[presence.decode_member(one) for one in found] for found in await ask(pipeline.execute())]

    async def remember(self, key: Key, event: str, data: str, seconds: int) -> int:
        """Keep the last event of a cache channel. Answers its version."""
        value = msgspec.json.encode([event, data])
        return int(await ask(self._remember((self._names.cache_key(*key),), (value, seconds))))

    async def recall(self, key: Key) -> Cached | None:
        """Return the last event, unless it has expired."""
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.get(self._names.cache_key(*key))
        pipeline.ttl(self._names.cache_key(*key))
        value, ttl = await ask(pipeline.execute())
        if value is None:
            return None
        version, encoded = value[:VERSION_DIGITS], value[VERSION_DIGITS:]
        event, data = _cached_decoder.decode(encoded)
        return Cached(event, data, max(ttl, 0), int(version))

    async def versions(self, keys: Sequence[Key]) -> list[int]:
        """Return the version of each cache channel, 0 without an event."""
        pipeline = self._redis.pipeline(transaction=False)
        for key in keys:
            pipeline.getrange(self._names.cache_key(*key), 0, VERSION_DIGITS - 1)
        return [int(version or 0) for version in await ask(pipeline.execute())]
