"""What readers see of a reply: its text, and its other parts as a snapshot has them.

A reply is read from its log and from the frames that followed. Both become *pieces*, one per offset: a
``str`` for text, a :class:`VisiblePart`, or None for an entry that readers do not see.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from .parts import HIDDEN, KINDS, ReasoningReceived, Retracted, ToolInputReceived
from .stream import Snapshot, TokenReceived

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence

    from .parts import LogEntry
    from .stream import State

PARTS_BYTES: Final = 262_144
"""Bound on the parts of a snapshot as JSON. It has no bound on the text."""

_LONG: Final = ("output", "error", "delta", "text", "input")
"""Fields of unbounded length, in the order in which a snapshot leaves them out."""

_JOINED: Final = frozenset({ReasoningReceived.kind, ToolInputReceived.kind})
"""Kinds whose successive parts a snapshot joins."""

_KIND_OF: Final[Mapping[str, str]] = {part.event: kind for kind, part in KINDS.items()}


class VisiblePart(NamedTuple):
    """A part of a reply other than text.

    :ivar token_index: the number of tokens before it.
    :ivar data: the fields of its struct in :mod:`.parts`.
    """

    kind: str
    offset: int
    token_index: int
    data: Mapping[str, msgspec.Raw]


Piece = str | VisiblePart | None


class _Frame(msgspec.Struct):
    event: str
    data: str


class _Token(msgspec.Struct):
    token: str


class _Place(msgspec.Struct, rename="camel"):
    token_index: int


_frame_decoder: Final = msgspec.json.Decoder(_Frame)
_token_decoder: Final = msgspec.json.Decoder(_Token)
_place_decoder: Final = msgspec.json.Decoder(_Place)
_fields_decoder: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_PLACE: Final = frozenset({"messageId", "offset", "tokenIndex"})


def known(entry: LogEntry) -> bool:
    """Whether this version knows the entry's kind."""
    return entry.kind in ("", HIDDEN) or entry.kind in KINDS


def of_entry(entry: LogEntry, offset: int) -> Piece:
    """The piece in a log entry. One of an unknown kind is not visible.

    :raises ValueError: the data are not JSON.
    """
    if not entry.kind:
        return entry.data.decode()
    if entry.kind not in KINDS or entry.token_index is None:
        return None
    return VisiblePart(entry.kind, offset, entry.token_index, _fields_decoder.decode(entry.data))


def of_frame(frame: bytes, offset: int) -> Piece:
    """The piece in a frame of an entry; an empty frame is that of one that readers do not see.

    :raises ValueError: it is not such a frame.
    """
    if not frame:
        return None
    event, data = msgspec.structs.astuple(_frame_decoder.decode(frame))
    if event == TokenReceived.event:
        return _token_decoder.decode(data).token
    if (kind := _KIND_OF.get(event)) is None:
        return None
    fields = {name: value for name, value in _fields_decoder.decode(data).items() if name not in _PLACE}
    return VisiblePart(kind, offset, _place_decoder.decode(data).token_index, fields)


def texts(pieces: Iterable[Piece]) -> list[str]:
    """The tokens among the pieces."""
    return [piece for piece in pieces if isinstance(piece, str)]


def parts(pieces: Iterable[Piece]) -> list[dict[str, Any]]:
    """The other parts among the pieces, each with the data of its event and the event's name.

    Retracted parts are left out. Successive pieces of reasoning, or of one input, are joined.
    """
    visible: list[VisiblePart] = []
    for piece in pieces:
        if not isinstance(piece, VisiblePart):
            continue
        if piece.kind != Retracted.kind:
            visible.append(piece)
            continue
        start = msgspec.json.decode(piece.data["from"], type=int)
        while visible and visible[-1].offset >= start:
            visible.pop()
    return [_shown(tuple(group)) for _, group in groupby(visible, _run)]


def _run(part: VisiblePart) -> Hashable:
    """Equal for successive parts that are joined."""
    if part.kind not in _JOINED:
        return part.offset
    return part.kind, part.token_index, bytes(part.data.get("call", b""))


def _shown(run: Sequence[VisiblePart]) -> dict[str, Any]:
    first = run[0]
    head = {"event": KINDS[first.kind].event, "offset": first.offset, "tokenIndex": first.token_index}
    if len(run) == 1:
        return {**head, **first.data}
    deltas = (msgspec.json.decode(part.data["delta"], type=str) for part in run)
    return {**head, **first.data, "delta": "".join(deltas)}


def bounded(shown: Sequence[dict[str, Any]], limit: int = PARTS_BYTES) -> list[dict[str, Any]]:
    """Parts of at most ``limit`` bytes of JSON together. Those that are left as they are come last.

    Beyond the limit, long fields are left out, and their parts get ``truncated: true``: first the outputs of
    tools, then their errors, deltas, cited texts and inputs, each from the oldest part on. If that is not
    enough, the oldest parts are left out.
    """
    kept = list(shown)
    sizes = [_size(part) for part in kept]
    excess = sum(sizes) - limit
    for name in _LONG:
        for at, part in enumerate(kept):
            if excess <= 0:
                return kept
            if name not in part:
                continue
            kept[at] = {key: value for key, value in part.items() if key != name} | {"truncated": True}
            size = _size(kept[at])
            excess -= sizes[at] - size
            sizes[at] = size
    left_out = 0
    while excess > 0:
        excess -= sizes[left_out]
        left_out += 1
    return kept[left_out:]


def _size(part: dict[str, Any]) -> int:
    return len(msgspec.json.encode(part)) + len(",")


def snapshot(message_id: str, pieces: Sequence[Piece], status: State) -> Snapshot:
    """The snapshot of a reply of which these are the first pieces."""
    tokens = texts(pieces)
    text, count = "".join(tokens), len(tokens)
    if count == len(pieces):
        return Snapshot(message_id, text, count, status)
    return Snapshot(message_id, text, count, status, len(pieces), tuple(bounded(parts(pieces))))
