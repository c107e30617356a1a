"""One reply, without I/O and without a clock: turns provider events into tokens and frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from legato.protocol import stream
from legato.protocol.text import Joiner
from legato.worker.agents import shown
from legato.worker.limits import MAX_MODEL_NAME_CHARACTERS, MAX_STOP_REASON_CHARACTERS, MAX_TOKEN_CHARACTERS
from legato.worker.providers import base

from . import overlap
from .dialect import transcript_of
from .options import with_options
from .transcript import NewPart, new_part

if TYPE_CHECKING:
    from collections.abc import Iterable

    from legato.protocol.jobs import Job

    from .log import Claim, LogRecord, StoredLog
    from .steps import Steps

T = TypeVar("T")
Decision = stream.Decision

_FAILING_STOPS: Final = {"refusal": "refusal"}
"""Stop reasons that fail a reply even if it has text -> code."""

_EMPTY_STOPS: Final = {
    "model_context_window_exceeded": "context_window",
    "max_tokens": "max_tokens",
    "max_steps": "max_steps",
}
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

    :ivar written: the entries so far.
    :ivar decision: how it ends, once decided.
    :ivar steps: of an agent's reply; None for any other.
    :ivar options: what the request wants otherwise than the settings say.
    :ivar exact: it comes from a handler, which goes on by itself where it was cut off, and shows everything.
    """

    def __init__(
        self, job: Job, claim: Claim, *, model: str, log: StoredLog | None = None, begun: bytes = b""
    ) -> None:
        """:param log: what ``claim`` found, if it found anything.

        :param begun: how the reply has begun, if it is told in a dialect.
        """
        self.job = job
        self.model = base.short_name(model, MAX_MODEL_NAME_CHARACTERS)
        self.written = transcript_of(job, claim.next, log, begun)
        self.decision: Decision | None = None
        self.steps: Steps | None = None
        self.options = base.PLAIN
        self.exact = False
        self._begin(claim.attempt, decode_usage(claim.usage))

    def _begin(self, attempt: int, used: stream.Usage | None) -> None:
        self.attempt = attempt
        self._used_before = used
        self._used_now: stream.Usage | None = None
        self._begin_text()

    def _begin_text(self) -> None:
        self._joiner = Joiner()
        self._overlap = overlap.OverlapFilter("" if self.exact else self._so_far)

    def use(self, steps: Steps, options: base.RequestOptions) -> None:
        """Make it an agent's reply."""
        self.steps, self.options = steps, options
        self._begin_text()

    def follow_exactly(self) -> None:
        """Make it a handler's reply."""
        self.exact = True
        self._begin_text()

    def next_attempt(self, attempt: int) -> None:
        """Start another attempt, which continues the text so far. Text that was held back is discarded."""
        self._begin(attempt, self.usage)
        if self.steps is not None:
            self.steps.begin_request()

    def next_request(self) -> None:
        """Start another request of the same attempt, which has no text yet. Usage adds up."""
        self._used_before, self._used_now = self.usage, None
        if self.steps is not None:
            self.steps.begin_request()
        self._begin_text()

    @property
    def next(self) -> int:
        """Offset of the next entry."""
        return self.written.next

    @property
    def text(self) -> str:
        """All text so far."""
        return self.written.text()

    @property
    def _so_far(self) -> str:
        """The text of the request that was cut off."""
        return self.written.text(0 if self.steps is None else self.steps.text_from)

    @property
    def usage(self) -> stream.Usage | None:
        """The total usage of all attempts, as far as known; None if unknown."""
        known = [usage for usage in (self._used_before, self._used_now) if usage is not None]
        return base.bounded(base.total(*known)) if known else None

    def encoded_usage(self) -> bytes:
        """:attr:`usage` as JSON, the form stored in the message's hash."""
        return msgspec.json.encode(self.usage or stream.Usage())

    def request(self) -> base.ProviderRequest:
        """The next request to the model."""
        job, text, steps = self.job, self._so_far, self.steps
        request = base.ProviderRequest(
            job.message,
            job.history,
            text,
            overlap.continuation(text),
            self.attempt,
            options=self.options,
            message_id=job.message_id,
        )
        if steps is not None:
            request = request._replace(steps=tuple(steps.finished), tools=steps.tools)
        return with_options(request, job)

    def started(self, event: base.RequestAccepted) -> bytes:
        """The frame of ``stream.started``; empty in a dialect, which has its own."""
        self.model = base.short_name(event.model, MAX_MODEL_NAME_CHARACTERS)
        if self.job.dialect:
            return b""
        job = self.job
        return stream.Started(job.message_id, self.attempt, self.model, job.history_cut).frame(job.channel)

    def begun(self, provider: str, now: float) -> bytes:
        """How the reply has begun, as JSON, if nothing has begun it before. Behind :meth:`started`.

        :param now: Unix time.
        """
        cut = self.job.history_cut
        return msgspec.json.encode(
            stream.Begun(self.model, provider, int(now), self.attempt, history_cut=cut)
        )

    def tokens(self, text: str) -> list[LogRecord]:
        """The tokens of the next piece of text: usually one, several if it is very long, none if held back.

        Text is held back while it may repeat the previous attempt's, and half of a surrogate pair until
        the other half arrives.
        """
        piece = self._overlap.feed(self._joiner.feed(text))
        if 0 < len(piece) <= MAX_TOKEN_CHARACTERS:
            return [self.written.add_text(piece)]
        return self._split(piece)

    def rest(self) -> list[LogRecord]:
        """The tokens of text that was held back. Call it before :meth:`final`."""
        return self._split(self._overlap.feed(self._joiner.rest()) + self._overlap.rest())

    def _split(self, piece: str) -> list[LogRecord]:
        return [
            self.written.add_text(piece[begin : begin + MAX_TOKEN_CHARACTERS])
            for begin in range(0, len(piece), MAX_TOKEN_CHARACTERS)
        ]

    def part(self, event: base.Event) -> list[LogRecord]:
        """The entries for any other event; none for a plain reply."""
        if self.steps is not None:
            part = self.steps.take(event)
        elif self.exact:
            part = shown.part_of(event, shown.EVERYTHING, {})
        else:
            return []
        if part is None:
            return []
        return [*self.rest(), self.written.add(new_part(part))]

    def add(self, new: Iterable[NewPart]) -> list[LogRecord]:
        """The entries of these parts."""
        return [self.written.add(part) for part in new]

    def used(self, event: base.Used) -> None:
        """Record the usage of this attempt so far."""
        self._used_now = event.usage

    def final(self, event: base.Final) -> None:
        """The model has ended: decide how the reply ends."""
        self._used_now = event.usage
        self.end(event.stop_reason)

    def step_ended(self, event: base.Final) -> None:
        """A request has ended, and another one follows."""
        self._used_now = event.usage
        self.next_request()

    def end(self, stop_reason: str) -> None:
        """Decide how the reply ends, by the model's stop reason."""
        code = _FAILING_STOPS.get(stop_reason, "")
        if not code and not self.written.tokens:
            code = _EMPTY_STOPS.get(stop_reason, "empty")
        state: stream.End = "failed" if code else "complete"
        self._decide(state, code, base.short_name(stop_reason, MAX_STOP_REASON_CHARACTERS))

    def fail(self, code: str) -> None:
        """Decide that the reply fails."""
        self._decide("failed", code)

    def cancel(self) -> None:
        """Decide that the reply is cancelled."""
        self._decide("cancelled")

    def _decide(self, state: stream.End, code: str = "", stop_reason: str | None = None) -> None:
        tokens = None if self.written.plain else self.written.tokens
        self.decision = Decision(stop_reason, self.usage, self.model, state, code, tokens)

    def terminal(self, decision: Decision) -> tuple[bytes, str]:
        """The frame of the terminal event, and the error text for users, empty for none."""
        return self.written.end(decision), stream.FAILED_TEXT if decision.state == "failed" else ""
