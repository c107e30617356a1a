"""Connections to Redis that say so when they are closed: uvloop's transports raise a bare RuntimeError."""

from __future__ import annotations

from typing import Any, Final

from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import ConnectionError as LostError


class _Honest:
    async def send_packed_command(self, *arguments: Any, **options: Any) -> None:
        """See redis-py."""
        try:
            await super().send_packed_command(*arguments, **options)  # type: ignore[misc] # beside a connection
        except RuntimeError as error:
            raise LostError("the connection is closed") from error


class _Plain(_Honest, Connection):
    pass


class _Secure(_Honest, SSLConnection):
    pass


class _Local(_Honest, UnixDomainSocketConnection):
    pass


HONEST: Final[dict[type, type]] = {
    Connection: _Plain,
    SSLConnection: _Secure,
    UnixDomainSocketConnection: _Local,
}
"""What redis-py takes for an address -> what to take instead."""
