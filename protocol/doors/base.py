"""What all doors share: the interface of a translation, and how its messages become the body of an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Protocol, TypeGuard

import msgspec

from legato.protocol.parts import Retracted
from legato.protocol.stream import Begun
from legato.protocol.transcript import VisiblePart

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from legato.protocol.stream import Decision, UserId
    from legato.protocol.transcript import Piece

EVENT_STREAM: Final = "text/event-stream; charset=utf-8"
KEEP_ALIVE: Final = b": keep-alive\n\n"

encode: Final = msgspec.json.Encoder().encode
"""Compact JSON, UTF-8."""

_offset_decoder: Final = msgspec.json.Decoder(int)
_text_decoder: Final = msgspec.json.Decoder(str)
_truth_decoder: Final = msgspec.json.Decoder(bool)


class Opening(NamedTuple):
    """What is known of a reply before its first entry."""

    message_id: str
    user_id: UserId
    begun: Begun = Begun()


class Translator(Protocol):
    """One reply in the words of one protocol, for one reader.

    The messages depend on what was fed alone, not on how it was cut, nor on the time: a replay is identical.
    To go on from offset n, feed the pieces before it to a new translator, and throw away what it answers.

    :ivar done: no message follows any more: the body ends.
    """

    done: bool

    def begin(self, opening: Opening) -> list[bytes]:
        """The messages before the first entry. Call it once, before the others."""

    def feed(self, pieces: Sequence[Piece]) -> list[bytes]:
        """The messages for further entries: one piece per offset, from offset 0 on without gaps."""

    def end(self, decision: Decision) -> list[bytes]:
        """The messages that close what is open and say how the reply ended. Call it once, last."""


class Framing(NamedTuple):
    """How messages become the body of an HTTP answer.

    :ivar head: before the first message.
    :ivar before: and :ivar after: around each message.
    :ivar tail: behind the last message of a translation that is done.
    :ivar keep_alive: in times of silence; empty for nothing.
    :ivar on_loss: how to give up before the end of the reply: ``break`` the connection, because a clean end
        would look like success, or ``end`` the body, because the client comes back.
    """

    content_type: str = EVENT_STREAM
    head: bytes = b""
    before: bytes = b"data: "
    after: bytes = b"\n\n"
    tail: bytes = b""
    keep_alive: bytes = KEEP_ALIVE
    on_loss: Literal["break", "end"] = "break"

    def join(self, messages: Iterable[bytes]) -> bytes:
        """The messages as they are written."""
        return b"".join([self.before + message + self.after for message in messages])


class WithText:
    """JSON objects that differ in one text only."""

    __slots__ = ("_before",)

    def __init__(self, fields: Mapping[str, object], name: str) -> None:
        """:param name: of the text, which comes behind the ``fields``."""
        self._before = encode({**fields, name: ""})[: -len('""}')]

    def of(self, text: str) -> bytes:
        """The object with this text."""
        return self._before + encode(text) + b"}"


def text_of(part: VisiblePart, name: str, default: str = "") -> str:
    """A field of a part that is a text."""
    raw = part.data.get(name)
    return default if raw is None else _text_decoder.decode(raw)


def text_of_json(raw: bytes) -> str:
    """A JSON value as a text: what a string says, and the JSON of anything else."""
    return _text_decoder.decode(raw) if raw.startswith(b'"') else raw.decode()


def truth_of(part: VisiblePart, name: str) -> bool:
    """A field of a part that is true or false; false if it is absent."""
    raw = part.data.get(name)
    return raw is not None and _truth_decoder.decode(raw)


def number_of(part: VisiblePart, name: str) -> int:
    """A field of a part that is an integer."""
    return _offset_decoder.decode(part.data[name])


def is_retraction(piece: Piece) -> TypeGuard[VisiblePart]:
    """Whether the piece takes back others."""
    return isinstance(piece, VisiblePart) and piece.kind == Retracted.kind


def corrected(pieces: Sequence[Piece]) -> list[Piece]:
    """The pieces with None for those that others of them retract, and for the retractions.

    For a protocol that cannot take anything back, before a replay.
    """
    found: list[Piece] = list(pieces)
    for offset, piece in enumerate(pieces):
        if is_retraction(piece):
            found[offset] = None
            for void in range(number_of(piece, "from"), offset):
                if not isinstance(found[void], str):
                    found[void] = None
    return found
