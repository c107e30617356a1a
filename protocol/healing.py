"""Replies without holes for readers who only listen: what to deliver, to hold back, and to read up.

A node that forwards a channel sees the frames of each message with their indexes. When one is missing, it
holds back what comes, reads the message's log from the first missing index on, and goes on behind it: so
everybody on the channel gets each token once, in order, and then one terminal event. Whatever is read up goes
to all of the channel together, never to one reader.

Where a message begins for the node:

* One that streams when the channel gets its first subscriber begins with what the bus brings first. That
  subscriber's snapshot ends where the channel is once the bus has caught up with the log.
* One that begins later begins at 0, even if it begins, or ends too, while the node is deaf
  (:meth:`Channel.resync`).
* If the node is deaf before it knows what streamed at first (:meth:`Channel.deafen`), nobody can tell the two
  apart: all that is not known by then begins at 0. Nothing of it has been delivered.

If the log does not have what is missing, nothing of the message is delivered any more, and its end only if it
is not ``complete``: a part is never passed off as the whole.

``now`` is any clock that does not go back, in seconds.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final, NamedTuple

from .wire import END, ENDED_SECONDS, MAX_ENDED

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from .wire import Envelope

HELD_BYTES: Final = 16 * 2**20
"""What a node holds back of all messages together. Beyond it drops: the log has it, and is read once more."""

IDLE_SECONDS: Final = 60.0
"""Silence after which a message is looked up: its end may have been lost with nothing behind it."""

FORGET_SECONDS: Final = 2.0 * ENDED_SECONDS
"""How long a message is known to have ended. Longer than Redis lists it, so that it never ends twice."""


class Verdict(enum.Enum):
    """What becomes of a frame."""

    DELIVER = enum.auto()
    DROP = enum.auto()
    HOLD = enum.auto()
    ASK = enum.auto()
    """It is held, and the message's log is to be read."""


DELIVER: Final = Verdict.DELIVER
"""For each token: Python 3.11 finds a member of an enum by a call, which takes as long as the rest of it."""


class Reading(NamedTuple):
    """What the log says of a message.

    :ivar first: the index from which it was read.
    :ivar frames: of the tokens from ``first`` on, all there are; None if the log does not have them.
    :ivar end: of a message that has ended its state and its terminal frame.
    """

    first: int
    frames: Sequence[bytes] | None
    end: tuple[str, bytes] | None = None


class Healed(NamedTuple):
    """What a reading has brought.

    :ivar frames: to deliver now, in this order.
    :ivar tokens: how many of them are tokens out of the log.
    :ivar ended: whether the last of them is an end that was not heard.
    :ivar lost: what is missing cannot be had.
    :ivar again: read once more.
    """

    frames: tuple[bytes, ...] = ()
    tokens: int = 0
    ended: bool = False
    lost: bool = False
    again: bool = False


class Room:
    """How many bytes a node may hold back."""

    def __init__(self, limit: int = HELD_BYTES) -> None:
        self._limit = limit
        self.used = 0

    def take(self, size: int) -> bool:
        """Whether there is room; then it is taken."""
        if self.used + size > self._limit:
            return False
        self.used += size
        return True

    def give(self, size: int) -> None:
        """Undo :meth:`take`."""
        self.used -= size


class _Message:
    """One message that is being forwarded; ``next`` is the index of the token to deliver next.

    ``soft``: ``next`` is from the log, and what was published before may still be on its way: delivered,
    for whoever knows no snapshots, and no snapshot is told before it is known to have come. ``asked``: a
    reading is under way. ``missed``: it may be too old, or something was dropped that would have been held.
    ``stalled``: the last reading did not help.
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


class Channel:
    """The messages that a node forwards on one channel, as long as it has subscribers."""

    __slots__ = ("_before", "_deaf", "_ended", "_messages", "_opened", "_room", "_synced")

    def __init__(self, room: Room, now: float) -> None:
        self._room = room
        self._messages: dict[str, _Message] = {}
        self._ended: dict[str, float] = {}
        # Until it is synced, a message that is not known begins with the frame that is heard of it first.
        self._synced = False
        self._deaf = False
        self._opened = now
        self._before: Collection[str] = ()

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def synced(self) -> bool:
        """Whether all that streamed when the channel was opened is known."""
        return self._synced

    @property
    def messages(self) -> list[str]:
        """Those that are being forwarded."""
        return [message_id for message_id, message in self._messages.items() if not message.lost]

    @property
    def soft(self) -> bool:
        """Whether tokens that a snapshot would have may still be on their way: :meth:`settle`."""
        return any(message.soft for message in self._messages.values())

    def settle(self) -> None:
        """All that was published before :meth:`sync` was called has been delivered, or is lost."""
        for message in self._messages.values():
            message.soft = False

    def next(self, message_id: str) -> int | None:
        """The index of the next token to deliver; None for a message that is not being forwarded."""
        message = self._messages.get(message_id)
        return None if message is None or message.lost else message.next

    def close(self) -> None:
        """Nobody listens any more."""
        for message in self._messages.values():
            self._release(message)
        self._messages.clear()

    # --- what the bus brings

    def take(self, envelope: Envelope, now: float) -> Verdict:
        """A frame of a message, one with ``stream``: what becomes of it."""
        stream = envelope.stream
        assert stream is not None  # noqa: S101 - the caller's promise
        message_id, index = stream
        message = self._messages.get(message_id)
        if message is None:
            if message_id in self._ended:
                return Verdict.DROP
            message = self._messages[message_id] = _Message(0 if self._synced or self._deaf else index, now)
        message.at = now
        # Nearly all: the next token, with nothing to think of. What is held is asked for, too.
        if index == message.next and not (envelope.command or message.asked or message.soft or message.lost):
            message.next = index + 1
            return DELIVER
        if message.lost:
            return self._take_lost(message_id, envelope, now)
        if message.soft:
            message.soft = False
            message.next = min(message.next, index)
        if not envelope.command and index < message.next:
            return Verdict.DROP
        if message.held or index > message.next:
            return self._hold(message, envelope)
        if not envelope.command:
            message.next += 1
        elif envelope.command == END:
            self._end(message_id, now)
        return Verdict.DELIVER

    def _hold(self, message: _Message, envelope: Envelope) -> Verdict:
        if self._room.take(len(envelope.payload)):
            message.held.append(envelope)
        else:
            message.missed = True
        if message.asked:
            return Verdict.HOLD
        message.asked = True
        return Verdict.ASK

    def _release(self, message: _Message) -> list[Envelope]:
        held, message.held = message.held, []
        self._room.give(sum(len(envelope.payload) for envelope in held))
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
        return Verdict.DROP if envelope.detail == "complete" else Verdict.DELIVER

    # --- what was read

    def read(self, message_id: str, reading: Reading, now: float) -> Healed:
        """The log, from :meth:`next` on as it was when it was asked for."""
        message = self._messages.get(message_id)
        if message is None or not message.asked:
            return Healed()  # it went on by itself, to its end
        message.asked = False
        held, missed, message.missed = self._release(message), message.missed, False
        if reading.frames is None:
            return self._lose(message_id, message, held, reading.end, now)
        frames = list(reading.frames[message.next - reading.first :])
        tokens = len(frames)
        message.next += tokens
        if reading.end is not None:
            self._end(message_id, now)
            heard = any(envelope.command == END for envelope in held)
            return Healed((*frames, reading.end[1]), tokens, ended=not heard)
        frames += [one.payload for one in held if self.take(one, now) is Verdict.DELIVER]
        if missed and message_id in self._messages:
            message.asked = True
        if message.asked and not missed and not frames and message.stalled:
            return self._lose(message_id, message, self._release(message), None, now)
        message.stalled = message.asked and not frames
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

    # --- what else is known

    def sync(self, streaming: Mapping[str, int], ended: Mapping[str, float], now: float) -> None:
        """The channel's first subscriber is told what streams already.

        :param streaming: message -> how many tokens the subscriber is told.
        :param ended: messages that have ended of late -> how many seconds ago.
        :param now: when that was asked for.
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
        """The node may have been deaf, and hears again: :meth:`resync` follows, when Redis has answered."""
        self._deaf = True

    def resync(self, streaming: Collection[str], ended: Mapping[str, float], now: float) -> list[str]:
        """The node may have been deaf: which messages are to be read.

        :param streaming: messages that stream on the channel now.
        :param ended: those that have ended of late -> how many seconds ago.
        :param now: when that was asked for.
        """
        if not self._synced:
            self._know(ended, now)
        for message_id in (*streaming, *(one for one in ended if one not in self._before)):
            if message_id not in self._ended and message_id not in self._messages:
                self._messages[message_id] = _Message(0, now)
        for message in self._messages.values():
            message.missed = message.asked  # that reading may be from before
        return self._ask(self._messages.items())

    def idle(self, now: float) -> list[str]:
        """Messages that are silent for long, to be read. Forgets what nobody asks for any more."""
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
