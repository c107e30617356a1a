"""Chooses the registry that the settings ask for."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from legato.broadcaster.redis_client import redis_client

from . import lease
from .base import LocalRegistry, Registry
from .redis import RedisRegistry

if TYPE_CHECKING:
    from collections.abc import Callable

    from legato.broadcaster.channels.subscriber import Key
    from legato.broadcaster.config import Settings
    from legato.protocol.redis.pipeline import Named
    from legato.protocol.wire import Envelope

    from .codec import RegistryOwner


def open_registry(
    settings: Settings, redis: Named | None, owner: RegistryOwner, publish: Callable[[Key, Envelope], None]
) -> Registry:
    """The registry in Redis; without Redis one of this process, which delivers its messages itself."""
    if redis is None:
        return LocalRegistry(publish)
    connect = partial(redis_client, settings.redis.url, settings.redis.prefix)
    return RedisRegistry(redis, lease.new_name(), owner, settings.server.lease_seconds, connect)
