"""The broadcaster's client of Redis, and its errors as the rest of the broadcaster knows them."""

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
    """A client that waits for a connection of its pool and never repeats a command by itself.

    A blind repeat would publish twice, so whoever calls decides.

    :param prefix: of all names that the installation uses (:mod:`legato.protocol.names`).
    :raises SettingsError: the URL is not one of those that :mod:`legato.protocol.redis_url` knows.
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
    """What Redis answers, with its errors translated.

    :raises BusError: it does not answer, or refuses. The text says why: it is for the log and for operators.
    """
    try:
        return await call
    except _REFUSALS as error:
        raise RefusedError(f"Redis refuses: {reason_of(error)}") from error
    except (RedisError, OSError, TimeoutError) as error:
        raise BusError(f"Redis does not answer: {reason_of(error)}") from error
