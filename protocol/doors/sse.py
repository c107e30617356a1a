"""Server-sent events for a plain ``EventSource``: the events of the channel, with ids to go on from.

The ``id:`` of an event is the number of entries of the log up to it: 0 for ``stream.started``, n + 1 for the
entry at offset n, and one more than the log has for the terminal event.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from legato.protocol import parts, stream

from .base import Framing, Opening, encode, number_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from legato.protocol.transcript import Piece, VisiblePart

FRAMING: Final = Framing(head=b"retry: 1000\n\n", before=b"", after=b"", on_loss="end")

NOTHING: Final = -1
"""The id of a client that has no event yet."""

_ID: Final = re.compile(r"[0-9]{1,15}")

_EVENTS: Final[Mapping[str, str]] = {
    **{kind: part.event for kind, part in parts.KINDS.items()},
    parts.ToolInputReceived.kind: "tool.delta",
    parts.ToolCalled.kind: "tool.ready",
    parts.ToolFinished.kind: "tool.result",
    parts.Retracted.kind: "stream.retracted",
}
_RESULT_FIELDS: Final = ("call", "ok", "output", "error", "denied")
_RENAMED: Final = {"call": "toolCallId"}


def last_seen(last_event_id: str | None, after: str | None) -> int:
    """The id of the last event that the client has, of its header ``Last-Event-ID`` and of its query.

    The larger one, because the query stays in the URL when the client comes back. One that is no number
    counts as none.
    """
    return max(_id_of(last_event_id), _id_of(after))


def _id_of(text: str | None) -> int:
    return int(text) if text is not None and _ID.fullmatch(text) else NOTHING


def is_over(seen: int, entries: int) -> bool:
    """Whether a client that has seen this id has all of an ended reply with so many entries."""
    return seen > entries


class Events:
    """The events of one reply, each a whole frame. See :class:`.base.Translator`.

    :param seen: the client has the events up to this id: they are left out.
    """

    def __init__(self, seen: int = NOTHING) -> None:
        self.done = False
        self._seen = seen
        self._entries = 0
        self._tokens = 0
        self._head: dict[str, Any] = {}

    def begin(self, opening: Opening) -> list[bytes]:
        """See :class:`.base.Translator`."""
        self._head = {"userId": opening.user_id, "messageId": opening.message_id}
        begun = opening.begun
        started = stream.Started(opening.message_id, begun.attempt, begun.model, begun.history_cut)
        return self._from(0, started.event, encode(started))

    def feed(self, pieces: Sequence[Piece]) -> list[bytes]:
        """See :class:`.base.Translator`."""
        found: list[bytes] = []
        for piece in pieces:
            self._entries += 1
            if isinstance(piece, str):
                if self._entries > self._seen:
                    data = {**self._head, "token": piece, "tokenIndex": self._tokens}
                    found.append(_frame(self._entries, stream.TokenReceived.event, encode(data)))
                self._tokens += 1
            elif piece is not None and piece.kind in _EVENTS and self._entries > self._seen:
                found.append(self._part(piece))
        return found

    def end(self, decision: stream.Decision) -> list[bytes]:
        """See :class:`.base.Translator`."""
        self.done = True
        head = self._head
        event = stream.ending(decision, head["userId"], head["messageId"], self._tokens)
        data: Any = event
        if isinstance(event, stream.Failed):
            data = {**head, "error": event.error, "code": event.code, "partial": event.partial}
        return self._from(self._entries + 1, event.event, encode(data))

    def _from(self, id_: int, event: str, data: bytes) -> list[bytes]:
        return [_frame(id_, event, data)] if id_ > self._seen else []

    def _part(self, piece: VisiblePart) -> bytes:
        event = _EVENTS[piece.kind]
        if piece.kind == parts.Retracted.kind:
            data = {"messageId": self._head["messageId"], "from": number_of(piece, "from") + 1}
            return _frame(self._entries, event, encode(data))
        names = _RESULT_FIELDS if piece.kind == parts.ToolFinished.kind else tuple(piece.data)
        fields = {_RENAMED.get(name, name): piece.data[name] for name in names if name in piece.data}
        return _frame(self._entries, event, encode({**self._head, **fields}))


def _frame(id_: int, event: str, data: bytes) -> bytes:
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (id_, event.encode(), data)
