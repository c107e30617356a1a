"""The events of Laravel's AI SDK (``laravel/ai``) on a channel, as its front ends read them by Echo.

A reply in this dialect is told in these words instead of our own. An entry of the log may have several
events, or none. They are published together, one frame a line (:data:`legato.protocol.wire.MANY`), so that
the offsets of the log stay those of the bus.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar, Final

import msgspec

from legato.protocol.messages import channel_event
from legato.protocol.stream import FAILED_TEXT, Usage

from . import projection
from .base import Opening, encode, text_of_json
from .telling import Telling

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from legato.protocol.stream import Decision, State
    from legato.protocol.transcript import Piece

    from .telling import Handlers

DIALECT: Final = "laravel-ai"
"""The name in a job."""

MAX_RESULT_BYTES: Final = 8000
"""Bytes of a tool's result. Hosted Pusher and Reverb refuse events of more than 10 KB."""

SNAPSHOT: Final = "stream_snapshot"

_REASONS: Final[Mapping[str, str]] = {
    "end_turn": "stop",
    "stop": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "tool_calls": "tool_calls",
    "max_tokens": "length",
    "length": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
    "content_filter": "content_filter",
}
"""Stop reason -> ``reason`` of ``stream_end``, which is ``unknown`` for the rest."""

_IDS: Final = {"text": "message_id", "reasoning": "reasoning_id"}


class LaravelAi(Telling):
    """The events of one reply, each a Pusher message. See :class:`.base.Translator`.

    :ivar count: events so far. Each has its number as ``index``, from 0.
    """

    def __init__(self, channel: str) -> None:
        super().__init__()
        self.count = 0
        self._channel = channel
        self._opening = Opening("", "")
        self._texts = 0

    def begin(self, opening: Opening) -> list[bytes]:
        """See :class:`.base.Translator`."""
        self._opening = opening
        self._start(None)
        return self._taken()

    def feed(self, pieces: Sequence[Piece]) -> list[bytes]:
        """See :class:`.base.Translator`."""
        self._tell(self._projection.feed(pieces))
        return self._taken()

    def end(self, decision: Decision) -> list[bytes]:
        """See :class:`.base.Translator`."""
        self.done = True
        self._tell(self._projection.end())
        if decision.state == "failed":
            self._add("stream_failed", {"message": FAILED_TEXT, "recoverable": False}, {"metadata": None})
        else:
            cancelled = decision.state == "cancelled"
            reason = "cancelled" if cancelled else _REASONS.get(decision.stop_reason or "", "unknown")
            self._add("stream_end", {"reason": reason, "usage": _usage(decision.usage or Usage())})
        return self._taken()

    def _add(self, kind: str, fields: Mapping[str, Any], behind: Mapping[str, Any] | None = None) -> None:
        """Add an event. ``behind``: fields that come behind the time."""
        self.count += 1
        message_id = self._opening.message_id
        data = {
            "id": f"{message_id}-e{self.count}",
            "invocation_id": message_id,
            "type": kind,
            **fields,
            "timestamp": self._opening.begun.at,
            **(behind or {}),
            "index": self.count - 1,
        }
        self._messages.append(channel_event(kind, self._channel, encode(data).decode()))

    def _start(self, _: projection.StepBegun | None) -> None:
        begun = self._opening.begun
        self._add("stream_start", {"provider": begun.provider, "model": begun.model}, {"metadata": None})

    # --- runs

    def _open(self, event: projection.RunOpened) -> None:
        if event.run.kind == "text":
            self._texts = event.run.number
        self._add(f"{event.run.kind}_start", self._id(event.run))

    def _grow(self, event: projection.RunGrew) -> None:
        self._add(
            f"{event.run.kind}_delta", {**self._id(event.run), "delta": event.delta}, _summary(event.run)
        )

    def _close(self, event: projection.RunClosed) -> None:
        self._add(f"{event.run.kind}_end", self._id(event.run), _summary(event.run))

    def _id(self, run: projection.Run) -> dict[str, str]:
        return {_IDS[run.kind]: f"{self._opening.message_id}-{run.kind[0]}{run.number}"}

    # --- calls and sources

    def _give_call(self, event: projection.CallGiven) -> None:
        call = {"tool_id": event.call, "tool_name": event.name, "arguments": _arguments(event.input)}
        self._add("tool_call", {**call, "reasoning_id": None})

    def _end_call(self, event: projection.CallEnded) -> None:
        result, truncated = _result(event.output) if event.ok else ("", {})
        self._add(
            "tool_result",
            {
                "tool_id": event.call,
                "tool_name": event.name,
                "result": result,
                "successful": event.ok,
                "error": None if event.ok else projection.error_of(event),
                "denied": event.denied,
            },
            truncated,
        )

    def _ask(self, event: projection.Asked) -> None:
        data = event.part.data
        approval = {
            "id": event.call,
            "tool": data["name"],
            "arguments": _arguments(data.get("input")),
            "reason": None,
        }
        self._add("tool_approval_request", {"approvals": [approval]})

    def _cite(self, event: projection.Cited) -> None:
        if event.url:
            text = f"{self._opening.message_id}-t{self._texts or 1}"
            self._add(
                "citation", {"message_id": text, "citation": {"title": event.title or None, "url": event.url}}
            )

    def _nothing(self, event: projection.ProjectedEvent) -> None:
        """The SDK has no event for it."""

    _HANDLERS: ClassVar[Handlers] = {
        projection.RunOpened: _open,
        projection.RunGrew: _grow,
        projection.RunClosed: _close,
        projection.StepBegun: _start,
        projection.Voided: _nothing,
        projection.CallBegun: _nothing,
        projection.CallGrew: _nothing,
        projection.CallGiven: _give_call,
        projection.CallCut: _nothing,
        projection.CallEnded: _end_call,
        projection.Asked: _ask,
        projection.Answered: _nothing,
        projection.Cited: _cite,
    }


def _summary(run: projection.Run) -> dict[str, None]:
    return {"summary": None} if run.kind == "reasoning" else {}


def _arguments(given: msgspec.Raw | None) -> Any:
    """The arguments of a call: none are a list, as PHP writes it."""
    return [] if given is None or bytes(given) == b"{}" else given


def _result(output: msgspec.Raw | None) -> tuple[Any, dict[str, bool]]:
    """A result, as text up to the limit if it is longer, and the field that says so."""
    if output is None:
        return "", {}
    raw = bytes(output)
    if len(raw) <= MAX_RESULT_BYTES:
        return output, {}
    return text_of_json(raw).encode()[:MAX_RESULT_BYTES].decode(errors="ignore"), {"truncated": True}


def _usage(usage: Usage) -> dict[str, int]:
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "cache_write_input_tokens": usage.cache_write,
        "cache_read_input_tokens": usage.cache_read,
        "reasoning_tokens": 0,
    }


class ReplyTeller:
    """Tells a reply entry by entry. The beginning comes with the first entry, or with the end."""

    def __init__(self, channel: str, opening: Opening) -> None:
        self._door = LaravelAi(channel)
        self._first = self._door.begin(opening)

    @property
    def count(self) -> int:
        """The number of events told so far."""
        return self._door.count - len(self._first)

    def tell(self, piece: Piece) -> bytes:
        """The frames of the next entry, one a line."""
        frames = self._door.feed((piece,))
        return self._with_first(frames) if frames else b""

    def end(self, decision: Decision) -> bytes:
        """The frames of the end, one a line."""
        return self._with_first(self._door.end(decision))

    def _with_first(self, frames: list[bytes]) -> bytes:
        first, self._first = self._first, []
        return b"\n".join(chain(first, frames))


class _Event(msgspec.Struct):
    type: str
    index: int
    delta: str = ""


class _EventFrame(msgspec.Struct):
    data: str


_frame_decoder: Final = msgspec.json.Decoder(_EventFrame)
_event_decoder: Final = msgspec.json.Decoder(_Event)


class LaravelSnapshot:
    """The reply so far, for a page that subscribes while it streams.

    :ivar text: all text.
    :ivar index: that of the next event.
    """

    def __init__(self, channel: str, opening: Opening, pieces: Iterable[Piece]) -> None:
        """:param pieces: of the entries that the log has."""
        self._channel = channel
        self._opening = opening
        teller = ReplyTeller(channel, opening)
        self._texts: list[str] = []
        for piece in pieces:
            teller.tell(piece)
            if isinstance(piece, str):
                self._texts.append(piece)
        self.index = teller.count

    @property
    def text(self) -> str:
        """All text."""
        return "".join(self._texts)

    def add(self, payload: bytes) -> None:
        """Add what was published behind that: the frames of one entry.

        :raises msgspec.DecodeError: they are not ours.
        """
        for line in payload.split(b"\n") if payload else ():
            event = _event_decoder.decode(_frame_decoder.decode(line).data)
            self.index = event.index + 1
            if event.type == "text_delta":
                self._texts.append(event.delta)

    def frame(self, status: State) -> bytes:
        """The event for the page."""
        message_id = self._opening.message_id
        data = {
            "id": f"{message_id}-s{self.index}",
            "invocation_id": message_id,
            "type": SNAPSHOT,
            "text": self.text,
            "status": status,
            "timestamp": self._opening.begun.at,
            "index": self.index,
        }
        return channel_event(SNAPSHOT, self._channel, encode(data).decode())
