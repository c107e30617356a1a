"""A back-off that all processes with the same key share, so that they do not hammer a provider without room.

Once the provider has said that it is crowded, nobody asks for a while: as long as it said, else for a time
that doubles. Then requests go out one at a time, :data:`PROBE` seconds apart. One that is answered shortens
the way back by a step, one that is refused begins the pause anew.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from typing import TYPE_CHECKING, Any, Final, Protocol

from legato.protocol.redis import scripts

from . import base

if TYPE_CHECKING:
    from legato.protocol.redis.pipeline import Named
    from legato.protocol.redis.retry import Backend

FIRST: Final = 1.0
LONGEST: Final = 30.0
"""Seconds of a pause where the provider does not say."""

LONGEST_ASKED: Final = 60.0
"""Seconds after which it is tried again, however much longer the provider said."""

PROBE: Final = 1.0

_SCRIPTS: Final = ("gate_enter", "gate_refused", "gate_answered")


class Gate(Protocol):
    """Stands before the provider."""

    async def enter(self, deadline: float) -> bool:
        """Wait for the turn to ask. Answers whether the request is a probe, whose answer is waited for.

        :param deadline: time of the running loop.
        :raises ProviderError: the turn would not come before the deadline.
        """

    async def answered(self) -> None:
        """The provider has accepted a probe."""

    async def refused(self, error: base.ProviderError) -> None:
        """The provider has no room."""


class _Open:
    """The gate of a provider without a key."""

    async def enter(self, deadline: float) -> bool:  # noqa: ARG002 - there is no waiting
        return False

    async def answered(self) -> None:
        pass

    async def refused(self, error: base.ProviderError) -> None:
        pass


OPEN: Final[Gate] = _Open()


class SharedGate:
    """The gate in Redis.

    :param secrets: what tells one account at one address from others. Only a digest of it leaves the process.
    """

    def __init__(self, redis: Named, backend: Backend, *secrets: str) -> None:
        digest = hashlib.sha256("\n".join(secrets).encode()).hexdigest()[:32]
        self._key = redis.names.backoff_key(digest)
        self._backend = backend
        self._scripts = {name: scripts.load(redis, __package__, name) for name in _SCRIPTS}

    async def enter(self, deadline: float) -> bool:
        """See :class:`Gate`."""
        clock = asyncio.get_running_loop().time
        while True:
            wait_ms, strikes, code = await self._run("gate_enter", _ms(PROBE))
            if not wait_ms:
                return bool(strikes)
            wait = wait_ms / 1000 * random.uniform(1, 1.1)  # noqa: S311 - spreads load, keeps no secret
            if clock() + wait >= deadline:
                raise _crowded(code.decode())
            await asyncio.sleep(wait)

    async def answered(self) -> None:
        """See :class:`Gate`."""
        await self._run("gate_answered")

    async def refused(self, error: base.ProviderError) -> None:
        """See :class:`Gate`."""
        asked = -1 if error.retry_after is None else _ms(min(error.retry_after, LONGEST_ASKED))
        await self._run("gate_refused", asked, _ms(FIRST), _ms(LONGEST), error.code)

    async def _run(self, name: str, *arguments: int | str) -> list[Any]:
        return await self._backend.insist(lambda: self._scripts[name]([self._key], arguments))


def _crowded(code: str) -> base.ProviderError:
    kind = base.RateLimitedError if code == base.RateLimitedError.code else base.OverloadedError
    return kind("others were told that there is no room, and time is short")


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
