"""The hub: the local subscriptions of this node, and the states they go through."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from legato.broadcaster.limits import SUBSCRIPTIONS_PER_TURN
from legato.broadcaster.transport.cut import cut

from .state import ChannelState

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from .fanout import Fanout
    from .subscriber import Key, Subscriber

    Group = dict[Subscriber, Any]

_TURN: Final = range(SUBSCRIPTIONS_PER_TURN)  # made once: every subscription passes through the loop


class HubHandler(Protocol):
    """Receives the events of channels. The calls are synchronous, from within calls to the hub."""

    def opened(self, key: Key) -> None:
        """The channel has its first local subscriber. Answer with :meth:`Hub.confirm` once it delivers."""

    def ready(self, subscriber: Subscriber, key: Key) -> None:
        """The subscriber's channel delivers. Messages are buffered for it until :meth:`Hub.admit`.

        Called once for each call of :meth:`Hub.subscribe`.
        """

    def vacated(self, key: Key) -> None:
        """The channel has lost its last local subscriber."""


class Hub:
    """All subscriptions of this node.

    :param call_soon: runs a function at the end of the loop turn.
    :param fanout: writes the delivered messages.
    """

    def __init__(self, call_soon: Callable[[Callable[[], None]], object], fanout: Fanout) -> None:
        self._call_soon = call_soon
        self._fanout = fanout
        self._departed = fanout.departed
        self._channels: dict[Key, ChannelState] = {}
        self.put = fanout.put

    def start(self, handler: HubHandler) -> None:
        """Set the handler."""
        self._opened = handler.opened
        self._ready = handler.ready
        self._vacated = handler.vacated

    def __len__(self) -> int:
        return len(self._channels)

    def count(self, key: Key) -> int:
        """The number of a channel's local subscribers."""
        channel = self._channels.get(key)
        return 0 if channel is None else len(channel)

    def waits(self, subscriber: Subscriber, key: Key) -> bool:
        """Whether a subscriber still waits for the bus: ``ready`` has not been called for it."""
        channel = self._channels.get(key)
        return channel is not None and subscriber in channel.waiting

    def subscribers(self, key: Key) -> list[Subscriber]:
        """The local subscribers of a channel, including those that are not answered yet."""
        channel = self._channels.get(key)
        if channel is None:
            return []
        there = (*channel.fast, *channel.slow, *channel.held, *channel.waiting)
        return [one for one in there if one not in self._departed]

    def unanswered(self, key: Key) -> list[Subscriber]:
        """The local subscribers of a channel that are not answered yet."""
        channel = self._channels.get(key)
        return [] if channel is None else [*channel.held, *channel.waiting]

    def subscribe(self, subscriber: Subscriber, key: Key) -> None:
        """Add a subscriber. ``ready`` is called for it, at once or once the bus delivers the channel."""
        channel = self._channels.get(key)
        if channel is None:
            channel = self._channels[key] = ChannelState()
            channel.waiting[subscriber] = None
            self._opened(key)
            return
        if channel.ready:
            self._hold(key, channel, subscriber)
        else:
            channel.waiting[subscriber] = None

    def confirm(self, key: Key) -> bool:
        """Note that the bus delivers the channel from now on.

        :returns: whether it was delivered before and may have missed messages in between.
        """
        channel = self._channels.get(key)
        if channel is None:
            return False
        again, channel.confirmed = channel.confirmed, True
        if channel.ready:  # a repeated request: it was delivered all the time
            return False
        channel.ready = True
        self._hold_some(key, channel)
        return again

    def _hold_some(self, key: Key, channel: ChannelState) -> None:
        """Continue waiting subscriptions, a few per turn of the loop: each costs more than a write."""
        # `ready` may close a subscriber and so change the dict: take one at a time, and do not iterate.
        for _ in _TURN:
            if not channel.waiting or not channel.ready:
                break
            subscriber = next(iter(channel.waiting))
            del channel.waiting[subscriber]
            if subscriber not in self._departed:
                try:
                    self._hold(key, channel, subscriber)
                except Exception as error:  # noqa: BLE001 - an error of one must not stop the others
                    cut(subscriber, "answering it", error)
        else:
            self._call_soon(partial(self._hold_some, key, channel))
        if not channel.waiting:
            channel.waiting = {}  # an emptied dict keeps its memory

    def suspend(self, keys: Iterable[Key]) -> None:
        """Note that the bus does not deliver these channels. New subscribers wait for a confirmation."""
        for key in keys:
            if channel := self._channels.get(key):
                channel.ready = False

    def _hold(self, key: Key, channel: ChannelState, subscriber: Subscriber) -> None:
        if (
            subscriber not in channel.fast
            and subscriber not in channel.slow
            and subscriber not in channel.held
        ):
            channel.held[subscriber] = []
            channel.writes = None
            if channel.pending.frames:  # published before this subscription began
                channel.pending.begin(subscriber)
        self._ready(subscriber, key)

    def admit(self, subscriber: Subscriber, key: Key, reply: bytes) -> None:
        """Write ``reply`` (frames, may be empty), then the buffered messages; then deliver directly.

        A subscriber that is admitted already gets the reply after what was published before. One that has
        left gets nothing.
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
            reply = b"".join((*self._fanout.owed(channel, subscriber), reply))
        if reply:
            subscriber.write(reply)

    def catch_up(self, subscriber: Subscriber) -> None:
        """Write at once everything that is pending for a subscriber in its channels.

        Needed before it is closed, or before a frame that must not overtake the pending ones.
        """
        if self._fanout.dirty:
            channels = [self._channels.get(key) for key in subscriber.subscriptions()]
            self._fanout.catch_up(subscriber, channels)

    def unsubscribe(self, subscriber: Subscriber, key: Key) -> None:
        """Remove a subscriber. It gets nothing more of the channel. Idempotent."""
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
            self._fanout.vacate(channel)
            self._vacated(key)

    def depart(self, subscriber: Subscriber) -> None:
        """Stop all delivery to a subscriber at once. Its channels are unsubscribed one by one later."""
        self._departed.add(subscriber)

    def departed(self, subscriber: Subscriber) -> None:
        """Forget a departed subscriber that has left all its channels. Idempotent."""
        self._departed.discard(subscriber)

    def set_slow(self, subscriber: Subscriber, slow: bool) -> None:
        """Move a subscriber between the fast and slow sets of all its channels."""
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
        """Fan a message out to the local subscribers at the end of this loop turn, in the order of calls.

        :param payload: the Pusher message, UTF-8 JSON; the frame around it is built once.
        :param nor: further socket ids to exclude.
        """
        channel = self._channels.get(key)
        if channel is not None:
            self.put(channel, payload, except_socket_id, nor)

    def channel(self, key: Key) -> ChannelState | None:
        """The channel's state for :meth:`put`, valid until it is vacated. None without subscribers."""
        return self._channels.get(key)
