"""One reply, without I/O and without a clock: provider events in, tokens and frames out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import msgspec

from protocol import stream

from .token_log import Token

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .providers import base

End = Literal["complete", "failed", "cancelled"]

MAX_TOKEN: Final = 4096
"""Characters in one token event. A provider that sends more at a time has it split."""

_FAILING_STOPS: Final = {"refusal": "refusal"}
"""Stop reasons that fail a reply whatever was sent, with the code."""

_EMPTY_STOPS: Final = {"model_context_window_exceeded": "context_window"}
"""Codes for a reply without any text. All other stop reasons with text complete it."""


class Decision(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """How a reply ends. Its JSON is the final marker in the log, so any worker can carry it out.

    :ivar stop_reason: the model's own, None if it did not come to an end.
    :ivar code: with ``failed`` only, for programs.
    """

    stop_reason: str | None = None
    usage: stream.Usage | None = None
    model: str = ""
    state: End = "complete"
    code: str = ""

    def unsaved(self) -> Decision:
        """The same for turns that are not in the database: then nothing is complete."""
        if self.state != "complete":
            return self
        return msgspec.structs.replace(self, state="failed", code="internal")


def encode_decision(decision: Decision) -> bytes:
    """JSON, as the final marker holds it."""
    return msgspec.json.encode(decision)


def decode_decision(marker: bytes) -> Decision:
    """Undo :func:`encode_decision`."""
    return msgspec.json.decode(marker, type=Decision)


class Reply:
    """What is known of one reply while it streams.

    :ivar next: index of the next token.
    :ivar decision: how it ends, once that is known.
    """

    def __init__(self, job: stream.Job, *, attempt: int, model: str, next_: int = 0, text: str = "") -> None:
        self.job = job
        self.attempt = attempt
        self.model = model
        self.next = next_
        self.decision: Decision | None = None
        self._parts = [text] if text else []

    @property
    def text(self) -> str:
        """All text so far."""
        return "".join(self._parts)

    def started(self, event: base.Started) -> bytes:
        """The frame of ``stream.started``."""
        self.model = event.model
        return stream.Started(self.job.message_id, self.attempt, event.model).frame(self.job.channel)

    def tokens(self, event: base.Text) -> Iterator[Token]:
        """The token of the next piece of text; several where it is very long."""
        for begin in range(0, len(event.text), MAX_TOKEN):
            text = event.text[begin : begin + MAX_TOKEN]
            job = self.job
            received = stream.TokenReceived(job.user_id, job.message_id, text, self.next)
            yield Token(self.next, text, received.frame(job.channel))
            self.next += 1
            self._parts.append(text)

    def final(self, event: base.Final) -> None:
        """The model came to its own end."""
        code = _FAILING_STOPS.get(event.stop_reason, "")
        if not code and not self.next:
            code = _EMPTY_STOPS.get(event.stop_reason, "empty")
        self.decision = Decision(
            event.stop_reason, event.usage, self.model, "failed" if code else "complete", code
        )

    def fail(self, code: str) -> None:
        """Something went wrong on the way."""
        self.decision = Decision(model=self.model, state="failed", code=code)

    def cancel(self) -> None:
        """Somebody asked to stop."""
        self.decision = Decision(model=self.model, state="cancelled")

    def terminal(self, decision: Decision) -> tuple[bytes, str]:
        """The frame of the one terminal event, and what it tells people of an error, empty for none."""
        event: stream.Completed | stream.Failed | stream.Cancelled
        job, error = self.job, ""
        if decision.state == "complete":
            usage = decision.usage
            event = stream.Completed(job.user_id, job.message_id, self.next, decision.stop_reason, usage)
        elif decision.state == "failed":
            error = stream.FAILED_TEXT
            event = stream.Failed(job.user_id, job.message_id, error, self.next > 0, decision.code)
        else:
            event = stream.Cancelled(job.message_id, self.next)
        return event.frame(job.channel), error
