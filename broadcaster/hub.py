"""The synchronous registry of this node's subscriptions, and the fan-out with group commit.

Delivering appends to the channel's pending frames; one flush at the end of the loop iteration joins them
and writes once per connection. The system call is the price of fan-out, so messages that arrive together
share it; when the node is idle the added latency is one loop turn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from .frames import text_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable


HELD_WRITES: Final = 10_000
"""What may be kept for a subscriber that has not been answered yet. They are shared by all subscribers."""


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

    def overwhelmed(self) -> None:
        """More than :data:`HELD_WRITES` was published before the subscription could be answered."""

    def subscriptions(self) -> Iterable[Key]:
        """Every channel that the connection has in the hub."""


class _Channel:
    """One channel's local subscribers.

    ``fast`` holds only sockets that take what is written, by their ``write_now``. ``waiting`` are those whose
    subscription the bus has not confirmed yet; ``held`` are those who have not got their answer yet, with
    what was published meanwhile.
    """

    __slots__ = ("confirmed", "excluded", "fast", "held", "pending", "ready", "slow", "waiting")

    def __init__(self) -> None:
        self.fast: dict[Subscriber, Callable[[bytes], None]] = {}
        self.slow: dict[Subscriber, Callable[[bytes], None]] = {}
        self.held: dict[Subscriber, list[bytes]] = {}
        self.waiting: dict[Subscriber, None] = {}
        self.pending: list[bytes] = []
        self.excluded: dict[str, set[int]] = {}
        self.ready = False
        self.confirmed = False

    def __len__(self) -> int:
        return len(self.fast) + len(self.slow) + len(self.held) + len(self.waiting)

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
    :param ready: called when a subscriber's channel delivers: from here on what is published is kept for it
        until :meth:`admit`.
    """

    def __init__(
        self,
        call_soon: Callable[[Callable[[], None]], object],
        first: Callable[[Key], None],
        last: Callable[[Key], None],
        ready: Callable[[Subscriber, Key], None],
    ) -> None:
        self._call_soon = call_soon
        self._first = first
        self._last = last
        self._ready = ready
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

    def waits(self, subscriber: Subscriber, key: Key) -> bool:
        """Whether ``ready`` has not been called for it yet."""
        channel = self._channels.get(key)
        return channel is not None and subscriber in channel.waiting

    def subscribers(self, key: Key) -> list[Subscriber]:
        """Local subscribers of a channel, those who have not been answered yet too."""
        channel = self._channels.get(key)
        if channel is None:
            return []
        return [*channel.fast, *channel.slow, *channel.held, *channel.waiting]

    def unanswered(self, key: Key) -> list[Subscriber]:
        """Those of them who have not been answered yet."""
        channel = self._channels.get(key)
        return [] if channel is None else [*channel.held, *channel.waiting]

    def subscribe(self, subscriber: Subscriber, key: Key) -> None:
        """Add a subscriber; ``ready`` is called for it, at once or when the bus delivers the channel."""
        channel = self._channels.get(key)
        if channel is None:
            channel = self._channels[key] = _Channel()
            channel.waiting[subscriber] = None
            self._first(key)
            return
        # What was published before this subscription is not this subscriber's. Writing it may close slow
        # ones, and with the last of them the channel.
        self._flush_channel(channel)
        channel = self._channels.get(key)
        if channel is None:
            self.subscribe(subscriber, key)
        elif channel.ready:
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
        self._flush_channel(channel)
        channel.ready = True
        # Answering one may close it, and so change what is left: one at a time, off the dict itself.
        while channel.waiting:
            subscriber = next(iter(channel.waiting))
            del channel.waiting[subscriber]
            self._hold(key, channel, subscriber)
        return again

    def suspend(self, keys: Iterable[Key]) -> None:
        """The bus does not deliver these now: whoever subscribes to one waits until it is confirmed again."""
        for key in keys:
            if channel := self._channels.get(key):
                channel.ready = False

    def _hold(self, key: Key, channel: _Channel, subscriber: Subscriber) -> None:
        if subscriber not in channel.fast and subscriber not in channel.slow:
            channel.held.setdefault(subscriber, [])
        self._ready(subscriber, key)

    def admit(self, subscriber: Subscriber, key: Key, reply: bytes) -> None:
        """Write ``reply``, frames or nothing, then what was kept; from now on deliver as it comes.

        One that is admitted already gets the reply alone; one that is gone, nothing.
        """
        channel = self._channels.get(key)
        if channel is None:
            return
        self._flush_channel(channel)
        if subscriber in channel.held:
            kept = channel.held.pop(subscriber)
            if subscriber.slow:
                channel.slow[subscriber] = subscriber.enqueue
            else:
                channel.fast[subscriber] = subscriber.write_now
            reply = b"".join((reply, *kept))
        elif subscriber not in channel.fast and subscriber not in channel.slow:
            return
        if reply:
            subscriber.write(reply)

    def unsubscribe(self, subscriber: Subscriber, key: Key) -> None:
        """Remove a subscriber; nothing of the channel reaches it any more. Idempotent."""
        channel = self._channels.get(key)
        if channel is None:
            return
        groups: tuple[dict[Subscriber, Any], ...] = (
            channel.fast,
            channel.slow,
            channel.held,
            channel.waiting,
        )
        for group in groups:
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

    def deliver(
        self, key: Key, payload: bytes, except_socket_id: str | None = None, nor: Collection[str] = ()
    ) -> None:
        """Fan a message out to the local subscribers, in the order of these calls, once this loop turn ends.

        :param payload: the Pusher message, UTF-8 JSON; the frame around it is built once.
        :param nor: more sockets that do not get it.
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
        for socket_id in nor:
            channel.excluded.setdefault(socket_id, set()).add(len(channel.pending))
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
        receivers = len(channel.fast) + len(channel.slow) + len(channel.held)
        self.deliveries += receivers * len(frames)
        self.writes += receivers
        if excluded:
            self._write_excluding(channel, frames, excluded)
            return
        joined = frames[0] if len(frames) == 1 else b"".join(frames)
        for kept in channel.held.values():
            kept.append(joined)
        if channel.held:
            self._bound_held(channel)
        # A write may move its socket to the slow set, so the loop runs over a copy.
        for write in (*channel.fast.values(), *channel.slow.values()):
            write(joined)

    def _bound_held(self, channel: _Channel) -> None:
        full = [subscriber for subscriber, kept in channel.held.items() if len(kept) > HELD_WRITES]
        for subscriber in full:
            subscriber.overwhelmed()

    def _write_excluding(self, channel: _Channel, frames: list[bytes], excluded: dict[str, set[int]]) -> None:
        joined = b"".join(frames)
        held = ((subscriber, kept.append) for subscriber, kept in channel.held.items())
        for subscriber, write in (*channel.fast.items(), *channel.slow.items(), *held):
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
        if channel.held:
            self._bound_held(channel)
