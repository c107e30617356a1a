"""The two Redis clients of a worker process."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import RedisError

from legato.protocol import redis_url
from legato.protocol.redis import connections as redis_connections

if TYPE_CHECKING:
    from legato.protocol.redis.pipeline import Named

POOL: Final = 64
"""Connections at most, to each server; further callers wait for one."""

READ_TIMEOUT: Final = 30.0
"""Seconds; far above any BLOCK, so it ends only a read from a server that silently went away."""

NEEDED: Final = (7, 0)
"""The first Redis with sharded publish."""


def connect(url: str, prefix: str = "") -> Named:
    """The client for everything that answers at once. Repeats a call once, for a connection gone stale.

    :param prefix: of all names that the installation uses (:mod:`legato.protocol.names`).
    :raises SettingsError: ``url`` is not an address. The text leaves it out, for it may hold a password.
    """
    return _client(url, prefix, repeats=1, socket_timeout=5.0, health_check_interval=15)


def connect_reader(url: str, prefix: str = "") -> Named:
    """The client for blocking reads: nothing is sent twice, and a long BLOCK is no timeout."""
    return _client(url, prefix, socket_timeout=READ_TIMEOUT)


def _client(url: str, prefix: str, **options: Any) -> Named:
    plan = redis_url.parse(url)
    return redis_connections.connect(
        plan, prefix, max_connections=POOL, timeout=None, socket_connect_timeout=5.0, **options
    )


class TooOldError(RedisError):
    """The server lacks what Legato needs."""


async def check(redis: Named) -> None:
    """Reach the server, and make sure that it can do what is needed.

    :raises TooOldError: it is older than :data:`NEEDED`.
    :raises RedisError: it cannot be reached, or refuses.
    """
    version = str((await redis.info("server")).get("redis_version", ""))
    match = re.match(r"(\d+)\.(\d+)", version)
    if match and (int(match[1]), int(match[2])) < NEEDED:
        raise TooOldError(f"it is version {version}; at least 7.0 is needed")
