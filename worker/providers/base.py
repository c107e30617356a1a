"""What a model provider is: a request in, a stream of four kinds of events out, and a small error tree.

Foreign errors are translated inside each provider; nothing else in the worker knows an SDK.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol, TypeAlias

from legato.protocol.stream import Usage

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from legato.protocol.stream import Turn


class Retry(enum.Enum):
    """When the same request may succeed."""

    NOW = "now"
    """The fault was the connection's: waiting helps nobody."""
    LATER = "later"
    NEVER = "never"


class ProviderError(Exception):
    """The model will not (go on to) answer.

    :cvar code: what programs see in ``stream.failed``.
    :cvar retry: when the same request may succeed.
    :cvar crowded: whether the provider has no room, so that everybody with the same key had better wait.
    :ivar retry_after: seconds that the provider asked to wait, None if it did not say.
    """

    code: ClassVar[str] = "provider_error"
    retry: ClassVar[Retry] = Retry.NEVER
    crowded: ClassVar[bool] = False

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class RequestRefusedError(ProviderError):
    """The request itself is at fault: bad key, unknown model, not allowed."""


class TooLongError(ProviderError):
    """The conversation does not fit."""

    code = "context_window"


class RateLimitedError(ProviderError):
    """Too many requests of ours."""

    code = "rate_limited"
    retry = Retry.LATER
    crowded = True


class OverloadedError(ProviderError):
    """Too many requests of everybody's."""

    code = "overloaded"
    retry = Retry.LATER
    crowded = True


class UnavailableError(ProviderError):
    """Not reachable, or a fault of its own."""

    retry = Retry.LATER


class CutError(ProviderError):
    """The stream ended in the middle, whether the connection broke or closed politely."""

    code = "interrupted"
    retry = Retry.NOW


class StalledError(ProviderError):
    """The stream is open and silent."""

    code = "timeout"
    retry = Retry.NOW


class Started(NamedTuple):
    """The model has accepted the request; ``model`` is the name it gives itself."""

    model: str


class Text(NamedTuple):
    """The next piece of the reply, never empty."""

    text: str


class Used(NamedTuple):
    """What the request has used up to now, as far as the provider has said. The last one counts."""

    usage: Usage


class Final(NamedTuple):
    """The model's own end, and all that the request has used. No event follows."""

    stop_reason: str
    usage: Usage


def total(*parts: Usage) -> Usage:
    """The sum of what several requests have used."""
    return Usage(
        input=sum(part.input for part in parts),
        output=sum(part.output for part in parts),
        cache_read=sum(part.cache_read for part in parts),
        cache_write=sum(part.cache_write for part in parts),
    )


Event: TypeAlias = Started | Text | Used | Final


class Request(NamedTuple):
    """What to answer: the conversation so far and the new message.

    ``so_far`` is the reply's own text where it was cut off, ``go_on`` the user's turn that asks for the rest;
    both are empty at first. The answer may repeat some words (:mod:`legato.worker.replies.overlap`).
    ``attempt`` counts from 1.
    """

    message: str
    history: tuple[Turn, ...] = ()
    so_far: str = ""
    go_on: str = ""
    attempt: int = 1


class Provider(Protocol):
    """Where replies come from. One object per process, shared by all replies."""

    @property
    def model(self) -> str:
        """The model asked for."""

    def stream(self, request: Request) -> AsyncGenerator[Event, None]:
        """Answer: Started, any number of Text, Final, with Used between them; or a ProviderError anywhere.

        It makes one attempt. Closing the generator, or cancelling who waits for it, ends the request to
        the model at once.
        """

    async def aclose(self) -> None:
        """Close connections."""


class Patience(NamedTuple):
    """Seconds to wait for the first text, and for each further one."""

    first: float
    next: float
