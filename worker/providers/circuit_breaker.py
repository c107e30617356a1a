"""A circuit breaker in Redis, shared by all processes that use the same provider account.

When the provider reports overload, no process sends a request for a while: as long as the provider asked, or
else for a pause that doubles each time. After the pause, requests go out one at a time,
:data:`BREAKER_PROBE_SECONDS` apart. An accepted probe undoes one step; a refused one starts the next pause.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol

from legato.protocol.redis import scripts
from legato.worker.limits import (
    BREAKER_CLOSED_SECONDS,
    BREAKER_FIRST_PAUSE_SECONDS,
    BREAKER_LONGEST_PAUSE_SECONDS,
    BREAKER_LONGEST_REQUESTED_SECONDS,
    BREAKER_PROBE_SECONDS,
)
from legato.worker.replies.batch import BatchedScript

from . import base

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from legato.protocol.redis.pipeline import Named
    from legato.protocol.redis.retry import Backend

_SCRIPTS: Final = ("breaker_acquire", "breaker_overloaded", "breaker_succeeded")


class CircuitBreaker(Protocol):
    """Decides when a request to the provider may be sent."""

    async def acquire(self, deadline: float) -> bool:
        """Wait until a request may be sent. Answers whether it is a probe, whose outcome others wait for.

        :param deadline: time of the running loop.
        :raises ProviderError: no request may be sent before the deadline.
        """

    async def succeeded(self) -> None:
        """The provider has accepted a probe."""

    async def overloaded(self, error: base.ProviderError) -> None:
        """The provider has refused a request because of overload."""


@asynccontextmanager
async def admitted(breaker: CircuitBreaker, deadline: float) -> AsyncIterator[bool]:
    """Wait until a request may be sent, which the body does, and tell the breaker of an overload.

    Yields whether it is a probe: then the body has to call ``succeeded`` once it is accepted.

    :raises ProviderError: see :meth:`CircuitBreaker.acquire`.
    """
    probe = await breaker.acquire(deadline)
    try:
        yield probe
    except base.ProviderError as error:
        if error.crowded:
            await breaker.overloaded(error)
        raise


class _AlwaysClosed:
    """Lets every request through."""

    async def acquire(self, deadline: float) -> bool:  # noqa: ARG002 - it never waits
        return False

    async def succeeded(self) -> None:
        pass

    async def overloaded(self, error: base.ProviderError) -> None:
        pass


ALWAYS_CLOSED: Final[CircuitBreaker] = _AlwaysClosed()
"""For a provider without an account."""


class SharedCircuitBreaker:
    """The circuit breaker of one account.

    A closed one is asked again after :data:`BREAKER_CLOSED_SECONDS`, whatever is sent meanwhile.

    :param secrets: what identifies the account, such as address and key. Only a digest leaves the process.
    """

    def __init__(self, redis: Named, backend: Backend, *secrets: str) -> None:
        digest = hashlib.sha256("\n".join(secrets).encode()).hexdigest()[:32]
        self._key = redis.names.backoff_key(digest)
        self._backend = backend
        self._scripts = {
            name: BatchedScript(redis, scripts.load(redis, __package__, name), urgent=True)
            for name in _SCRIPTS
        }
        self._closed_until = 0.0

    async def acquire(self, deadline: float) -> bool:
        """See :class:`CircuitBreaker`."""
        clock = asyncio.get_running_loop().time
        if clock() < self._closed_until:
            return False
        while True:
            wait_ms, strikes, code = await self._run("breaker_acquire", _ms(BREAKER_PROBE_SECONDS))
            if not wait_ms:
                if not strikes:
                    self._closed_until = clock() + BREAKER_CLOSED_SECONDS
                return bool(strikes)
            wait = wait_ms / 1000 * random.uniform(1, 1.1)  # noqa: S311 - spreads load, keeps no secret
            if clock() + wait >= deadline:
                raise _overload(code.decode())
            await asyncio.sleep(wait)

    async def succeeded(self) -> None:
        """See :class:`CircuitBreaker`."""
        await self._run("breaker_succeeded")

    async def overloaded(self, error: base.ProviderError) -> None:
        """See :class:`CircuitBreaker`."""
        self._closed_until = 0.0
        asked = (
            -1
            if error.retry_after is None
            else _ms(min(error.retry_after, BREAKER_LONGEST_REQUESTED_SECONDS))
        )
        await self._run(
            "breaker_overloaded",
            asked,
            _ms(BREAKER_FIRST_PAUSE_SECONDS),
            _ms(BREAKER_LONGEST_PAUSE_SECONDS),
            error.code,
        )

    async def _run(self, name: str, *arguments: int | str) -> list[Any]:
        return await self._backend.insist(lambda: self._scripts[name]([self._key], arguments))


def _overload(code: str) -> base.ProviderError:
    kind = base.RateLimitedError if code == base.RateLimitedError.code else base.OverloadedError
    return kind("the provider is overloaded, and there is no time to wait until it is asked again")


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
