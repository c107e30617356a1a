"""The synchronous registry of this node's subscriptions, and the fan-out with group commit.

Delivering appends to the channel's pending frames; one flush at the end of the loop iteration joins them
and writes once per connection. The system call is the price of fan-out, so messages that arrive together
share it; when the node is idle the added latency is one loop turn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from .frames import text_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Key(NamedTuple):
    """A channel of an application."""

    app_id: str
    channel: str


class Subscriber(Protocol):
    """A connection as the hub sees it. Hashable by identity."""

    socket_id: str
    slow: bool
    write_now: Callable[[bytes], None]
    """The transport's own write: what the fan-out calls while the socket is not slow."""

    def enqueue(self, data: bytes) -> None:
        """Keep bytes, within a bound, until the socket takes them."""

    def write(self, data: bytes) -> None:
        """One of the two, as the socket stands."""

    def subscriptions(self) -> Iterable[Key]:
        """Every channel that the connection has in the hub."""


class _Channel:
    """One channel's local subscribers.

    ``fast`` holds only sockets that take what is written, by their ``write``. ``waiting`` are those whose
    subscription the bus has not confirmed yet, with the reply that they get when it does.
    """

    __slots__ = ("excluded", "fast", "pending", "ready", "slow", "waiting")

    def __init__(self) -> None:
        self.fast: dict[Subscriber, Callable[[bytes], None]] = {}
        self.slow: dict[Subscriber, Callable[[bytes], None]] = {}
        self.waiting: dict[Subscriber, bytes] = {}
        self.pending: list[bytes] = []
        self.excluded: dict[str, set[int]] = {}
        self.ready = False

    def __len__(self) -> int:
        return len(self.fast) + len(self.slow) + len(self.waiting)

    def take(self) -> tuple[list[bytes], dict[str, set[int]]]:
        """Empty the pending list and hand it over, with the positions that each excluded socket skips."""
        taken = self.pending, self.excluded
        self.pending, self.excluded = [], {}
        return taken


class Hub:
    """All subscriptions of this node.

    :param call_soon: runs a function at the end of the loop iteration.
    :param first: called when a channel gets its first local subscriber; the channel delivers once
        :meth:`confirm` is called, at once or later.
    :param last: called when a channel has lost its last local subscriber.
    :param joined: called when a subscriber has got its reply.
    """

    def __init__(
        self,
        call_soon: Callable[[Callable[[], None]], object],
        first: Callable[[Key], None],
        last: Callable[[Key], None],
        joined: Callable[[Subscriber, Key], None] = lambda _subscriber, _key: None,
    ) -> None:
        self._call_soon = call_soon
        self._first = first
        self._last = last
        self._joined = joined
        self._channels: dict[Key, _Channel] = {}
        self._dirty: list[_Channel] = []
        self.messages = 0
        self.deliveries = 0
        self.writes = 0

    def __len__(self) -> int:
        return len(self._channels)

    def count(self, key: Key) -> int:
        """Local subscribers of a channel."""
        channel = self._channels.get(key)
        return 0 if channel is None else len(channel)

    def subscribe(self, subscriber: Subscriber, key: Key, reply: bytes) -> None:
        """Add a subscriber; it gets ``reply``, a frame, before anything of the channel. Idempotent."""
        channel = self._channels.get(key)
        if channel is None:
            channel = self._channels[key] = _Channel()
            channel.waiting[subscriber] = reply
            self._first(key)
        elif channel.ready:
            self._admit(key, channel, subscriber, reply)
        else:
            channel.waiting[subscriber] = reply

    def confirm(self, key: Key) -> None:
        """The bus delivers the channel from now on: those who wait get their replies."""
        channel = self._channels.get(key)
        if channel is None or channel.ready:
            return
        channel.ready = True
        for subscriber, reply in channel.waiting.items():
            self._admit(key, channel, subscriber, reply)
        channel.waiting.clear()

    def _admit(self, key: Key, channel: _Channel, subscriber: Subscriber, reply: bytes) -> None:
        # What was published before this subscription is not this subscriber's.
        self._flush_channel(channel)
        if subscriber.slow:
            channel.slow[subscriber] = subscriber.enqueue
        else:
            channel.fast[subscriber] = subscriber.write_now
        subscriber.write(reply)
        self._joined(subscriber, key)

    def unsubscribe(self, subscriber: Subscriber, key: Key) -> None:
        """Remove a subscriber; nothing of the channel reaches it any more. Idempotent."""
        channel = self._channels.get(key)
        if channel is None:
            return
        for group in (channel.fast, channel.slow, channel.waiting):
            group.pop(subscriber, None)
        if not len(channel):
            del self._channels[key]
            channel.take()
            self._last(key)

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

    def deliver(self, key: Key, payload: bytes, except_socket_id: str | None = None) -> None:
        """Fan a message out to the local subscribers, in the order of these calls, once this loop turn ends.

        :param payload: the Pusher message, UTF-8 JSON; the frame around it is built once.
        """
        channel = self._channels.get(key)
        if channel is None:
            return
        self.messages += 1
        if not channel.pending:
            if not self._dirty:
                self._call_soon(self.flush)
            self._dirty.append(channel)
        if except_socket_id is not None:
            channel.excluded.setdefault(except_socket_id, set()).add(len(channel.pending))
        channel.pending.append(text_frame(payload))

    def flush(self) -> None:
        """Write everything that is pending."""
        dirty, self._dirty = self._dirty, []
        for channel in dirty:
            self._flush_channel(channel)

    def _flush_channel(self, channel: _Channel) -> None:
        if not channel.pending:
            return
        frames, excluded = channel.take()
        receivers = len(channel.fast) + len(channel.slow)
        self.deliveries += receivers * len(frames)
        self.writes += receivers
        if excluded:
            self._write_excluding(channel, frames, excluded)
            return
        joined = frames[0] if len(frames) == 1 else b"".join(frames)
        # A write may move its socket to the slow set, so the loop runs over a copy.
        for write in (*channel.fast.values(), *channel.slow.values()):
            write(joined)

    def _write_excluding(self, channel: _Channel, frames: list[bytes], excluded: dict[str, set[int]]) -> None:
        joined = b"".join(frames)
        for subscriber, write in (*channel.fast.items(), *channel.slow.items()):
            skipped = excluded.get(subscriber.socket_id)
            if skipped is None:
                write(joined)
                continue
            self.deliveries -= len(skipped)
            rest = b"".join(frame for position, frame in enumerate(frames) if position not in skipped)
            if rest:
                write(rest)
            else:
                self.writes -= 1
