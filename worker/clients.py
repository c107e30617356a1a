"""The two Redis clients of a worker process."""

from __future__ import annotations

import re
from typing import Any, Final

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as LostError
from redis.exceptions import RedisError

from protocol.settings import SettingsError

POOL: Final = 64
"""Connections at most; further callers wait for one."""

READ_TIMEOUT: Final = 30.0
"""Seconds; far above any BLOCK, so it ends only a read from a server that silently went away."""

NEEDED: Final = (7, 0)
"""The first Redis with sharded publish."""


def connect(url: str) -> Redis:
    """The client for everything that answers at once. Repeats a call once, for a connection gone stale.

    :raises SettingsError: ``url`` is not an address. The text leaves it out, for it may hold a password.
    """
    return _client(url, retry=Retry(NoBackoff(), 1), socket_timeout=5.0, health_check_interval=15)


def connect_reader(url: str) -> Redis:
    """The client for blocking reads: nothing is sent twice, and a long BLOCK is no timeout."""
    return _client(url, retry=Retry(NoBackoff(), 0), socket_timeout=READ_TIMEOUT)


def _client(url: str, **options: Any) -> Redis:
    try:
        address = parse_url(url)
    except ValueError:
        expected = "redis://HOST:PORT, rediss://HOST:PORT or unix:///PATH"
        raise SettingsError(f"redis.url: expected {expected}") from None
    # RESP2 whatever the URL asks for: the shape of XREADGROUP's answer depends on it.
    settings: dict[str, Any] = {"socket_connect_timeout": 5.0, **options, **address, "protocol": 2}
    settings["connection_class"] = _CONNECTIONS[settings.get("connection_class", Connection)]
    pool = BlockingConnectionPool(max_connections=POOL, timeout=None, **settings)
    return Redis.from_pool(pool)


class _Honest:
    """A connection that says so when it is closed: uvloop's transports raise a bare RuntimeError."""

    async def send_packed_command(self, *arguments: Any, **options: Any) -> None:
        """See redis-py."""
        try:
            await super().send_packed_command(*arguments, **options)  # type: ignore[misc] # beside a connection
        except RuntimeError as error:
            raise LostError(str(error)) from error


class _Plain(_Honest, Connection):
    pass


class _Secure(_Honest, SSLConnection):
    pass


class _Local(_Honest, UnixDomainSocketConnection):
    pass


_CONNECTIONS: Final = {Connection: _Plain, SSLConnection: _Secure, UnixDomainSocketConnection: _Local}


class TooOldError(RedisError):
    """The server lacks what Legato needs."""


async def check(redis: Redis) -> None:
    """Reach the server, and make sure that it can do what is needed.

    :raises TooOldError: it is older than :data:`NEEDED`.
    :raises RedisError: it cannot be reached, or refuses.
    """
    version = str((await redis.info("server")).get("redis_version", ""))
    match = re.match(r"(\d+)\.(\d+)", version)
    if match and (int(match[1]), int(match[2])) < NEEDED:
        raise TooOldError(f"it is version {version}; at least 7.0 is needed")
