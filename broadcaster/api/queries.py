"""The query endpoints: channels, users, connections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from legato.broadcaster.channels.subscriber import Key
from legato.broadcaster.slices import slices

from .events import ApiError, parse_channel

if TYPE_CHECKING:
    from legato.broadcaster.registry.base import Counts, Registry
    from legato.protocol.apps import App
    from legato.protocol.channels import Channel

    from .requests import ApiRequest, Told

PRESENCE: Final = "presence-"
USER_COUNT_NEEDS_PRESENCE: Final = (
    "user_count may only be requested for presence channels - "
    "please supply filter_by_prefix begining with presence-"
)
"""The text of the hosted service, including its spelling."""


class Queries:
    """Answers queries from the registry, for all nodes."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def infos(
        self, app: App, channels: tuple[str, ...], wanted: frozenset[str]
    ) -> list[dict[str, Any]]:
        """Per channel, those of the ``wanted`` attributes that apply to it."""
        keys = [Key(app.id, channel) for channel in channels]
        counts = await self._registry.counts(keys)
        return [_counts(key, count, wanted) for key, count in zip(keys, counts, strict=True)]

    async def channels(self, request: ApiRequest) -> Told:
        """``GET channels``."""
        prefix = request.params.get("filter_by_prefix", "")
        if "user_count" in request.info and not prefix.startswith(PRESENCE):
            raise ApiError(400, USER_COUNT_NEEDS_PRESENCE)
        app_id, info = request.app.id, request.info
        found = await self._registry.occupied(app_id, prefix)
        channels: dict[str, Any] = {}
        async for part in slices(list(found.items())):
            channels |= {name: _counts(Key(app_id, name), counts, info) for name, counts in part}
        return 200, {"channels": channels}

    async def channel(self, request: ApiRequest) -> Told:
        """``GET channels/*``."""
        channel, wanted = _channel(request), request.info
        if "user_count" in wanted and not channel.presence:
            raise ApiError(400, "user_count may only be requested for presence channels")
        if "cache" in wanted and not channel.cache:
            raise ApiError(400, "cache may only be requested for cache channels")
        key = Key(request.app.id, channel.name)
        (counts,) = await self._registry.counts([key])
        answer: dict[str, Any] = {"occupied": counts.subscriptions > 0} | _counts(key, counts, wanted)
        if "cache" in wanted:
            cached = await self._registry.recall(key)
            answer["cache"] = None if cached is None else {"data": cached.data, "ttl": cached.ttl}
        return 200, answer

    async def users(self, request: ApiRequest) -> Told:
        """``GET channels/*/users``."""
        channel = _channel(request)
        if not channel.presence:
            raise ApiError(400, "Users may only be requested for presence channels")
        members = await self._registry.members(Key(request.app.id, channel.name))
        return 200, {"users": [{"id": user_id} for user_id in members]}

    async def connections(self, request: ApiRequest) -> Told:
        """``GET connections``, as in Reverb: the number over all nodes."""
        return 200, {"connections": await self._registry.connections(request.app.id)}


def _channel(request: ApiRequest) -> Channel:
    return parse_channel(request.names[0], request.app.max_channel_name_length)


def _counts(key: Key, counts: Counts, wanted: frozenset[str]) -> dict[str, int]:
    answer = {}
    if "user_count" in wanted and key.channel.startswith(PRESENCE):
        answer["user_count"] = counts.users
    if "subscription_count" in wanted:
        answer["subscription_count"] = counts.subscriptions
    return answer
