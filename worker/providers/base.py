"""The interface of model providers: a request, a stream of four kinds of events, and the errors.

Each provider translates the errors of its SDK; no other module of the worker knows one.
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
    """The connection failed: there is no reason to wait."""
    LATER = "later"
    NEVER = "never"


class ProviderError(Exception):
    """The request has failed, or the stream has ended early.

    :cvar code: the ``code`` of ``stream.failed``.
    :cvar retry: when the same request may succeed.
    :cvar crowded: whether the provider is overloaded, so that all processes with the same key should wait.
    :ivar retry_after: seconds that the provider asked to wait; None if it gave none.
    """

    code: ClassVar[str] = "provider_error"
    retry: ClassVar[Retry] = Retry.NEVER
    crowded: ClassVar[bool] = False

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class RequestRefusedError(ProviderError):
    """The request is invalid: bad key, unknown model, no permission."""


class TooLongError(ProviderError):
    """The conversation exceeds the context window."""

    code = "context_window"


class RateLimitedError(ProviderError):
    """Too many requests by this account."""

    code = "rate_limited"
    retry = Retry.LATER
    crowded = True


class OverloadedError(ProviderError):
    """The provider is overloaded."""

    code = "overloaded"
    retry = Retry.LATER
    crowded = True


class ProviderUnavailableError(ProviderError):
    """The provider is unreachable or has an internal error."""

    retry = Retry.LATER


class CutError(ProviderError):
    """The stream ended before the model did, by an error or by a regular close of the connection."""

    code = "interrupted"
    retry = Retry.NOW


class StalledError(ProviderError):
    """The stream is open, but no text arrives."""

    code = "timeout"
    retry = Retry.NOW


class RequestAccepted(NamedTuple):
    """The model has accepted the request. ``model`` is the name that the provider reports."""

    model: str


class Text(NamedTuple):
    """The next piece of the reply, never empty."""

    text: str


class Used(NamedTuple):
    """The usage of the request so far. Cumulative: the last one counts."""

    usage: Usage


class Final(NamedTuple):
    """The model has ended, with the total usage of the request. No event follows."""

    stop_reason: str
    usage: Usage


def total(*parts: Usage) -> Usage:
    """The total usage of several requests."""
    return Usage(
        input=sum(part.input for part in parts),
        output=sum(part.output for part in parts),
        cache_read=sum(part.cache_read for part in parts),
        cache_write=sum(part.cache_write for part in parts),
    )


Event: TypeAlias = RequestAccepted | Text | Used | Final


class ProviderRequest(NamedTuple):
    """The conversation so far and the message to answer.

    :ivar so_far: the text of the reply up to where it was cut off; empty at first.
    :ivar continuation: the user's turn that asks for the rest; empty at first. The answer may repeat some
        words (:mod:`legato.worker.replies.overlap`).
    :ivar attempt: counts from 1.
    """

    message: str
    history: tuple[Turn, ...] = ()
    so_far: str = ""
    continuation: str = ""
    attempt: int = 1


class Provider(Protocol):
    """A source of replies. One object per process, shared by all replies."""

    @property
    def model(self) -> str:
        """The model that is requested."""

    def stream(self, request: ProviderRequest) -> AsyncGenerator[Event, None]:
        """Send one request: yields RequestAccepted, any number of Text, Final, and Used anywhere between.

        Closing the generator, or cancelling the task that waits for it, closes the request at once.

        :raises ProviderError: at any point.
        """

    async def aclose(self) -> None:
        """Close connections."""


class Patience(NamedTuple):
    """Seconds to wait for the first text, and for each further one."""

    first: float
    next: float


class TimeOuts(NamedTuple):
    """Seconds to connect, and the longest wait for text: no connection is given up before."""

    connect: float = 5.0
    silence: float = 0.0


DEFAULT_TIME_OUTS = TimeOuts()
