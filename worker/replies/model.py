"""How this process asks its model: the provider, its time limits, and when a failed request is repeated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from legato.protocol.redis.retry import Backoff
from legato.worker.limits import MODEL_RETRY_FIRST_SECONDS, MODEL_RETRY_LONGEST_SECONDS
from legato.worker.providers import base
from legato.worker.providers.circuit_breaker import ALWAYS_CLOSED

if TYPE_CHECKING:
    from legato.worker.providers.circuit_breaker import CircuitBreaker


class AttemptPolicy(NamedTuple):
    """Time limits and retries.

    :ivar retries: further requests in one attempt, as long as none has brought text.
    """

    patience: base.Patience
    retries: int


@dataclass(frozen=True, kw_only=True)
class Model:
    """The model that answers. One per process.

    :param tries: attempts at one reply, those of other workers included.
    :param provider_name: as the settings have it.
    :param continues: whether a reply that was cut off is continued; otherwise it fails.
    """

    provider: base.Provider
    policy: AttemptPolicy
    tries: int
    provider_name: str = ""
    continues: bool = True
    breaker: CircuitBreaker = ALWAYS_CLOSED


class RetryDelays:
    """How long to wait before each further request."""

    def __init__(self) -> None:
        self._backoff = Backoff(MODEL_RETRY_FIRST_SECONDS, MODEL_RETRY_LONGEST_SECONDS)
        self._immediate = True

    def after(self, error: base.ProviderError) -> float:
        """Seconds: what the provider asked for; 0 after the first connection error; else growing."""
        if error.retry_after is not None:
            return error.retry_after
        if error.retry is base.Retry.NOW and self._immediate:
            self._immediate = False
            return 0.0
        return self._backoff.next()
