"""Cancel flags: how any program stops a reply, whatever it knows of Legato."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol import wire

if TYPE_CHECKING:
    from collections.abc import Collection

    from redis.asyncio import Redis


class CancelFlags:
    """Reads the flags of many messages in one round trip."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def those_set(self, message_ids: Collection[str]) -> set[str]:
        """Those of ``message_ids`` that somebody asked to cancel, in either spelling."""
        flags = [(message_id, flag) for message_id in message_ids for flag in wire.cancel_flags(message_id)]
        if not flags:
            return set()
        async with self._redis.pipeline(transaction=False) as pipe:
            for _, flag in flags:  # one EXISTS each: on a Redis Cluster they live in different slots
                pipe.exists(flag)
            found = await pipe.execute()
        return {message_id for (message_id, _), there in zip(flags, found, strict=True) if there}
