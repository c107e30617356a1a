"""The broadcaster's Redis client, and the translation of its errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    RedisError,
    ResponseError,
)

from legato.broadcaster.limits import REDIS_CONNECTIONS, REDIS_HEALTH_CHECK_SECONDS, REDIS_TIMEOUT_SECONDS
from legato.protocol import redis_url
from legato.protocol.redis.connections import connect
from legato.protocol.redis.errors import reason_of

from .bus.base import BusError, RefusedError

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from legato.protocol.redis.pipeline import Named


def redis_client(url: str, prefix: str = "") -> Named:
    """Create a client that waits for a free connection of its pool, and never retries a command.

    A blind retry could publish twice, so the caller decides.

    :param prefix: begins every name that this installation uses in Redis (:mod:`legato.protocol.names`).
    :raises SettingsError: :mod:`legato.protocol.redis_url` does not know this form of URL.
    """
    return connect(
        redis_url.parse(url),
        prefix,
        max_connections=REDIS_CONNECTIONS,
        timeout=REDIS_TIMEOUT_SECONDS,
        socket_timeout=REDIS_TIMEOUT_SECONDS,
        socket_connect_timeout=REDIS_TIMEOUT_SECONDS,
        health_check_interval=REDIS_HEALTH_CHECK_SECONDS,
    )


_REFUSALS: Final = (ResponseError, BusyLoadingError, AuthenticationError, AuthorizationError)


async def ask(call: Awaitable[Any] | Any) -> Any:
    """Await a call to Redis, and translate its errors.

    :raises RefusedError: Redis answers with an error.
    :raises BusError: Redis does not answer. The text gives the reason for logs and operators.
    """
    try:
        return await call
    except _REFUSALS as error:
        raise RefusedError(f"Redis refuses: {reason_of(error)}") from error
    except (RedisError, OSError, TimeoutError) as error:
        raise BusError(f"Redis does not answer: {reason_of(error)}") from error
