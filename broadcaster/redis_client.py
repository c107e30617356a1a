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
        max_connections=32,
        timeout=5,
        socket_timeout=5,
        socket_connect_timeout=5,
        health_check_interval=15,
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
