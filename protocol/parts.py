"""The parts of a reply besides its text: reasoning, tool calls and their results, citations, steps.

All parts of a reply, text included, are entries of one log and share one number, the *offset*, from 0 without
gaps. Text also has its own number, the ``tokenIndex`` of ``token.received``. In a reply of nothing but text
the two are equal, and nothing of this module is used.

A part's event has the data of its struct below, and before it ``messageId``, ``offset`` and ``tokenIndex``.
That is the number of tokens before the part, so that a client can put parts and text in order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

import msgspec

from .messages import channel_event
from .stream import Usage  # noqa: TC001 - msgspec reads the annotation
from .wire import LOG_DATA, LOG_INDEX, LOG_KIND, LOG_TEXT

if TYPE_CHECKING:
    from collections.abc import Mapping

HIDDEN: Final = "hidden"
"""Kind of an entry that readers do not see: it only has an offset."""


class Part(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What all parts have in common.

    :cvar kind: of its log entry.
    :cvar event: the event's name on the channel.
    """

    kind: ClassVar[str]
    event: ClassVar[str]


class ReasoningReceived(Part, frozen=True):
    """The next piece of the model's reasoning."""

    kind = "reasoning"
    event = "reasoning.received"
    delta: str


class ToolStarted(Part, frozen=True):
    """The model begins to write the input of a tool call. Only if the agent streams inputs."""

    kind = "tool_start"
    event = "tool.started"
    call: str
    name: str


class ToolInputReceived(Part, frozen=True):
    """The next piece of a call's input: JSON text. Only if the agent streams inputs."""

    kind = "tool_delta"
    event = "tool.input_received"
    call: str
    delta: str


class ToolCalled(Part, frozen=True):
    """The model calls a tool. ``input`` is absent if the agent hides it.

    :ivar call: unique id of the call; the tool's idempotency key.
    """

    kind = "tool_ready"
    event = "tool.called"
    call: str
    name: str
    input: Any = msgspec.UNSET


class ApprovalRequested(Part, frozen=True):
    """The call waits for a person, until ``expires_at`` (Unix time in seconds)."""

    kind = "tool_approval"
    event = "tool.approval_requested"
    call: str
    name: str
    expires_at: int
    input: Any = msgspec.UNSET


class ApprovalDecided(Part, frozen=True):
    """A person has approved or refused the call, or nobody did in time (``expired``)."""

    kind = "tool_decision"
    event = "tool.approval_decided"
    call: str
    approve: bool
    note: str = ""
    expired: bool = False


class ToolFinished(Part, frozen=True):
    """The call's result: ``output`` (any JSON) if ``ok``, else ``error``. Absent if the agent hides them.

    :ivar denied: it was not called, because it was not approved.
    """

    kind = "tool_result"
    event = "tool.finished"
    call: str
    name: str
    ok: bool
    output: Any = msgspec.UNSET
    error: str = ""
    denied: bool = False


class CitationReceived(Part, frozen=True):
    """A source of the text before it.

    :ivar text: the cited words.
    :ivar source: an identifier of the document, where there is no address.
    """

    kind = "citation"
    event = "citation.received"
    url: str = ""
    title: str = ""
    text: str = ""
    source: str = ""


class StepCompleted(Part, frozen=True):
    """A request to the model has ended, with its own usage. ``step`` counts from 1."""

    kind = "step"
    event = "step.completed"
    step: int
    stop_reason: str
    usage: Usage


class Retracted(Part, frozen=True):
    """The parts with offsets from ``start`` up to this one are void: their attempt broke off. Never text."""

    kind = "retract"
    event = "parts.retracted"
    start: int = msgspec.field(name="from")


KINDS: Final[Mapping[str, type[Part]]] = {
    part.kind: part
    for part in (
        ReasoningReceived,
        ToolStarted,
        ToolInputReceived,
        ToolCalled,
        ApprovalRequested,
        ApprovalDecided,
        ToolFinished,
        CitationReceived,
        StepCompleted,
        Retracted,
    )
}
"""Kind of a log entry -> its struct."""


class LogEntry(NamedTuple):
    """One entry of a log, as stored.

    :ivar kind: empty for text.
    :ivar data: the text, or the part as JSON, UTF-8; empty for :data:`HIDDEN`.
    :ivar token_index: of the text, or of the next text. None for text whose index is its offset.
    """

    kind: str
    data: bytes
    token_index: int | None


_KIND: Final = LOG_KIND.encode()
_DATA: Final = LOG_DATA.encode()
_INDEX: Final = LOG_INDEX.encode()
_TEXT: Final = LOG_TEXT.encode()


def decode_entry(fields: Mapping[bytes, bytes]) -> LogEntry | None:
    """Decode the fields of a log entry; None for the final marker.

    :raises ValueError: they are not an entry.
    """
    index = fields.get(_INDEX)
    token_index = None if index is None else int(index)
    if (text := fields.get(_TEXT)) is not None:
        return LogEntry("", text, token_index)
    if (kind := fields.get(_KIND)) is None:
        return None
    if token_index is None:
        raise ValueError("a part without the index of its next token")
    return LogEntry(kind.decode(), fields.get(_DATA, b""), token_index)


class _Called(msgspec.Struct):
    call: str


_called_decoder: Final = msgspec.json.Decoder(_Called)


def call_of(data: bytes) -> str:
    """The call that a part belongs to, of a kind that has one.

    :raises msgspec.DecodeError: it has none.
    """
    return _called_decoder.decode(data).call


def encode(part: Part) -> bytes:
    """The part as JSON, for the log and :func:`frame`."""
    return msgspec.json.encode(part)


def event_data(data: bytes, message_id: str, offset: int, token_index: int) -> bytes:
    """The data of a part's event: ``data`` of :func:`encode` with what all events of parts begin with.

    :param message_id: one that needs no escapes (:data:`.jobs.MESSAGE_ID`).
    """
    rest = data[1:] if data == b"{}" else b"," + data[1:]
    head = b'{"messageId":"%b","offset":%d,"tokenIndex":%d' % (message_id.encode(), offset, token_index)
    return head + rest


def frame(kind: str, data: bytes, channel: str, message_id: str, offset: int, token_index: int) -> bytes:
    """The Pusher message of a part; empty if readers do not see it.

    :raises KeyError: the kind is unknown.
    """
    if kind == HIDDEN:
        return b""
    body = event_data(data, message_id, offset, token_index)
    return channel_event(KINDS[kind].event, channel, body.decode())
