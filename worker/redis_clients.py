"""The two Redis clients of a worker process."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import RedisError

from legato.protocol import redis_url
from legato.protocol.redis import connections as redis_connections

from .limits import (
    REDIS_HEALTH_CHECK_SECONDS,
    REDIS_POOL_CONNECTIONS,
    REDIS_READ_SECONDS,
    REDIS_TIMEOUT_SECONDS,
)

if TYPE_CHECKING:
    from legato.protocol.redis.pipeline import Named

NEEDED: Final = (7, 0)
"""The first version of Redis with sharded pub/sub."""


def connect(url: str, prefix: str = "") -> Named:
    """The client for commands that do not block.

    It repeats a command once, since a pooled connection may have been closed meanwhile.

    :param prefix: prefix of all keys and channels (:mod:`legato.protocol.names`).
    :raises SettingsError: ``url`` is invalid. The text does not contain it: it may hold a password.
    """
    return _client(
        url,
        prefix,
        repeats=1,
        socket_timeout=REDIS_TIMEOUT_SECONDS,
        health_check_interval=REDIS_HEALTH_CHECK_SECONDS,
    )


def connect_reader(url: str, prefix: str = "") -> Named:
    """The client for blocking reads. It repeats nothing: a repeated read strands jobs."""
    return _client(url, prefix, socket_timeout=REDIS_READ_SECONDS)


def _client(url: str, prefix: str, **options: Any) -> Named:
    plan = redis_url.parse(url)
    return redis_connections.connect(
        plan,
        prefix,
        max_connections=REDIS_POOL_CONNECTIONS,
        timeout=None,
        socket_connect_timeout=REDIS_TIMEOUT_SECONDS,
        **options,
    )


class TooOldError(RedisError):
    """The server is too old."""


async def check(redis: Named) -> None:
    """Connect to the server and check its version.

    :raises TooOldError: it is older than :data:`NEEDED`.
    :raises RedisError: it cannot be reached, or refuses the connection.
    """
    version = str((await redis.info("server")).get("redis_version", ""))
    match = re.match(r"(\d+)\.(\d+)", version)
    if match and (int(match[1]), int(match[2])) < NEEDED:
        raise TooOldError(f"it is version {version}; at least 7.0 is needed")
