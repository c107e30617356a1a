"""What is asked of the registry in Redis: who is where, and the last event of a cache channel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from protocol import presence, wire

from . import scripts
from .bus import ask
from .hub import Key
from .registry import Cached, Counts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis

    from protocol.presence import Member

VERSION_DIGITS: Final = 16
"""Before the event that a cache channel keeps: see remember.lua."""


_cached_decoder: Final = msgspec.json.Decoder(tuple[str, str])


class Questions:
    """See :class:`broadcaster.registry.Registry`."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._remember = redis.register_script(scripts.text("remember"))

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
        back = await self._drop_hints(app_id, vacant) if vacant else set()
        return [name for name in hints if name not in set(vacant) - back]

    async def _drop_hints(self, app_id: str, vacant: Sequence[str]) -> set[str]:
        """Answers those that somebody has come to meanwhile, whose hints have to stay."""
        await ask(self._redis.srem(wire.occupied_key(app_id), *vacant))
        counts = await self.counts([Key(app_id, name) for name in vacant])
        back = [name for name, count in zip(vacant, counts, strict=True) if count.subscriptions]
        if back:
            await ask(self._redis.sadd(wire.occupied_key(app_id), *back))
        return set(back)

    async def members(self, key: Key) -> list[str]:
        """User ids on a presence channel."""
        return [name.decode() for name in await ask(self._redis.hkeys(wire.users_key(*key)))]

    async def rosters(self, keys: Sequence[Key]) -> list[list[Member]]:
        """Of each presence channel its distinct users."""
        pipeline = self._redis.pipeline(transaction=False)
        for key in keys:
            pipeline.hvals(wire.members_key(*key))
        return [[presence.decode_member(one) for one in found] for found in await ask(pipeline.execute())]

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
        event, data = _cached_decoder.decode(encoded)
        return Cached(event, data, max(ttl, 0), int(version))

    async def versions(self, keys: Sequence[Key]) -> list[int]:
        """Of each cache channel, 0 without an event."""
        pipeline = self._redis.pipeline(transaction=False)
        for key in keys:
            pipeline.getrange(wire.cache_key(*key), 0, VERSION_DIGITS - 1)
        return [int(version or 0) for version in await ask(pipeline.execute())]
