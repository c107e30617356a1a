"""Merges the tokens that wait for a slow client which has asked for it, and lets endings go first.

A :class:`MergingQueue` has the frames that wait for one client. On the channels for which the client has
asked, a token joins the token before it of the same message: the frame has the texts of both, the index of
the first as ``tokenIndex``, and the number of tokens as ``tokenCount``. So the queue of a long reply is
hardly longer than its text.

What is promised about order, per channel: the frames of one message and the events that belong to no reply
keep their order. Frames of different messages may overtake each other, which is how a terminal event goes
first in line: its place is directly after the last frame that it must not overtake. A token never joins
another across a different frame of its message, or across an event that belongs to no reply.

Frames are parsed here, and only here, one by one as they are queued.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from .parts import KINDS
from .stream import Cancelled, Completed, Failed, Queued, Snapshot, Started, TokenReceived

if TYPE_CHECKING:
    from collections.abc import Callable

WATERMARK_BYTES: Final = 16_384
"""Size of a slow client's queue above which it becomes a :class:`MergingQueue`, until it is empty."""

MERGED_BYTES: Final = 16_384
"""Bound on the text of one merged frame, UTF-8."""

_ENDINGS: Final = frozenset({Completed.event, Failed.event, Cancelled.event})
_OTHERS: Final = frozenset(
    {Queued.event, Started.event, Snapshot.event, *(part.event for part in KINDS.values())}
)
_EXACT: Final = 2**53

_Count = Annotated[int, msgspec.Meta(ge=1, lt=_EXACT)]
_Index = Annotated[int, msgspec.Meta(ge=0, lt=_EXACT)]
_User = Annotated[int, msgspec.Meta(gt=-_EXACT, lt=_EXACT)] | str


class _AnyEvent(msgspec.Struct, frozen=True):
    event: str
    channel: str | None = None
    data: msgspec.Raw = msgspec.Raw(b"")


class _WaitingToken(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """As :class:`.stream.TokenReceived`; nothing else is a token that can be merged."""

    user_id: _User
    message_id: str
    token: str
    token_index: _Index
    token_count: _Count = 1


class _ReplyEvent(msgspec.Struct, frozen=True, rename="camel"):
    message_id: str


_event_decoder: Final = msgspec.json.Decoder(_AnyEvent)
_data_decoder: Final = msgspec.json.Decoder(str)
_token_decoder: Final = msgspec.json.Decoder(_WaitingToken)
_reply_decoder: Final = msgspec.json.Decoder(_ReplyEvent)
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeError, RecursionError)

_PlaceKey = tuple[str, str]
"""Channel and message; the message is empty for an event that belongs to no reply."""


class _PlaceInLine:
    """A frame that waits, or the run of tokens that have joined it.

    :ivar number: increases along the line.
    :ivar token: the first of the run; None for any other frame.
    :ivar next: the index that may join.
    :ivar text: that of the run; None for a single token, whose frame is sent as it is.
    :ivar after: the frames directly behind it.
    :ivar size: counts everything.
    """

    __slots__ = ("after", "frame", "key", "next", "number", "size", "text", "token")

    def __init__(self, key: _PlaceKey | None, number: int, frame: bytes, token: _WaitingToken | None) -> None:
        self.key = key
        self.number = number
        self.frame = frame
        self.token = token
        self.next = 0 if token is None else token.token_index + token.token_count
        self.text: bytearray | None = None
        self.after: list[bytes] | None = None
        self.size = len(frame)

    def join(self, token: _WaitingToken) -> int:
        """Add a token to the run. Returns by how much it grows; 0 if the token cannot join."""
        first = self.token
        if first is None or self.after is not None:
            return 0
        if token.token_index != self.next or token.user_id != first.user_id:
            return 0
        text = token.token.encode()
        have = self.text or bytearray(first.token.encode())
        if len(have) + len(text) > MERGED_BYTES:
            return 0
        have += text
        self.text, self.frame = have, b""
        self.next += token.token_count
        self.size += len(text) + 1
        return len(text) + 1

    def follow(self, frame: bytes) -> None:
        """Put a frame directly behind it."""
        if self.after is None:
            self.after = []
        self.after.append(frame)
        self.size += len(frame)

    def frames(self, frame: Callable[[bytes], bytes]) -> list[bytes]:
        """What is to be sent."""
        own = self.frame
        if self.text is not None and self.key is not None and self.token is not None:
            index = self.token.token_index
            merged = TokenReceived(
                self.token.user_id, self.key[1], self.text.decode(), index, self.next - index
            )
            own = frame(merged.frame(self.key[0]))
        return [own, *(self.after or ())]


class MergingQueue:
    """The frames that wait for one client, in the order in which they will be sent.

    Its memory is bounded by a multiple of ``size``: each frame that waits counts with its length, and each
    token that has joined another with its text.

    :param channels: those with merged tokens.
    :param frame: makes a frame of the payload of a merged token.
    :ivar size: bytes that wait.
    """

    __slots__ = ("_barrier", "_first", "_frame", "_last", "_line", "_number", "channels", "size")

    def __init__(self, channels: frozenset[str], frame: Callable[[bytes], bytes]) -> None:
        self.channels = channels
        self.size = 0
        self._frame = frame
        self._line: deque[bytes | _PlaceInLine] = deque()
        self._first: list[bytes] = []
        self._last: dict[_PlaceKey, _PlaceInLine] = {}
        self._barrier: _PlaceInLine | None = None
        self._number = 0

    def __len__(self) -> int:
        return len(self._line) + len(self._first)

    def put(self, frame: bytes, payload: bytes) -> int:
        """Queue a frame with this payload.

        :returns: the number of tokens that needed no frame of their own.
        """
        try:
            event = _event_decoder.decode(payload)
        except _UNREADABLE:
            self._bar(frame)
            return 0
        channel = event.channel
        if channel is None or channel not in self.channels:
            self._line.append(frame)
            self.size += len(frame)
            return 0
        message_id, token = _of_reply(event)
        if token is not None and (joined := self._join(channel, token)):
            return joined
        key = (channel, message_id)
        if message_id and event.event in _ENDINGS:
            self._end(key, frame)
        elif token is None and (last := self._last.get(key)) is not None and self._line[-1] is last:
            last.follow(frame)  # a place of its own would take more memory
            self.size += len(frame)
        else:
            self._append(key, frame, token)
        return 0

    def change(self, channels: frozenset[str]) -> None:
        """Merge on other channels from now on. What waits already stays as it is, and in its order."""
        self.channels = channels
        self._bar(b"")

    def take(self, limit: int) -> list[bytes]:
        """Take frames from the front until they have at least ``limit`` bytes, as ``size`` counts them."""
        taken, self._first = self._first, []
        size = sum(map(len, taken))
        while self._line and size < limit:
            place = self._line.popleft()
            if isinstance(place, bytes):
                taken.append(place)
                size += len(place)
                continue
            taken += place.frames(self._frame)
            size += place.size
            if place.key is not None and self._last.get(place.key) is place:
                del self._last[place.key]
            elif self._barrier is place:
                self._barrier = None
        self.size -= size
        return taken

    def _append(self, key: _PlaceKey | None, frame: bytes, token: _WaitingToken | None) -> _PlaceInLine:
        self._number += 1
        place = _PlaceInLine(key, self._number, frame, token)
        self._line.append(place)
        self.size += len(frame)
        if key is not None:
            self._last[key] = place
        return place

    def _bar(self, frame: bytes) -> None:
        """Queue a frame that nothing may overtake."""
        self._last.clear()
        self._barrier = self._append(None, frame, None)

    def _join(self, channel: str, token: _WaitingToken) -> int:
        place = self._last.get((channel, token.message_id))
        other = self._last.get((channel, ""))
        if place is None or (other is not None and other.number > place.number):
            return 0
        grown = place.join(token)
        self.size += grown
        return token.token_count if grown else 0

    def _end(self, key: _PlaceKey, frame: bytes) -> None:
        """Queue an ending, after the last frame that it must not overtake."""
        before = (self._last.get(key), self._last.get((key[0], "")), self._barrier)
        there = [place for place in before if place is not None]
        if there:
            max(there, key=lambda place: place.number).follow(frame)
        else:
            self._first.append(frame)
        self.size += len(frame)


def _of_reply(event: _AnyEvent) -> tuple[str, _WaitingToken | None]:
    """The message that an event belongs to, empty for none, and its token if it is one."""
    name = event.event
    try:
        if name == TokenReceived.event:
            token = _token_decoder.decode(_data_decoder.decode(event.data))
            return token.message_id, token if token.message_id else None
        if name in _ENDINGS or name in _OTHERS:
            return _reply_decoder.decode(_data_decoder.decode(event.data)).message_id, None
    except _UNREADABLE:
        pass
    return "", None
