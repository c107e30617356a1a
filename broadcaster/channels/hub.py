"""The subscriptions of this node: who listens to which channel, and since when."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from legato.broadcaster.transport.cut import cut

from .state import ChannelState

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from .fanout import Fanout
    from .subscriber import Key, Subscriber

    Group = dict[Subscriber, Any]

CROWD: Final = range(64)
"""Subscribers of one channel whose subscription goes on in one turn of the loop."""


class HubHandler(Protocol):
    """What the hub tells of its channels. The calls are synchronous, out of calls to the hub."""

    def opened(self, key: Key) -> None:
        """The channel has its first local subscriber. It delivers once :meth:`Hub.confirm` is called."""

    def ready(self, subscriber: Subscriber, key: Key) -> None:
        """The subscriber's channel delivers: what is published is kept for it until :meth:`Hub.admit`.

        Called once for each subscription, and once more for one that is asked for again.
        """

    def vacated(self, key: Key) -> None:
        """The channel has lost its last local subscriber."""


class Hub:
    """All subscriptions of this node.

    :param call_soon: runs a function at the end of the loop iteration.
    :param fanout: writes what is delivered.
    """

    def __init__(self, call_soon: Callable[[Callable[[], None]], object], fanout: Fanout) -> None:
        self._call_soon = call_soon
        self._fanout = fanout
        self._departed = fanout.departed
        self._channels: dict[Key, ChannelState] = {}
        self.put = fanout.put

    def start(self, handler: HubHandler) -> None:
        """Tell ``handler`` from now on."""
        self._opened = handler.opened
        self._ready = handler.ready
        self._vacated = handler.vacated

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
        return [one for one in there if one not in self._departed]

    def unanswered(self, key: Key) -> list[Subscriber]:
        """Those of them who have not been answered yet."""
        channel = self._channels.get(key)
        return [] if channel is None else [*channel.held, *channel.waiting]

    def subscribe(self, subscriber: Subscriber, key: Key) -> None:
        """Add a subscriber; ``ready`` is called for it, at once or when the bus delivers the channel."""
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

    def _hold_some(self, key: Key, channel: ChannelState) -> None:
        """Of those who wait a few in each turn of the loop: what follows costs more than a write."""
        # Answering one may close it, and so change what is left: one at a time, off the dict itself.
        for _ in CROWD:
            if not channel.waiting or not channel.ready:
                break
            subscriber = next(iter(channel.waiting))
            del channel.waiting[subscriber]
            if subscriber not in self._departed:
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

    def _hold(self, key: Key, channel: ChannelState, subscriber: Subscriber) -> None:
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
            reply = b"".join((*self._fanout.owed(channel, subscriber), reply))
        if reply:
            subscriber.write(reply)

    def catch_up(self, subscriber: Subscriber) -> None:
        """Write at once what has been published in its channels and not been written to it yet.

        For one that is about to be closed, or is sent something that must not come before that.
        """
        if self._fanout.dirty:
            channels = [self._channels.get(key) for key in subscriber.subscriptions()]
            self._fanout.catch_up(subscriber, channels)

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
            self._fanout.vacate(channel)
            self._vacated(key)

    def depart(self, subscriber: Subscriber) -> None:
        """Nothing reaches it any more, though it is unsubscribed from its channels one by one, later."""
        self._departed.add(subscriber)

    def departed(self, subscriber: Subscriber) -> None:
        """It has no channel any more. Idempotent."""
        self._departed.discard(subscriber)

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

    def channel(self, key: Key) -> ChannelState | None:
        """The channel for :meth:`put`, until it is vacated; None without subscribers."""
        return self._channels.get(key)
