"""One attempt at a reply: as many requests as it takes until the first text, and never one after it."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import TYPE_CHECKING, Final, NamedTuple

from legato.protocol.redis.retry import Backoff
from legato.protocol.stream import Usage
from legato.worker.providers import base
from legato.worker.providers.circuit_breaker import OPEN

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from legato.worker.providers.circuit_breaker import Gate

log: Final = logging.getLogger("legato.worker")

FIRST_DELAY: Final = 0.5
LONGEST_DELAY: Final = 8.0


class Policy(NamedTuple):
    """How a provider is used. ``retries``: further requests after a first one that failed before any text."""

    patience: base.Patience
    retries: int


class Waits:
    """How long to wait between the requests of one reply."""

    def __init__(self) -> None:
        self._backoff = Backoff(FIRST_DELAY, LONGEST_DELAY)
        self._hurries = True

    def after(self, error: base.ProviderError) -> float:
        """Seconds: as the provider said; none after a first fault of the connection; else ever longer."""
        if error.retry_after is not None:
            return error.retry_after
        if error.retry is base.Retry.NOW and self._hurries:
            self._hurries = False
            return 0.0
        return self._backoff.next()


async def attempt(
    provider: base.Provider, request: base.Request, policy: Policy, deadline: float, gate: Gate = OPEN
) -> AsyncGenerator[base.Event, None]:
    """The provider's events, from as many requests as it takes. At most one Started, before the first Text.

    What Used and Final say is the sum over the requests.

    :param deadline: time of the running loop by which a repeated request must have begun.
    :raises ProviderError: of the last request. A ``retry_after`` beyond the deadline makes it the last.
    """
    waits, meter, started, begun = Waits(), _Meter(), False, False
    for retries_left in reversed(range(policy.retries + 1)):
        try:
            async with aclosing(_request(provider, request, policy, deadline, gate)) as events:
                async for event in events:
                    begun = begun or isinstance(event, base.Text)
                    if not (started and isinstance(event, base.Started)):
                        yield meter.counted(event)
                    started = True
        except base.ProviderError as error:
            wait = waits.after(error)
            in_time = asyncio.get_running_loop().time() + wait < deadline
            if begun or error.retry is base.Retry.NEVER or not retries_left or not in_time:
                raise
            log.info("provider: %s (%s); asking again in %.1f s", error.code, error, wait)
        else:
            return
        meter.next_request()
        await asyncio.sleep(wait)


async def _request(
    provider: base.Provider, request: base.Request, policy: Policy, deadline: float, gate: Gate
) -> AsyncGenerator[base.Event, None]:
    """One request, at its time: before it and after it the gate is asked and told."""
    probe = await gate.enter(deadline)
    ended = False
    try:
        async with aclosing(base.watched(provider.stream(request), policy.patience)) as events:
            async for event in events:
                if probe:
                    await gate.answered()
                    probe = False
                ended = isinstance(event, base.Final)
                yield event
    except base.ProviderError as error:
        if error.crowded:
            await gate.refused(error)
        raise
    if not ended:
        raise base.CutError("the stream ended without an end")


class _Meter:
    """Adds up what the requests of one attempt have used."""

    def __init__(self) -> None:
        self._before = self._now = Usage()

    def counted(self, event: base.Event) -> base.Event:
        if isinstance(event, base.Used | base.Final):
            self._now = event.usage
            return event._replace(usage=base.total(self._before, self._now))
        return event

    def next_request(self) -> None:
        self._before, self._now = base.total(self._before, self._now), Usage()
