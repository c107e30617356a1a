"""The read side of Durable Streams: a reply as a stream of JSON messages with offsets.

An offset is the number of messages before it, in 16 digits. The stream is closed once the terminal message is
in it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from legato.protocol.jobs import InvalidRequest
from legato.protocol.stream import FAILED_TEXT

from .base import KEEP_ALIVE, Framing, encode, is_retraction, number_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from legato.protocol.stream import Decision
    from legato.protocol.transcript import Piece, VisiblePart

    from .base import Opening

ALWAYS: Final[Mapping[str, str]] = {
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "cross-origin",
}
"""Headers of every answer, errors included."""

SSE: Final = Framing("text/event-stream", before=b"", after=b"", keep_alive=KEEP_ALIVE, on_loss="end")
"""How the events of :func:`sse_data` and :func:`sse_control` are written."""

BEGINNING: Final = "-1"
NOW: Final = "now"
MODES: Final = ("", "long-poll", "sse")

CURSOR_EPOCH: Final = 1_728_432_000
"""2024-10-09T00:00Z in Unix time."""

CURSOR_SECONDS: Final = 20
MAX_CURSOR_STEP: Final = 3600

_OFFSET: Final = re.compile(r"[0-9]{16}")
_CURSOR: Final = re.compile(r"[0-9]{1,15}")


class Entries:
    """The messages of one reply in the format of the log, each as JSON. See :class:`.base.Translator`.

    Entries that readers do not see have none, so ``i``, the index in the log, may leave numbers out.
    """

    def __init__(self) -> None:
        self.done = False
        self._next = 0
        self._has_text = False

    def begin(self, opening: Opening) -> list[bytes]:
        """See :class:`.base.Translator`."""
        begun = opening.begun
        fields: dict[str, Any] = {"attempt": begun.attempt}
        if begun.model:
            fields["model"] = begun.model
        return [self._message("started", fields)]

    def feed(self, pieces: Sequence[Piece]) -> list[bytes]:
        """See :class:`.base.Translator`."""
        found: list[bytes] = []
        for piece in pieces:
            if isinstance(piece, str):
                self._has_text = True
                found.append(self._message("text", {"delta": piece}))
            elif piece is None:
                self._next += 1
            else:
                found.append(self._message(piece.kind, _fields(piece)))
        return found

    def end(self, decision: Decision) -> list[bytes]:
        """See :class:`.base.Translator`."""
        self.done = True
        if decision.state == "cancelled":
            return [self._message("cancelled", {})]
        if decision.state == "failed":
            failed = {"message": FAILED_TEXT, "code": decision.code, "partial": self._has_text}
            return [self._message("failed", failed)]
        usage = {} if decision.usage is None else {"usage": decision.usage}
        return [self._message("completed", {"reason": decision.stop_reason or "unknown", **usage})]

    def _message(self, kind: str, fields: Mapping[str, Any]) -> bytes:
        index = self._next
        self._next += 1
        return encode({"type": kind, "i": index, **fields})


def _fields(part: VisiblePart) -> Mapping[str, Any]:
    return {"from": number_of(part, "from") + 1} if is_retraction(part) else part.data


class ReadRequest(NamedTuple):
    """What a client asks for.

    :ivar asked: the offset as it was asked for.
    :ivar mode: one of :data:`MODES`; empty for what there is.
    :ivar cursor: empty if the client has none.
    """

    asked: str
    mode: str
    cursor: str

    def is_beyond(self, tail: int) -> bool:
        """Whether the offset is behind the end of a stream that has ``tail``."""
        return self.asked not in (BEGINNING, NOW) and int(self.asked) > tail

    def start(self, tail: int) -> int:
        """The number of messages to skip, in a stream that has ``tail``.

        :raises InvalidRequest: the offset is beyond the tail.
        """
        if self.asked == BEGINNING:
            return 0
        if self.asked == NOW:
            return tail
        if self.is_beyond(tail):
            raise InvalidRequest("offset", "Expected one that the stream has reached")
        return int(self.asked)


def parse_read(query: Sequence[tuple[str, str]]) -> ReadRequest:
    """The query of ``GET /api/streams/{id}``, as name and value of each parameter.

    :raises InvalidRequest: answer it with 400.
    """
    values: dict[str, list[str]] = {}
    for name, value in query:
        values.setdefault(name, []).append(value)
    offsets, modes = values.get("offset", []), values.get("live", [])
    if len(offsets) > 1 or (offsets and not _is_offset(offsets[0])):
        raise InvalidRequest("offset", "Expected one offset that the server has told, -1 or now")
    if len(modes) > 1 or (modes and modes[0] not in MODES[1:]):
        raise InvalidRequest("live", "Expected long-poll or sse")
    if modes and not offsets:
        raise InvalidRequest("offset", "Expected one with live")
    cursors = values.get("cursor", [""])
    cursor = cursors[0] if _CURSOR.fullmatch(cursors[0]) else ""
    return ReadRequest(offsets[0] if offsets else BEGINNING, modes[0] if modes else "", cursor)


def _is_offset(text: str) -> bool:
    return text in (BEGINNING, NOW) or _OFFSET.fullmatch(text) is not None


def offset(count: int) -> str:
    """The offset behind so many messages."""
    return f"{count:016d}"


def cursor(now: float, last: str, step: int) -> str:
    """The cursor of an answer, which keeps caches from answering the same request for ever.

    :param now: Unix time.
    :param last: that of the request; empty without one.
    :param step: a random number from 1 to :data:`MAX_CURSOR_STEP`, for where time alone would repeat it.
    """
    current = int(now - CURSOR_EPOCH) // CURSOR_SECONDS
    return str(int(last) + step if last and int(last) >= current else current)


class Reached(NamedTuple):
    """Where an answer ends.

    :ivar next: the number of messages up to there, which is always the tail.
    :ivar closed: the stream has ended there.
    """

    next: int
    closed: bool


def headers(stream_id: str, request: ReadRequest, place: Reached, cursor_: str = "") -> dict[str, str]:
    """The headers of a 200 with messages, of which ``ETag`` may make it a 304."""
    found = tail_headers(place, cursor_)
    if request.asked == NOW:
        return found
    end = ":c" if place.closed else ""
    etag = f'"{stream_id}:{request.asked}:{offset(place.next)}{end}"'
    return {**found, "Cache-Control": "private, no-store", "ETag": etag}


def tail_headers(place: Reached, cursor_: str = "") -> dict[str, str]:
    """The headers of an answer without messages: a 204, and a ``now``.

    :param cursor_: of :func:`cursor`; for a long-poll, while the stream is open.
    """
    found = {
        "Stream-Next-Offset": offset(place.next),
        "Stream-Up-To-Date": "true",
        "Cache-Control": "no-store",
    }
    if place.closed:
        found["Stream-Closed"] = "true"
    elif cursor_:
        found["Stream-Cursor"] = cursor_
    return found


def head_headers(place: Reached) -> dict[str, str]:
    """The headers of the answer to ``HEAD``."""
    found = tail_headers(place)
    del found["Stream-Up-To-Date"]
    return found


def is_unchanged(if_none_match: str | None, found: Mapping[str, str]) -> bool:
    """Whether the client has this answer: 304."""
    return if_none_match is not None and if_none_match == found.get("ETag")


def array(messages: Sequence[bytes]) -> bytes:
    """The body of a 200: all messages as one JSON array."""
    return b"[" + b",".join(messages) + b"]"


def sse_data(messages: Sequence[bytes]) -> bytes:
    """An event with messages. :func:`sse_control` follows. There is no space behind ``data:``."""
    return b"event: data\ndata:%b\n\n" % array(messages)


class _Control(msgspec.Struct, rename="camel", omit_defaults=True):
    stream_next_offset: str
    stream_cursor: str = ""
    stream_closed: bool = False
    up_to_date: bool = False


def sse_control(place: Reached, cursor_: str) -> bytes:
    """The event that says where the one before it ends. The body ends behind that of a closed stream."""
    at = offset(place.next)
    if place.closed:
        control = _Control(at, stream_closed=True, up_to_date=True)
    else:
        control = _Control(at, cursor_, up_to_date=True)
    return b"event: control\ndata:%b\n\n" % encode(control)
