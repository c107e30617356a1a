"""Heals the replies that this node forwards: reads what the bus has lost, once for all subscribers.

:mod:`legato.protocol.healing` decides what to deliver, hold and read. This module carries it out.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final
from weakref import ref

from legato.broadcaster.bus.base import BusError
from legato.broadcaster.limits import (
    CONCURRENT_LOG_READS,
    MAX_SNAPSHOTS_PER_SUBSCRIPTION,
    SILENT_REPLY_CHECK_SECONDS,
    SNAPSHOT_ATTEMPTS,
    SNAPSHOT_RETRY_SECONDS,
)
from legato.protocol import backoff, stream
from legato.protocol.healing import DELIVER, HealedChannel, LogReading, Room, Verdict
from legato.protocol.redis.cancellation import end_task
from legato.protocol.redis.retry import FIRST, LONGEST, Backoff

from .logs import ExpiredError
from .snapshot import Observer, OutrunError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Sequence
    from typing import Any

    from legato.broadcaster.bus.base import BusChannel
    from legato.broadcaster.channels.hub import Hub
    from legato.broadcaster.channels.state import ChannelState
    from legato.broadcaster.channels.subscriber import Key
    from legato.protocol.healing import Healed
    from legato.protocol.wire import Envelope

    from .logs import ReplyLogs, StoredReply

logger: Final = logging.getLogger("legato.healing")

SNAPSHOT_PAUSES: Final = tuple(backoff.wait(failures, FIRST, LONGEST) for failures in range(1, 19))
"""Seconds between two attempts while Redis does not answer; half a minute in total."""


class _ReplyChannel(HealedChannel):
    """The healing state of a channel, with its hub state and its observers.

    The hub state is valid while the channel has subscribers. Afterwards the channel is ``closed``.
    """

    __slots__ = ("closed", "observers", "state")

    def __init__(self, state: ChannelState, room: Room, now: float) -> None:
        super().__init__(room, now)
        self.state = state
        self.observers: list[ref[Observer]] = []
        self.closed = False

    def observe(self) -> Observer:
        """Start an observer of the delivered frames, which ends when its last reference is dropped."""
        observer = Observer()
        self.observers.append(ref(observer, self.observers.remove))
        return observer

    @property
    def observing(self) -> Iterable[Observer]:
        """The observers that still exist."""
        return [observer for one in self.observers if (observer := one()) is not None]

    def show(self, envelope: Envelope) -> None:
        """Show a delivered frame to the observers."""
        for observer in self.observing:
            observer.see(envelope)


class Healer:
    """Heals the replies on this node's channels.

    :param now: a monotonic clock in seconds.
    :param spawn: runs a coroutine in the background.
    :param passed: waits until everything published on channels so far is delivered or lost.
    :ivar tokens: tokens and other parts read from logs, counted once per channel.
    :ivar endings: terminal events made from logs.
    :ivar failed: messages that could not be healed from the log, and are no longer forwarded.
    """

    def __init__(
        self,
        replies: ReplyLogs,
        hub: Hub,
        now: Callable[[], float],
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        passed: Callable[[Iterable[Key]], Coroutine[Any, Any, None]],
    ) -> None:
        self._replies = replies
        self._hub = hub
        self._now = now
        self._spawn = spawn
        self._passed = passed
        self._room = Room()
        self._channels: dict[Key, _ReplyChannel] = {}
        self._readings = asyncio.Semaphore(CONCURRENT_LOG_READS)
        self._sweeping: asyncio.Task[None] | None = None
        self.tokens = 0
        self.endings = 0
        self.failed = 0

    def start(self) -> None:
        """Start the sweep for silent messages."""
        self._sweeping = asyncio.create_task(self.sweep())

    async def close(self) -> None:
        """Stop the sweep."""
        if self._sweeping is not None:
            await end_task(self._sweeping)

    def take(self, source: BusChannel, envelope: Envelope) -> None:
        """Take a frame of a reply (one with ``stream``) from the bus."""
        channel: _ReplyChannel | None = source.cached
        if channel is None or channel.closed:
            source.cached = channel = self._channel(source.key)
            if channel is None:
                return
        verdict = channel.take(envelope, self._now())
        if verdict is DELIVER:
            if channel.observers:
                channel.show(envelope)
            self._hub.put(channel.state, envelope.payload, envelope.except_socket_id)
        elif verdict is Verdict.SKIP:
            channel.show(envelope)
        elif verdict is Verdict.DELIVER_LINES:
            channel.show(envelope)
            for frame in envelope.payload.split(b"\n"):
                self._hub.put(channel.state, frame, envelope.except_socket_id)
        elif verdict is Verdict.ASK and envelope.stream is not None:
            self._heal(source.key, channel, envelope.stream[0])

    def drop(self, key: Key) -> None:
        """Forget a channel without local subscribers."""
        channel = self._channels.pop(key, None)
        if channel is not None:
            channel.close()
            channel.closed = True

    def _channel(self, key: Key) -> _ReplyChannel | None:
        channel = self._channels.get(key)
        if channel is None and (state := self._hub.channel(key)) is not None:
            channel = self._channels[key] = _ReplyChannel(state, self._room, self._now())
        return channel

    def open(self, key: Key) -> None:
        """Prepare a chat channel that the bus delivers from now on."""
        if self._replies.is_chat(key):
            self._channel(key)

    def concerns(self, key: Key) -> bool:
        """Whether the channel carries replies, as far as known."""
        return key in self._channels or self._replies.is_chat(key)

    def observe(self, key: Key) -> Observer | None:
        """Start an observer for a new subscriber. None if the channel carries no replies."""
        channel = self._channel(key) if self._replies.is_chat(key) else None
        return None if channel is None else channel.observe()

    # --- healing

    def deafen(self, key: Key) -> None:
        """Note that the channel may have missed messages. :meth:`resync` has to follow."""
        if self.concerns(key) and (channel := self._channel(key)) is not None:
            channel.deafen()

    async def resync(self, keys: Sequence[Key]) -> None:
        """Heal channels that may have missed messages.

        :raises BusError: Redis does not answer.
        """
        asked = self._now()
        found = await self._replies.around(keys)
        for key, (streaming, ended) in zip(keys, found, strict=True):
            channel = self._channel(key)
            if channel is not None:
                self._heal(key, channel, *channel.resync(streaming, ended, asked))

    def _heal(self, key: Key, channel: _ReplyChannel, *message_ids: str) -> None:
        for message_id in message_ids:
            self._spawn(self._read(key, channel, message_id))

    async def _read(self, key: Key, channel: _ReplyChannel, message_id: str) -> None:
        """Heal a message until nothing is missing, or the channel has no subscribers."""
        again = True
        while again and (reading := await self._reading(key, channel, message_id)) is not None:
            again = self._channels.get(key) is channel and self._deliver(key, channel, message_id, reading)

    async def _reading(self, key: Key, channel: _ReplyChannel, message_id: str) -> LogReading | None:
        """Read the log, retrying while Redis does not answer. None if it is no longer needed."""
        waits: Backoff | None = None
        while self._channels.get(key) is channel and (first := channel.next(message_id)) is not None:
            try:
                async with self._readings:
                    return await self._replies.missing(key, message_id, first)
            except BusError as error:
                if waits is None:
                    waits = Backoff()
                    logger.warning("a reply cannot be healed yet: %s", error)
                await waits.wait()
            except Exception:  # the log is not in the worker's format
                logger.exception("reply %s: the log cannot be read", message_id)
                return LogReading(first, None)
        return None

    def _deliver(self, key: Key, channel: _ReplyChannel, message_id: str, reading: LogReading) -> bool:
        """Deliver what was read. Returns whether the log has to be read again."""
        healed: Healed = channel.read(message_id, reading, self._now())
        if reading.end is not None and reading.frames is not None and channel.next(message_id) is None:
            for observer in channel.observing:
                observer.end(message_id, reading.end[0], reading.first + len(reading.frames))
        for frames in healed.frames:
            for frame in frames.split(b"\n"):
                self._hub.deliver(key, frame)
        self.tokens += healed.tokens
        self.endings += healed.ended
        if healed.lost:
            self.failed += 1
            logger.warning("reply %s: the log lacks the missing tokens; it is given up", message_id)
        return healed.again

    async def sweep(self) -> None:
        """Forever: heal messages that have been silent for long."""
        while True:
            await asyncio.sleep(SILENT_REPLY_CHECK_SECONDS)
            for key, channel in list(self._channels.items()):
                self._heal(key, channel, *channel.idle(self._now()))

    # --- late subscribers

    async def snapshots(self, key: Key, observer: Observer) -> list[bytes]:
        """Make the snapshots of replies that stream, or have ended since the subscription.

        They have to be written before anything else is delivered: each ends exactly where the channel is.

        :param observer: the subscriber's own, from :meth:`observe`.
        :raises BusError: Redis does not answer, after several attempts.
        """
        pauses = iter(SNAPSHOT_PAUSES)
        for _ in range(SNAPSHOT_ATTEMPTS):
            channel = self._channels.get(key)
            if channel is None or observer not in channel.observing:  # it has left meanwhile
                break
            try:
                replies = await self._read_all(key, channel, observer)
                await self._catch_up(key, channel)
                return [
                    snapshot
                    for name, reply in replies.items()
                    if (snapshot := observer.snapshot(key.channel, name, reply, channel.next(name)))
                ]
            except OutrunError:
                observer.forget()
                await asyncio.sleep(SNAPSHOT_RETRY_SECONDS)
            except BusError:  # after a restart of Redis, dead connections are found one by one
                pause = next(pauses, None)
                if pause is None:
                    raise
                await asyncio.sleep(pause)
        return []

    async def _catch_up(self, key: Key, channel: HealedChannel) -> None:
        """Wait until the bus has delivered what is in the log already, if the node cannot know how much.

        Otherwise entries that are part of a snapshot could follow it.
        """
        if channel.soft:
            await self._passed([key])
            channel.settle()

    async def _read_all(self, key: Key, channel: HealedChannel, observer: Observer) -> dict[str, StoredReply]:
        asked = self._now()
        ((streaming, ended),) = await self._replies.around([key])
        ids = sorted({*streaming, *channel.messages, *observer.messages})[:MAX_SNAPSHOTS_PER_SUBSCRIPTION]
        found = await asyncio.gather(*(self._reply(key, message_id) for message_id in ids))
        known = {name: reply for name, reply in zip(ids, found, strict=True) if reply is not None}
        live = {name: reply.offset for name, reply in known.items() if reply.status not in stream.ENDS}
        channel.sync(live, ended, asked)
        return known

    async def _reply(self, key: Key, message_id: str) -> StoredReply | None:
        try:
            return await self._replies.on_channel(key, message_id)
        except ExpiredError:
            return None
