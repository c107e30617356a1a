"""One reply, without I/O and without a clock: turns provider events into tokens and frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from legato.protocol import stream
from legato.protocol.text import Joiner, well_formed
from legato.worker.limits import MAX_TOKEN_CHARACTERS
from legato.worker.providers import base

from . import overlap
from .log import GapError, Token

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .log import Claim

T = TypeVar("T")
Decision = stream.Decision

_FAILING_STOPS: Final = {"refusal": "refusal"}
"""Stop reasons that fail a reply even if it has text -> code."""

_EMPTY_STOPS: Final = {"model_context_window_exceeded": "context_window"}
"""Stop reasons of a reply without text -> code. Any other stop reason completes a reply that has text."""


def encode_decision(decision: Decision) -> bytes:
    """The value of the final marker: JSON."""
    return msgspec.json.encode(decision)


def decode_decision(marker: bytes) -> Decision | None:
    """The inverse of :func:`encode_decision`; None for an invalid value."""
    return _decoded(marker, Decision)


def decode_usage(value: bytes) -> stream.Usage | None:
    """The inverse of :meth:`Reply.encoded_usage`; None for an invalid or empty value."""
    return _decoded(value, stream.Usage)


def _decoded(value: bytes, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(value, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError):  # not worth losing a reply
        return None


class Reply:
    """The state of one reply while it streams.

    :ivar next: index of the next token.
    :ivar decision: how it ends, once decided.
    """

    def __init__(self, job: stream.Job, claim: Claim, *, model: str, texts: Sequence[str] = ()) -> None:
        """:param texts: of the tokens that ``claim`` found."""
        self.job = job
        self.model = model
        self._channel = job.channel
        self.next = claim.next
        self.decision: Decision | None = None
        self._parts = list(texts)
        self._begin(claim.attempt, decode_usage(claim.usage))

    def _begin(self, attempt: int, used: stream.Usage | None) -> None:
        self.attempt = attempt
        self._joiner = Joiner()
        self._overlap = overlap.OverlapFilter(self.text)
        self._used_before = used
        self._used_now: stream.Usage | None = None

    def next_attempt(self, attempt: int) -> None:
        """Start another attempt, which continues the text so far. Text that was held back is discarded."""
        self._begin(attempt, self.usage)

    def next_request(self) -> None:
        """Start another request of the same attempt, which has no text yet. Usage adds up."""
        self._used_before, self._used_now = self.usage, None

    @property
    def text(self) -> str:
        """All text so far."""
        return "".join(self._parts)

    @property
    def usage(self) -> stream.Usage | None:
        """The total usage of all attempts, as far as known; None if unknown."""
        known = [usage for usage in (self._used_before, self._used_now) if usage is not None]
        return base.total(*known) if known else None

    def encoded_usage(self) -> bytes:
        """:attr:`usage` as JSON, the form stored in the message's hash."""
        return msgspec.json.encode(self.usage or stream.Usage())

    def request(self) -> base.ProviderRequest:
        """The next request to the model."""
        job, text = self.job, self.text
        return base.ProviderRequest(job.message, job.history, text, overlap.continuation(text), self.attempt)

    def started(self, event: base.RequestAccepted) -> bytes:
        """The frame of ``stream.started``."""
        self.model = well_formed(event.model)
        return stream.Started(self.job.message_id, self.attempt, self.model).frame(self.job.channel)

    def tokens(self, text: str) -> list[Token]:
        """The tokens of the next piece of text: usually one, several if it is very long, none if held back.

        Text is held back while it may repeat the previous attempt's, and half of a surrogate pair until
        the other half arrives.
        """
        piece = self._overlap.feed(self._joiner.feed(text))
        if 0 < len(piece) <= MAX_TOKEN_CHARACTERS:
            return [self._add(piece)]
        return self._split(piece)

    def rest(self) -> list[Token]:
        """The tokens of text that was held back. Call it before :meth:`final`."""
        return self._split(self._overlap.feed(self._joiner.rest()) + self._overlap.rest())

    def _split(self, piece: str) -> list[Token]:
        return [
            self._add(piece[begin : begin + MAX_TOKEN_CHARACTERS])
            for begin in range(0, len(piece), MAX_TOKEN_CHARACTERS)
        ]

    def _add(self, text: str) -> Token:
        token = self._token(self.next, text)
        self.next += 1
        self._parts.append(text)
        return token

    def _token(self, index: int, text: str) -> Token:
        job = self.job
        received = stream.TokenReceived(job.user_id, job.message_id, text, index)
        return Token(index, text, received.frame(self._channel))

    def tokens_from(self, first: int, most: int) -> list[Token]:
        """Up to ``most`` tokens from index ``first`` on, as they were first written.

        :raises GapError: their text is unknown, because the log was incomplete at the claim.
        """
        if len(self._parts) != self.next:
            raise GapError(f"{self.job.message_id}: the text from token {first} on is not known", first)
        return [
            self._token(index, self._parts[index]) for index in range(first, min(first + most, self.next))
        ]

    def truncate(self, count: int) -> None:
        """Discard the tokens from index ``count`` on, which were never written."""
        if len(self._parts) == self.next:
            del self._parts[count:]
            self.next = len(self._parts)

    def used(self, event: base.Used) -> None:
        """Record the usage of this attempt so far."""
        self._used_now = event.usage

    def final(self, event: base.Final) -> None:
        """The model has ended: decide how the reply ends."""
        self._used_now = event.usage
        code = _FAILING_STOPS.get(event.stop_reason, "")
        if not code and not self.next:
            code = _EMPTY_STOPS.get(event.stop_reason, "empty")
        state: stream.End = "failed" if code else "complete"
        self.decision = Decision(well_formed(event.stop_reason), self.usage, self.model, state, code)

    def fail(self, code: str) -> None:
        """Decide that the reply fails."""
        self.decision = Decision(usage=self.usage, model=self.model, state="failed", code=code)

    def cancel(self) -> None:
        """Decide that the reply is cancelled."""
        self.decision = Decision(usage=self.usage, model=self.model, state="cancelled")

    def terminal(self, decision: Decision) -> tuple[bytes, str]:
        """The frame of the terminal event, and the error text for users, empty for none."""
        job = self.job
        event = stream.ending(decision, job.user_id, job.message_id, self.next)
        return event.frame(job.channel), stream.FAILED_TEXT if decision.state == "failed" else ""
