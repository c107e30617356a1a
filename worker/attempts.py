"""Asking the provider again, as long as nobody has seen anything of the reply."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import TYPE_CHECKING, Final, NamedTuple

from .backoff import delays
from .providers import base

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

log: Final = logging.getLogger("legato.worker")

FIRST_DELAY: Final = 0.5
LONGEST_DELAY: Final = 8.0


class Policy(NamedTuple):
    """How a provider is used. ``retries``: further requests after a first one that failed before any text."""

    patience: base.Patience
    retries: int


async def attempts(
    provider: base.Provider, request: base.Request, policy: Policy, deadline: float
) -> AsyncGenerator[base.Event, None]:
    """The provider's events, from as many requests as it takes. At most one Started, before the first Text.

    :param deadline: time of the running loop by which a repeated request must have begun.
    :raises ProviderError: of the last request. A ``retry_after`` beyond the deadline makes it the last.
    """
    waits = delays(FIRST_DELAY, LONGEST_DELAY)
    started = begun = False
    for retries_left in reversed(range(policy.retries + 1)):
        try:
            async with aclosing(base.watched(provider.stream(request), policy.patience)) as events:
                async for event in events:
                    begun = begun or isinstance(event, base.Text)
                    if not (started and isinstance(event, base.Started)):
                        yield event
                    started = True
        except base.ProviderError as error:
            wait = next(waits) if error.retry_after is None else error.retry_after
            in_time = asyncio.get_running_loop().time() + wait < deadline
            if begun or not error.retryable or not retries_left or not in_time:
                raise
            log.info("provider: %s (%s); asking again in %.1f s", error.code, error, wait)
        else:
            return
        await asyncio.sleep(wait)
