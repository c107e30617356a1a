"""The fan-out with group commit: frames of one loop turn share one write per connection.

:meth:`Fanout.put` appends to the channel's pending frames. One flush at the end of the loop turn joins them
and writes once per connection. The system call is what a fan-out costs, so messages that arrive together
share it. On an idle node this adds a latency of one loop turn.

A flush holds the loop for at most :data:`FLUSH_SECONDS` and continues in the next turn, unless too many
messages wait (:data:`FLUSH_BACKLOG_MESSAGES`). Channels take turns of :data:`WRITES_PER_CLOCK_READ` writes.
Frames published during a pass over their channel wait until the pass has ended.
"""

from __future__ import annotations

import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

from legato.broadcaster.limits import (
    FLUSH_BACKLOG_MESSAGES,
    FLUSH_SECONDS,
    MAX_HELD_WRITES,
    WRITES_PER_CLOCK_READ,
)
from legato.broadcaster.transport.cut import cut
from legato.broadcaster.transport.frames import text_frame

from .passes import Pass, Pending, write_each

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from .passes import Write
    from .state import ChannelState
    from .subscriber import Subscriber

    Group = dict[Subscriber, Any]


class Fanout:
    """Writes pending frames to the subscribers of each channel.

    :param call_soon: runs a function at the end of the loop turn.
    :param clock: a clock in seconds. Not the loop's: uvloop updates its clock only once per turn.
    :param chunk: as :data:`WRITES_PER_CLOCK_READ`.
    :ivar dirty: channels with pending frames.
    :ivar departed: subscribers that get nothing more, though channels may still list them.
    :ivar messages: messages put, over all channels.
    :ivar deliveries: messages written, counted once per subscriber.
    :ivar writes: socket writes.
    """

    def __init__(
        self,
        call_soon: Callable[[Callable[[], None]], object],
        clock: Callable[[], float] = time.monotonic,
        chunk: int = WRITES_PER_CLOCK_READ,
    ) -> None:
        self._call_soon = call_soon
        self._clock = clock
        self._chunk = chunk
        self.dirty: deque[ChannelState] = deque()
        self._scheduled = False
        self._behind = 0
        self.departed: set[Subscriber] = set()
        self.messages = 0
        self.deliveries = 0
        self.writes = 0

    def put(
        self,
        channel: ChannelState,
        payload: bytes,
        except_socket_id: str | None = None,
        nor: Collection[str] = (),
    ) -> None:
        """Add a message to the channel's pending frames. The frame is built once.

        :param payload: the Pusher message, UTF-8 JSON.
        :param nor: further socket ids to exclude.
        """
        self.messages += 1
        pending = channel.pending
        if not channel.queued:
            channel.queued = True
            self.dirty.append(channel)
            if not self._scheduled:
                self._scheduled = True
                self._call_soon(self.flush)
        if except_socket_id is not None or nor:
            channel.writes = None
            pending.exclude(*(() if except_socket_id is None else (except_socket_id,)), *nor)
        pending.frames.append(text_frame(payload))
        if channel.going is not None:
            self._behind += 1

    def catch_up(self, subscriber: Subscriber, channels: Collection[ChannelState | None]) -> None:
        """Write at once what is pending for a subscriber. ``channels`` are all of its channels."""
        if len(self.dirty) < len(channels):  # only dirty channels have pending frames
            channels = list(self.dirty)
        for channel in channels:
            if channel is not None and (frames := self.owed(channel, subscriber)):
                self.writes += 1
                subscriber.write(b"".join(frames))

    def owed(self, channel: ChannelState, subscriber: Subscriber) -> list[bytes]:
        """Take the frames that are not written to this subscriber yet; the caller has to write them."""
        if subscriber not in channel.fast and subscriber not in channel.slow:
            return []
        frames = [] if channel.going is None else channel.going.owed(subscriber)
        if channel.pending.frames:
            frames = frames + channel.pending.share(subscriber)
            channel.pending.begin(subscriber)
            channel.writes = None
        self.deliveries += len(frames)
        return frames

    def vacate(self, channel: ChannelState) -> None:
        """Drop the pending frames of a channel without subscribers."""
        if channel.going is not None:
            self._end_pass(channel)
        channel.pending = Pending()

    def flush(self) -> None:
        """Write pending frames until the flush budget is used up; the rest follows in the next turn."""
        dirty = self.dirty
        departed = self.departed
        until = self._clock() + FLUSH_SECONDS
        credit = self._chunk
        try:
            while dirty:
                channel = dirty.popleft()
                if departed:
                    self._remove_departed(channel)
                if channel.writes is None:
                    credit -= self._write_some(channel)
                else:
                    channel.queued = False
                    frames, channel.pending.frames = channel.pending.frames, []
                    credit -= self._write(channel, channel.writes, frames, b"".join(frames))
                if credit <= 0:
                    if self._clock() >= until and self._behind <= FLUSH_BACKLOG_MESSAGES:
                        break
                    credit = self._chunk
        finally:
            self._scheduled = bool(dirty)
            if dirty:
                self._call_soon(self.flush)

    def _write(
        self, channel: ChannelState, writes: tuple[Write, ...], frames: list[bytes], joined: bytes
    ) -> int:
        receivers = len(writes)
        self.deliveries += receivers * len(frames)
        self.writes += receivers
        try:
            for write in writes:  # may move its socket to the slow set, from the next flush on
                write(joined)
        except Exception as error:  # noqa: BLE001 - an error of one must not stop the others
            _cut_receiver(channel, write, error)
            write_each(writes[writes.index(write) + 1 :], joined, partial(_cut_receiver, channel))
        return receivers

    def _write_some(self, channel: ChannelState) -> int:
        """Write at most one chunk. Returns the number of writes tried."""
        try:
            if channel.going is not None:
                return self._go_on(channel, channel.going)
            pending, channel.pending = channel.pending, Pending()
            frames = pending.frames
            if not frames:  # its last subscriber has left
                return 0
            joined = b"".join(frames)
            if channel.held:
                self._buffer(channel, pending, frames, joined)
            if pending.partial or len(channel.fast) + len(channel.slow) > self._chunk:
                return self._begin(channel, pending, joined)
            writes = (*channel.fast.values(), *channel.slow.values())
            if not channel.held and not channel.pending.partial:  # closing a held one can exclude others
                channel.writes = writes
            return self._write(channel, writes, frames, joined)
        finally:
            channel.queued = channel.going is not None or bool(channel.pending.frames)
            if channel.queued:
                self.dirty.append(channel)

    def _begin(self, channel: ChannelState, pending: Pending, joined: bytes) -> int:
        """Start a pass: the frames differ between receivers, or are too many writes for one chunk."""
        targets = {**channel.fast, **channel.slow}
        shares = {receiver: pending.share(receiver) for receiver in pending.partial_of(targets)}
        for receiver in shares:
            del targets[receiver]
        shares = {receiver: share for receiver, share in shares.items() if share}
        channel.going = Pass(pending.frames, joined, targets, shares)
        return self._go_on(channel, channel.going)

    def _go_on(self, channel: ChannelState, going: Pass) -> int:
        written, frames = going.go_on(
            self._chunk, channel.fast, channel.slow, partial(_cut_receiver, channel)
        )
        self.writes += written
        self.deliveries += frames
        if going.over:
            self._end_pass(channel)
        return self._chunk

    def _end_pass(self, channel: ChannelState) -> None:
        if channel.going is not None:
            channel.going = None
            self._behind -= len(channel.pending.frames)

    def _buffer(self, channel: ChannelState, pending: Pending, frames: list[bytes], joined: bytes) -> None:
        """Buffer frames for the subscribers that are not answered yet. A pass does not include these."""
        partial = {receiver: pending.share(receiver) for receiver in pending.partial_of(channel.held)}
        full = []
        for subscriber, kept in channel.held.items():
            share = partial.get(subscriber, frames)
            if not share:
                continue
            kept.append(joined if share is frames else b"".join(share))
            self.writes += 1
            self.deliveries += len(share)
            if len(kept) > MAX_HELD_WRITES:
                full.append(subscriber)
        for subscriber in full:
            try:
                subscriber.overwhelmed()
            except Exception as error:  # noqa: BLE001 - an error of one must not stop the others
                cut(subscriber, "closing it", error)

    def _remove_departed(self, channel: ChannelState) -> None:
        """Remove departed subscribers from a channel, before anything is written."""
        groups: tuple[Group, ...] = channel.fast, channel.slow, channel.held
        for group in groups:
            if not group.keys().isdisjoint(self.departed):
                channel.writes = None
                for subscriber in [one for one in group if one in self.departed]:
                    del group[subscriber]
                    if channel.going is not None:
                        channel.going.leave(subscriber)


def _cut_receiver(channel: ChannelState, write: Write, error: Exception) -> None:
    """Cut the receiver whose ``write`` has failed."""
    for receiver in (*channel.fast, *channel.slow):
        if write in (receiver.write_now, receiver.enqueue):
            cut(receiver, "writing to it", error)
            return
