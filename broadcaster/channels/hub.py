"""The synchronous registry of this node's subscriptions, and the fan-out with group commit.

Delivering appends to the channel's pending frames; one flush at the end of the loop iteration joins them
and writes once per connection. The system call is the price of fan-out, so messages that arrive together
share it; when the node is idle the added latency is one loop turn.

A flush holds the loop for :data:`FLUSH_SECONDS` and goes on in the next turn, as long as it keeps up:
channels take turns of :data:`CHUNK` writes, and what is published meanwhile waits until the pass over its
channel has ended.
"""

from __future__ import annotations

import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from legato.broadcaster.transport.cut import cut
from legato.broadcaster.transport.frames import text_frame

from .channel import Outlet
from .fanout import Pass, Pending, write_each
from .subscriber import Key, Subscriber

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from .fanout import Write

    Group = dict[Subscriber, Any]

__all__ = ["BEHIND", "CHUNK", "CROWD", "FLUSH_SECONDS", "HELD_WRITES", "Hub", "Key", "Subscriber"]


HELD_WRITES: Final = 10_000
"""What may be kept for a subscriber that has not been answered yet. They are shared by all subscribers."""

FLUSH_SECONDS: Final = 0.003
"""How long the writes of one loop turn may take, all channels together."""

CHUNK: Final = 64
"""Writes between two looks at the clock, and of one channel before another has its turn."""

CROWD: Final = range(64)
"""Subscribers of one channel whose subscription goes on in one turn of the loop."""

BEHIND: Final = 16
"""Messages that may wait for passes to end. With more of them a flush takes its time: in between, more would
come, and as publishers are answered at once, nothing else would slow them down.
"""


class Hub:
    """All subscriptions of this node.

    :param call_soon: runs a function at the end of the loop iteration.
    :param first: called when a channel gets its first local subscriber; the channel delivers once
        :meth:`confirm` is called, at once or later.
    :param last: called when a channel has lost its last local subscriber.
    :param ready: called when a subscriber's channel delivers: from here on what is published is kept for it
        until :meth:`admit`.
    :param clock: seconds, for the time that a flush takes. Not the loop's: uvloop's stands still in a turn.
    :param chunk: as :data:`CHUNK`.
    """

    def __init__(
        self,
        call_soon: Callable[[Callable[[], None]], object],
        first: Callable[[Key], None],
        last: Callable[[Key], None],
        ready: Callable[[Subscriber, Key], None],
        clock: Callable[[], float] = time.monotonic,
        chunk: int = CHUNK,
    ) -> None:
        self._call_soon = call_soon
        self._clock = clock
        self._chunk = chunk
        self._first = first
        self._last = last
        self._ready = ready
        self._channels: dict[Key, Outlet] = {}
        self._dirty: deque[Outlet] = deque()
        self._scheduled = False
        self._behind = 0
        self._gone: set[Subscriber] = set()
        self.messages = 0
        self.deliveries = 0
        self.writes = 0

    def __len__(self) -> int:
        return len(self._channels)

    def count(self, key: Key) -> int:
        """Local subscribers of a channel."""
        channel = self._channels.get(key)
        return 0 if channel is None else len(channel)

    def waits(self, subscriber: Subscriber, key: Key) -> bool:
        """Whether ``ready`` has not been called for it yet."""
        channel = self._channels.get(key)
        return channel is not None and subscriber in channel.waiting

    def subscribers(self, key: Key) -> list[Subscriber]:
        """Local subscribers of a channel, those who have not been answered yet too."""
        channel = self._channels.get(key)
        if channel is None:
            return []
        there = (*channel.fast, *channel.slow, *channel.held, *channel.waiting)
        return [one for one in there if one not in self._gone]

    def unanswered(self, key: Key) -> list[Subscriber]:
        """Those of them who have not been answered yet."""
        channel = self._channels.get(key)
        return [] if channel is None else [*channel.held, *channel.waiting]

    def subscribe(self, subscriber: Subscriber, key: Key) -> None:
        """Add a subscriber; ``ready`` is called for it, at once or when the bus delivers the channel."""
        channel = self._channels.get(key)
        if channel is None:
            channel = self._channels[key] = Outlet()
            channel.waiting[subscriber] = None
            self._first(key)
            return
        if channel.ready:
            self._hold(key, channel, subscriber)
        else:
            channel.waiting[subscriber] = None

    def confirm(self, key: Key) -> bool:
        """The bus delivers the channel from now on.

        :returns: whether it did so before: then it may have missed something in between.
        """
        channel = self._channels.get(key)
        if channel is None:
            return False
        again, channel.confirmed = channel.confirmed, True
        if channel.ready:  # it was asked once more, and has delivered all the time
            return False
        channel.ready = True
        self._hold_some(key, channel)
        return again

    def _hold_some(self, key: Key, channel: Outlet) -> None:
        """Of those who wait a few in each turn of the loop: what follows costs more than a write."""
        # Answering one may close it, and so change what is left: one at a time, off the dict itself.
        for _ in CROWD:
            if not channel.waiting or not channel.ready:
                break
            subscriber = next(iter(channel.waiting))
            del channel.waiting[subscriber]
            if subscriber not in self._gone:
                try:
                    self._hold(key, channel, subscriber)
                except Exception as error:  # noqa: BLE001 - whatever it is, the others are answered
                    cut(subscriber, "answering it", error)
        else:
            self._call_soon(partial(self._hold_some, key, channel))
        if not channel.waiting:
            channel.waiting = {}  # a dictionary that had entries keeps their room

    def suspend(self, keys: Iterable[Key]) -> None:
        """The bus does not deliver these now: whoever subscribes to one waits until it is confirmed again."""
        for key in keys:
            if channel := self._channels.get(key):
                channel.ready = False

    def _hold(self, key: Key, channel: Outlet, subscriber: Subscriber) -> None:
        if (
            subscriber not in channel.fast
            and subscriber not in channel.slow
            and subscriber not in channel.held
        ):
            channel.held[subscriber] = []
            channel.writes = None
            if channel.pending.frames:  # published before this subscription: not this subscriber's
                channel.pending.begin(subscriber)
        self._ready(subscriber, key)

    def admit(self, subscriber: Subscriber, key: Key, reply: bytes) -> None:
        """Write ``reply``, frames or nothing, then what was kept; from now on deliver as it comes.

        One that is admitted already gets the reply behind what was published before; one that is gone,
        nothing.
        """
        channel = self._channels.get(key)
        if channel is None:
            return
        if subscriber in channel.held:
            kept = channel.held.pop(subscriber)
            if not channel.held:
                channel.held = {}  # as above
            if subscriber.slow:
                channel.slow[subscriber] = subscriber.enqueue
            else:
                channel.fast[subscriber] = subscriber.write_now
            reply = b"".join((reply, *kept))
        elif subscriber not in channel.fast and subscriber not in channel.slow:
            return
        elif reply:
            reply = b"".join((*self._owed(channel, subscriber), reply))
        if reply:
            subscriber.write(reply)

    def catch_up(self, subscriber: Subscriber) -> None:
        """Write at once what has been published in its channels and not been written to it yet.

        For one that is about to be closed, or is sent something that must not come before that.
        """
        keys = subscriber.subscriptions() if self._dirty else ()
        channels: Iterable[Outlet | None] = map(self._channels.get, keys)
        if len(self._dirty) < len(keys):  # nothing waits elsewhere
            channels = list(self._dirty)
        for channel in channels:
            if channel is not None and (frames := self._owed(channel, subscriber)):
                self.writes += 1
                subscriber.write(b"".join(frames))

    def _owed(self, channel: Outlet, subscriber: Subscriber) -> list[bytes]:
        """What it has not been written yet, which is left to the caller from now on."""
        if subscriber not in channel.fast and subscriber not in channel.slow:
            return []
        frames = [] if channel.going is None else channel.going.owed(subscriber)
        if channel.pending.frames:
            frames = frames + channel.pending.share(subscriber)
            channel.pending.begin(subscriber)
            channel.writes = None
        self.deliveries += len(frames)
        return frames

    def unsubscribe(self, subscriber: Subscriber, key: Key) -> None:
        """Remove a subscriber; nothing of the channel reaches it any more. Idempotent."""
        channel = self._channels.get(key)
        if channel is None:
            return
        groups: tuple[Group, ...] = channel.fast, channel.slow, channel.held, channel.waiting
        for group in groups:
            if group:
                group.pop(subscriber, None)
        channel.writes = None
        if channel.going is not None:
            channel.going.leave(subscriber)
        if not len(channel):
            del self._channels[key]
            self._end_pass(channel)
            channel.pending = Pending()
            self._last(key)

    def depart(self, subscriber: Subscriber) -> None:
        """Nothing reaches it any more, though it is unsubscribed from its channels one by one, later."""
        self._gone.add(subscriber)

    def departed(self, subscriber: Subscriber) -> None:
        """It has no channel any more. Idempotent."""
        self._gone.discard(subscriber)

    def _let_go(self, channel: Outlet) -> None:
        """Before something is written: whoever has departed is not in the channel any more."""
        groups: tuple[Group, ...] = channel.fast, channel.slow, channel.held
        for group in groups:
            if not group.keys().isdisjoint(self._gone):
                channel.writes = None
                for subscriber in [one for one in group if one in self._gone]:
                    del group[subscriber]
                    if channel.going is not None:
                        channel.going.leave(subscriber)

    def set_slow(self, subscriber: Subscriber, slow: bool) -> None:
        """Move a subscriber out of the fast sets, or back, in all its channels."""
        for key in subscriber.subscriptions():
            channel = self._channels.get(key)
            if channel is None:
                continue
            if slow and channel.fast.pop(subscriber, None) is not None:
                channel.slow[subscriber] = subscriber.enqueue
            elif not slow and channel.slow.pop(subscriber, None) is not None:
                channel.fast[subscriber] = subscriber.write_now
            else:
                continue
            channel.writes = None
            if channel.going is not None:
                channel.going.change()

    def deliver(
        self, key: Key, payload: bytes, except_socket_id: str | None = None, nor: Collection[str] = ()
    ) -> None:
        """Fan a message out to the local subscribers, in the order of these calls, once this loop turn ends.

        :param payload: the Pusher message, UTF-8 JSON; the frame around it is built once.
        :param nor: more sockets that do not get it.
        """
        channel = self._channels.get(key)
        if channel is not None:
            self.put(channel, payload, except_socket_id, nor)

    def outlet(self, key: Key) -> Outlet | None:
        """The channel for :meth:`put`, until ``last`` is called for it; None without subscribers."""
        return self._channels.get(key)

    def put(
        self,
        channel: Outlet,
        payload: bytes,
        except_socket_id: str | None = None,
        nor: Collection[str] = (),
    ) -> None:
        """:meth:`deliver`, for who has the channel at hand."""
        self.messages += 1
        pending = channel.pending
        if not channel.queued:
            channel.queued = True
            self._dirty.append(channel)
            if not self._scheduled:
                self._scheduled = True
                self._call_soon(self.flush)
        if except_socket_id is not None or nor:
            channel.writes = None
            pending.exclude(*(() if except_socket_id is None else (except_socket_id,)), *nor)
        pending.frames.append(text_frame(payload))
        if channel.going is not None:
            self._behind += 1

    def flush(self) -> None:
        """Write what is pending, as much as the time allows; the rest in the next loop turn."""
        dirty = self._dirty
        gone = self._gone
        until = self._clock() + FLUSH_SECONDS
        credit = self._chunk
        try:
            while dirty:
                channel = dirty.popleft()
                if gone:
                    self._let_go(channel)
                if channel.writes is None:
                    credit -= self._write_some(channel)
                else:
                    channel.queued = False
                    frames, channel.pending.frames = channel.pending.frames, []
                    credit -= self._write(channel, channel.writes, frames, b"".join(frames))
                if credit <= 0:
                    if self._clock() >= until and self._behind <= BEHIND:
                        break
                    credit = self._chunk
        finally:
            self._scheduled = bool(dirty)
            if dirty:
                self._call_soon(self.flush)

    def _write(self, channel: Outlet, writes: tuple[Write, ...], frames: list[bytes], joined: bytes) -> int:
        receivers = len(writes)
        self.deliveries += receivers * len(frames)
        self.writes += receivers
        try:
            for write in writes:  # one may move its socket to the slow set: for the next flush
                write(joined)
        except Exception as error:  # noqa: BLE001 - whatever it is, the others get theirs
            _cut_receiver(channel, write, error)
            write_each(writes[writes.index(write) + 1 :], joined, partial(_cut_receiver, channel))
        return receivers

    def _write_some(self, channel: Outlet) -> int:
        """At most a chunk; as many writes were tried."""
        try:
            if channel.going is not None:
                return self._go_on(channel, channel.going)
            pending, channel.pending = channel.pending, Pending()
            frames = pending.frames
            if not frames:  # its last subscriber has left
                return 0
            joined = b"".join(frames)
            if channel.held:
                self._keep(channel, pending, frames, joined)
            if pending.partial or len(channel.fast) + len(channel.slow) > self._chunk:
                return self._begin(channel, pending, joined)
            writes = (*channel.fast.values(), *channel.slow.values())
            if not channel.held and not channel.pending.partial:  # by what has come of keeping it
                channel.writes = writes
            return self._write(channel, writes, frames, joined)
        finally:
            channel.queued = channel.going is not None or bool(channel.pending.frames)
            if channel.queued:
                self._dirty.append(channel)

    def _begin(self, channel: Outlet, pending: Pending, joined: bytes) -> int:
        """A pass that may be interrupted, or that not everybody has the same of."""
        targets = {**channel.fast, **channel.slow}
        shares = {receiver: pending.share(receiver) for receiver in pending.partial_of(targets)}
        for receiver in shares:
            del targets[receiver]
        shares = {receiver: share for receiver, share in shares.items() if share}
        channel.going = Pass(pending.frames, joined, targets, shares)
        return self._go_on(channel, channel.going)

    def _go_on(self, channel: Outlet, going: Pass) -> int:
        written, frames = going.go_on(
            self._chunk, channel.fast, channel.slow, partial(_cut_receiver, channel)
        )
        self.writes += written
        self.deliveries += frames
        if going.over:
            self._end_pass(channel)
        return self._chunk

    def _end_pass(self, channel: Outlet) -> None:
        if channel.going is not None:
            channel.going = None
            self._behind -= len(channel.pending.frames)

    def _keep(self, channel: Outlet, pending: Pending, frames: list[bytes], joined: bytes) -> None:
        """For those who have not been answered yet. They are not in the pass: they have it with this."""
        partial = {receiver: pending.share(receiver) for receiver in pending.partial_of(channel.held)}
        full = []
        for subscriber, kept in channel.held.items():
            share = partial.get(subscriber, frames)
            if not share:
                continue
            kept.append(joined if share is frames else b"".join(share))
            self.writes += 1
            self.deliveries += len(share)
            if len(kept) > HELD_WRITES:
                full.append(subscriber)
        for subscriber in full:
            try:
                subscriber.overwhelmed()
            except Exception as error:  # noqa: BLE001 - whatever it is, the others get theirs
                cut(subscriber, "closing it", error)


def _cut_receiver(channel: Outlet, write: Write, error: Exception) -> None:
    """The one whose ``write`` has failed."""
    for receiver in (*channel.fast, *channel.slow):
        if write in (receiver.write_now, receiver.enqueue):
            cut(receiver, "writing to it", error)
            return
