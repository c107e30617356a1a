"""Heals gaps in replies: decides which frames to deliver, to hold, and to read from the log.

A node that forwards a channel sees the frames of each message with their offsets in its log. When one is
missing, it holds the frames that follow, reads the log from the first missing offset, delivers that, and
continues. So every subscriber gets each token and other part once, in order, and then one terminal event.
What is read goes to all subscribers of the channel together, never to one. An entry that readers do not see
has an offset but no frame (:data:`.wire.SKIP`): it is counted as the others are.

The first offset of a message at this node:

* A message that streams when the channel gets its first subscriber starts at the first frame that the bus
 delivers. The subscriber's snapshot ends there, once the bus has caught up with the log.
* A message that begins later starts at 0, even if it begins or ends during a gap of the bus
 (:meth:`HealedChannel.resync`).
* After a gap before the node knows what streamed at first (:meth:`HealedChannel.deafen`), the two cannot be
 told apart: every message that is still unknown starts at 0. Nothing of it has been delivered.

If the log lacks what is missing, nothing more of the message is delivered, and its end only if it is not
``complete``: a part is never delivered as the whole.

``now`` is in seconds of any monotonic clock.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final, NamedTuple

from .wire import END, ENDED_SECONDS, MANY, MAX_ENDED, SKIP

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from .wire import Envelope

HELD_BYTES: Final = 16 * 2**20
"""Bound on held frames of all messages of a node. Beyond it, frames are dropped and read from the log."""

IDLE_SECONDS: Final = 60.0
"""Silence after which a message is read from the log, because its terminal event may have been missed."""

EMPTY_BYTES: Final = 64
"""What an envelope without a frame counts for where frames are bounded in bytes."""

FORGET_SECONDS: Final = 2.0 * ENDED_SECONDS
"""How long an ended message is remembered: longer than Redis lists it, so that it never ends twice."""


class Verdict(enum.Enum):
    """What to do with a frame."""

    DELIVER = enum.auto()
    DROP = enum.auto()
    HOLD = enum.auto()
    ASK = enum.auto()
    """Hold it, and read the message's log."""
    SKIP = enum.auto()
    """It is counted, and there is nothing to deliver."""
    DELIVER_LINES = enum.auto()
    """Deliver each line as a frame of its own."""


DELIVER: Final = Verdict.DELIVER
"""The member as a constant for the hot path: Python 3.11 looks enum members up with a call."""


_DELIVERED: Final = frozenset({Verdict.DELIVER, Verdict.DELIVER_LINES})
_ENTRIES: Final = frozenset({"", MANY, SKIP})
"""Commands of envelopes that carry an entry of the log."""


def _delivery(envelope: Envelope) -> Verdict:
    return Verdict.DELIVER_LINES if b"\n" in envelope.payload else Verdict.DELIVER


class LogReading(NamedTuple):
    """What the log contains of a message.

    :ivar first: the first offset that was read.
    :ivar frames: those of all entries from ``first`` on, empty for an entry that readers do not see, and one
        a line for an entry with several; None if the log does not have all.
    :ivar end: the state and the terminal frame of an ended message.
    """

    first: int
    frames: Sequence[bytes] | None
    end: tuple[str, bytes] | None = None


class Healed(NamedTuple):
    """The result of a read of the log.

    :ivar frames: to deliver now, in this order, each line by itself.
    :ivar tokens: how many of them are tokens and other parts from the log.
    :ivar ended: whether the last of them is a missed terminal event.
    :ivar lost: the missing frames are not in the log.
    :ivar again: read the log once more.
    """

    frames: tuple[bytes, ...] = ()
    tokens: int = 0
    ended: bool = False
    lost: bool = False
    again: bool = False


class Room:
    """The bytes that a node may hold."""

    def __init__(self, limit: int = HELD_BYTES) -> None:
        self._limit = limit
        self.used = 0

    def take(self, size: int) -> bool:
        """Reserve bytes; False if there is no room."""
        if self.used + size > self._limit:
            return False
        self.used += size
        return True

    def give(self, size: int) -> None:
        """Undo :meth:`take`."""
        self.used -= size


class _Message:
    """One message that is being forwarded; ``next`` is the offset of the entry to deliver next.

    ``soft``: ``next`` comes from the log, and earlier frames may still be in flight. They are delivered, for
    clients without snapshots, and no snapshot is sent before they have arrived. ``asked``: a read is in
    progress. ``missed``: that read may be too old, or a frame was dropped that should have been held.
    ``stalled``: the last read did not help.
    """

    __slots__ = ("asked", "at", "held", "lost", "missed", "next", "soft", "stalled")

    def __init__(self, next_: int, now: float, *, soft: bool = False) -> None:
        self.next = next_
        self.at = now
        self.soft = soft
        self.held: list[Envelope] = []
        self.asked = False
        self.missed = False
        self.stalled = False
        self.lost = False


class HealedChannel:
    """The messages that a node forwards on one channel, as long as it has subscribers."""

    __slots__ = ("_before", "_deaf", "_ended", "_messages", "_opened", "_room", "_synced")

    def __init__(self, room: Room, now: float) -> None:
        self._room = room
        self._messages: dict[str, _Message] = {}
        self._ended: dict[str, float] = {}
        # Before the sync, an unknown message starts at the first frame that arrives.
        self._synced = False
        self._deaf = False
        self._opened = now
        self._before: Collection[str] = ()

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def synced(self) -> bool:
        """Whether all messages that streamed when the channel was opened are known."""
        return self._synced

    @property
    def messages(self) -> list[str]:
        """The messages that are being forwarded."""
        return [message_id for message_id, message in self._messages.items() if not message.lost]

    @property
    def soft(self) -> bool:
        """Whether tokens of a snapshot may still be in flight, see :meth:`settle`."""
        return any(message.soft for message in self._messages.values())

    def settle(self) -> None:
        """Everything published before the call of :meth:`sync` has been delivered or is lost."""
        for message in self._messages.values():
            message.soft = False

    def next(self, message_id: str) -> int | None:
        """The offset of the next entry to deliver; None for a message that is not being forwarded."""
        message = self._messages.get(message_id)
        return None if message is None or message.lost else message.next

    def close(self) -> None:
        """The channel has lost its last subscriber."""
        for message in self._messages.values():
            self._release(message)
        self._messages.clear()

    # --- frames from the bus

    def take(self, envelope: Envelope, now: float) -> Verdict:
        """Decide what to do with a frame of a message, one with ``stream``."""
        stream = envelope.stream
        assert stream is not None  # noqa: S101 - the caller's promise
        message_id, index = stream
        message = self._messages.get(message_id)
        if message is None:
            if message_id in self._ended:
                return Verdict.DROP
            message = self._messages[message_id] = _Message(0 if self._synced or self._deaf else index, now)
        message.at = now
        # The common case: the next token or other part. When frames are held, a read is in progress.
        if index == message.next and not (envelope.command or message.asked or message.soft or message.lost):
            message.next = index + 1
            return DELIVER
        if message.lost:
            return self._take_lost(message_id, envelope, now)
        if message.soft:
            message.soft = False
            message.next = min(message.next, index)
        entry = envelope.command in _ENTRIES
        if entry and index < message.next:
            return Verdict.DROP
        if message.held or index > message.next:
            return self._hold(message, envelope)
        if entry:
            message.next += 1
        elif envelope.command == END:
            self._end(message_id, now)
        return Verdict.SKIP if envelope.command == SKIP else _delivery(envelope)

    def _hold(self, message: _Message, envelope: Envelope) -> Verdict:
        if self._room.take(_size(envelope)):
            message.held.append(envelope)
        else:
            message.missed = True
        if message.asked:
            return Verdict.HOLD
        message.asked = True
        return Verdict.ASK

    def _release(self, message: _Message) -> list[Envelope]:
        held, message.held = message.held, []
        self._room.give(sum(map(_size, held)))
        return held

    def _end(self, message_id: str, now: float) -> None:
        self._release(self._messages.pop(message_id))
        self._ended[message_id] = now
        if len(self._ended) > 2 * MAX_ENDED:  # more than Redis lists
            del self._ended[next(iter(self._ended))]

    def _take_lost(self, message_id: str, envelope: Envelope, now: float) -> Verdict:
        if envelope.command != END:
            return Verdict.DROP
        self._end(message_id, now)
        return Verdict.DROP if envelope.detail == "complete" else _delivery(envelope)

    # --- reads of the log

    def read(self, message_id: str, reading: LogReading, now: float) -> Healed:
        """Take what was read from the log, from the :meth:`next` of the request on."""
        message = self._messages.get(message_id)
        if message is None or not message.asked:
            return Healed()  # it ended meanwhile
        message.asked = False
        held, missed, message.missed = self._release(message), message.missed, False
        if reading.frames is None:
            return self._lose(message_id, message, held, reading.end, now)
        entries = reading.frames[message.next - reading.first :]
        message.next += len(entries)
        frames = [frame for frame in entries if frame]
        tokens = len(frames)
        if reading.end is not None:
            self._end(message_id, now)
            heard = any(envelope.command == END for envelope in held)
            return Healed((*frames, reading.end[1]), tokens, ended=not heard)
        frames += [one.payload for one in held if self.take(one, now) in _DELIVERED]
        if missed and message_id in self._messages:
            message.asked = True
        idle = not (entries or frames)
        if message.asked and not missed and idle and message.stalled:
            return self._lose(message_id, message, self._release(message), None, now)
        message.stalled = message.asked and idle
        return Healed(tuple(frames), tokens, again=message.asked)

    def _lose(
        self,
        message_id: str,
        message: _Message,
        held: Sequence[Envelope],
        end: tuple[str, bytes] | None,
        now: float,
    ) -> Healed:
        message.lost, message.asked = True, False
        for envelope in held:
            if envelope.command == END:
                end = (envelope.detail, envelope.payload)
        if end is None:
            return Healed(lost=True)
        self._end(message_id, now)
        state, frame = end
        return Healed(() if state == "complete" else (frame,), lost=True)

    # --- state of the channel

    def sync(self, streaming: Mapping[str, int], ended: Mapping[str, float], now: float) -> None:
        """Take the messages that streamed when the channel got its first subscriber.

        :param streaming: message -> number of entries that the subscriber's snapshot covers.
        :param ended: recently ended messages -> how many seconds ago.
        :param now: when the request was sent.
        """
        if self._synced or self._deaf:
            return
        self._know(ended, now)
        for message_id, count in streaming.items():
            if message_id not in self._messages and message_id not in self._ended:
                self._messages[message_id] = _Message(count, now, soft=True)

    def _know(self, ended: Mapping[str, float], now: float) -> None:
        self._synced = True
        self._before = frozenset(name for name, age in ended.items() if age >= now - self._opened)

    def deafen(self) -> None:
        """The bus may have missed messages and works again; :meth:`resync` follows once Redis answers."""
        self._deaf = True

    def resync(self, streaming: Collection[str], ended: Mapping[str, float], now: float) -> list[str]:
        """The messages to read from the log after a gap of the bus.

        :param streaming: messages that stream on the channel now.
        :param ended: recently ended messages -> how many seconds ago.
        :param now: when the request was sent.
        """
        if not self._synced:
            self._know(ended, now)
        for message_id in (*streaming, *(one for one in ended if one not in self._before)):
            if message_id not in self._ended and message_id not in self._messages:
                self._messages[message_id] = _Message(0, now)
        for message in self._messages.values():
            message.missed = message.asked  # that read may be older than the gap
        return self._ask(self._messages.items())

    def idle(self, now: float) -> list[str]:
        """Silent messages to read from the log. Also forgets messages that ended long ago."""
        for message_id, at in list(self._ended.items()):
            if now - at > FORGET_SECONDS:
                del self._ended[message_id]
        if now - self._opened > FORGET_SECONDS:
            self._before = ()
        silent = [(name, one) for name, one in self._messages.items() if now - one.at >= IDLE_SECONDS]
        for message_id, message in silent:
            message.at = now
            if message.lost:
                self._end(message_id, now)
        return self._ask(silent)

    def _ask(self, messages: Iterable[tuple[str, _Message]]) -> list[str]:
        asked = []
        for message_id, message in messages:
            if not message.asked and not message.lost:
                message.asked, message.soft = True, False
                asked.append(message_id)
        return asked


def _size(envelope: Envelope) -> int:
    """What a held envelope counts for."""
    return len(envelope.payload) or EMPTY_BYTES
