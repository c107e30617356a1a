"""One reply, without I/O and without a clock: provider events in, tokens and frames out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from legato.protocol import stream
from legato.protocol.text import Joiner, well_formed
from legato.worker.providers import base

from . import overlap as seam
from .log import GapError, Token

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .log import Claim

T = TypeVar("T")
Decision = stream.Decision

MAX_TOKEN: Final = 4096
"""Characters in one token event. A provider that sends more at a time has it split."""

_FAILING_STOPS: Final = {"refusal": "refusal"}
"""Stop reasons that fail a reply whatever was sent, with the code."""

_EMPTY_STOPS: Final = {"model_context_window_exceeded": "context_window"}
"""Codes for a reply without any text. All other stop reasons with text complete it."""


def encode_decision(decision: Decision) -> bytes:
    """JSON, as the final marker holds it."""
    return msgspec.json.encode(decision)


def decode_decision(marker: bytes) -> Decision | None:
    """Undo :func:`encode_decision`; None for what it cannot have made."""
    return _decoded(marker, Decision)


def decode_usage(value: bytes) -> stream.Usage | None:
    """Undo :meth:`Reply.encoded_usage`; None for what it cannot have made, such as nothing."""
    return _decoded(value, stream.Usage)


def _decoded(value: bytes, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(value, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError):  # no reason to lose a reply
        return None


class Reply:
    """What is known of one reply while it streams.

    :ivar next: index of the next token.
    :ivar decision: how it ends, once that is known.
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
        self._seam = seam.Seam(self.text)
        self._used_before = used
        self._used_now: stream.Usage | None = None

    def begin_again(self, attempt: int) -> None:
        """Another attempt goes on from the text so far. What was held back is forgotten: nobody saw it."""
        self._begin(attempt, self.usage)

    def ask_again(self) -> None:
        """Another request of the same attempt, which has brought no text yet: its usage adds up."""
        self._used_before, self._used_now = self.usage, None

    @property
    def text(self) -> str:
        """All text so far."""
        return "".join(self._parts)

    @property
    def usage(self) -> stream.Usage | None:
        """What all attempts have used, as far as it is known; None if nothing is."""
        known = [usage for usage in (self._used_before, self._used_now) if usage is not None]
        return base.total(*known) if known else None

    def encoded_usage(self) -> bytes:
        """:attr:`usage` as JSON, as the message's hash holds it."""
        return msgspec.json.encode(self.usage or stream.Usage())

    def request(self) -> base.Request:
        """What to ask the model."""
        job, text = self.job, self.text
        return base.Request(job.message, job.history, text, seam.go_on(text), self.attempt)

    def started(self, event: base.Started) -> bytes:
        """The frame of ``stream.started``."""
        self.model = well_formed(event.model)
        return stream.Started(self.job.message_id, self.attempt, self.model).frame(self.job.channel)

    def tokens(self, text: str) -> list[Token]:
        """The token of the next piece of text; several where it is very long, none where it repeats.

        A provider may split an emoji: its first half waits for the second.
        """
        piece = self._seam.feed(self._joiner.feed(text))
        if 0 < len(piece) <= MAX_TOKEN:
            return [self._add(piece)]
        return self._split(piece)

    def rest(self) -> list[Token]:
        """What was held back, as a repetition or half a character. Call it before :meth:`final`."""
        return self._split(self._seam.feed(self._joiner.rest()) + self._seam.rest())

    def _split(self, piece: str) -> list[Token]:
        return [self._add(piece[begin : begin + MAX_TOKEN]) for begin in range(0, len(piece), MAX_TOKEN)]

    def _add(self, text: str) -> Token:
        token = self._token(self.next, text)
        self.next += 1
        self._parts.append(text)
        return token

    def _token(self, index: int, text: str) -> Token:
        job = self.job
        received = stream.TokenReceived(job.user_id, job.message_id, text, index)
        return Token(index, text, received.frame(self._channel))

    def again(self, first: int, most: int) -> list[Token]:
        """The tokens from index ``first`` on once more, the very same, but no more than ``most``.

        :raises GapError: their texts are not known, for the log that the claim found was not whole.
        """
        if len(self._parts) != self.next:
            raise GapError(f"{self.job.message_id}: the text from token {first} on is not known", first)
        return [
            self._token(index, self._parts[index]) for index in range(first, min(first + most, self.next))
        ]

    def keep(self, count: int) -> None:
        """Forget the tokens from index ``count`` on: they were never written, so nobody has read them."""
        if len(self._parts) == self.next:
            del self._parts[count:]
            self.next = len(self._parts)

    def used(self, event: base.Used) -> None:
        """What this attempt has used up to now."""
        self._used_now = event.usage

    def final(self, event: base.Final) -> None:
        """The model came to its own end."""
        self._used_now = event.usage
        code = _FAILING_STOPS.get(event.stop_reason, "")
        if not code and not self.next:
            code = _EMPTY_STOPS.get(event.stop_reason, "empty")
        state: stream.End = "failed" if code else "complete"
        self.decision = Decision(well_formed(event.stop_reason), self.usage, self.model, state, code)

    def fail(self, code: str) -> None:
        """Something went wrong on the way."""
        self.decision = Decision(usage=self.usage, model=self.model, state="failed", code=code)

    def cancel(self) -> None:
        """Somebody asked to stop."""
        self.decision = Decision(usage=self.usage, model=self.model, state="cancelled")

    def terminal(self, decision: Decision) -> tuple[bytes, str]:
        """The frame of the one terminal event, and what it tells people of an error, empty for none."""
        job = self.job
        event = stream.ending(decision, job.user_id, job.message_id, self.next)
        return event.frame(job.channel), stream.FAILED_TEXT if decision.state == "failed" else ""
