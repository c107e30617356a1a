"""Readers of the logs of replies: from an offset on, live behind that, without a gap or a repetition.

The log is the only source. A listener on the reply's channel says when to read on, and one reading serves all
readers of a reply that have caught up (:mod:`.tail`). A reader queues nothing: one whose peer is slow asks
again when it likes, and goes on where it was.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from legato.broadcaster.bus.base import BusError
from legato.broadcaster.channels.listener import ChannelListener
from legato.broadcaster.door_limits import LISTEN_SECONDS, LOG_READ_ENTRIES
from legato.broadcaster.limits import CONCURRENT_LOG_READS
from legato.broadcaster.replies.logs import ExpiredError, LogRange

from .tail import Tail

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from legato.broadcaster.channels.hub import Hub
    from legato.broadcaster.channels.subscriber import Key
    from legato.broadcaster.replies.logs import ReplyLogs


class _Channel:
    """A channel whose replies are read on this node."""

    def __init__(self, hub: Hub, key: Key) -> None:
        self.tails: dict[str, tuple[bytes, Tail, set[LogReader]]] = {}
        self.ready = asyncio.Event()
        self.listener = ChannelListener(hub, key, self.ready.set, self._heard)

    def _heard(self, frames: bytes) -> None:
        for name, tail, _ in self.tails.values():
            if name in frames:  # its id is in every frame of a reply
                tail.wake()


class LogReaders:
    """All readers on this node.

    :param hub: has one subscription per channel, however many read.
    """

    def __init__(self, logs: ReplyLogs, hub: Hub) -> None:
        self._logs = logs
        self._hub = hub
        self._channels: dict[Key, _Channel] = {}
        self._reads = asyncio.Semaphore(CONCURRENT_LOG_READS)

    def __len__(self) -> int:
        return sum(len(readers) for one in self._channels.values() for _, _, readers in one.tails.values())

    def open(
        self, key: Key, message_id: str, offset: int = 0, closed: Callable[[], None] | None = None
    ) -> LogReader:
        """A reader; close it.

        :param closed: called when it is closed, once.
        """
        return LogReader(self, key, message_id, offset, closed)

    def are_reading(self, key: Key, message_id: str) -> bool:
        """Whether anybody reads this reply."""
        channel = self._channels.get(key)
        return channel is not None and message_id in channel.tails

    def join(self, reader: LogReader) -> tuple[Tail, asyncio.Event]:
        """Add a reader. Answers what it shares, and the event that the channel is delivered."""
        channel = self._channels.get(reader.key)
        if channel is None:
            channel = self._channels[reader.key] = _Channel(self._hub, reader.key)
            channel.listener.start()
        name = reader.message_id
        if name not in channel.tails:
            read = partial(self._logs.range, reader.key, name)
            channel.tails[name] = name.encode(), Tail(read), set()
        _, tail, readers = channel.tails[name]
        readers.add(reader)
        return tail, channel.ready

    def leave(self, reader: LogReader) -> None:
        """Remove a reader. Idempotent."""
        channel = self._channels.get(reader.key)
        if channel is None or reader.message_id not in channel.tails:
            return
        _, tail, readers = channel.tails[reader.message_id]
        readers.discard(reader)
        if readers:
            return
        tail.close()
        del channel.tails[reader.message_id]
        if not channel.tails:
            channel.listener.stop()
            del self._channels[reader.key]

    async def read(self, reader: LogReader) -> LogRange | None:
        """Read the log from the reader's offset on; None if there is no such reply."""
        async with self._reads:  # a pool without a free connection fails after a while
            return await self._logs.range(reader.key, reader.message_id, reader.offset, LOG_READ_ENTRIES)


class LogReader:
    """Reads one reply.

    :ivar offset: of the next entry.
    """

    def __init__(
        self,
        readers: LogReaders,
        key: Key,
        message_id: str,
        offset: int,
        closed: Callable[[], None] | None = None,
    ) -> None:
        self._readers = readers
        self._closed = closed
        self._seen: LogRange | None = None
        self.key = key
        self.message_id = message_id
        self.offset = offset
        self._tail, self._ready = readers.join(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Read nothing more. Idempotent."""
        self._readers.leave(self)
        if (closed := self._closed) is not None:
            self._closed = None
            closed()

    async def begin(self) -> LogRange | None:
        """The first reading; None if there is no such reply.

        :raises BusError: Redis does not answer.
        :raises ExpiredError: the log has expired.
        """
        try:
            async with asyncio.timeout(LISTEN_SECONDS):
                await self._ready.wait()
        except TimeoutError:
            raise BusError("the bus does not deliver the channel") from None
        if self._tail.failure is None and (shared := self._from_tail()) is not None:
            return shared
        return await self._read()

    async def look(self) -> LogRange:
        """Read what the log itself has from the offset on: what readers share may be behind another node's.

        :raises BusError: Redis does not answer.
        :raises ExpiredError: the log has expired.
        """
        found = await self._read()
        if found is None:
            raise ExpiredError
        return found

    async def next(self) -> LogRange:
        """Wait until the reply has more, or another state, and read that.

        The reading has no ``decision`` before all entries are read. Do not call it after that.

        :raises BusError: Redis has not answered for long.
        :raises ExpiredError: the log has expired.
        """
        tail = self._tail
        while True:
            if not tail.covers(self.offset):
                return await self.look()
            if (shared := self._from_tail()) is not None:
                return shared
            if tail.failure is not None:
                raise tail.failure
            await tail.changed()

    async def _read(self) -> LogRange | None:
        """Read the log, for the other readers, too."""
        found = await self._readers.read(self)
        if found is None:
            return None
        self._tail.offer(found)
        return self._take(found)

    def _from_tail(self) -> LogRange | None:
        """What others have read for this reader, if that is news."""
        tail, latest = self._tail, self._tail.latest
        if latest is None or not tail.covers(self.offset):
            return None
        if tail.next == self.offset and latest is self._seen:
            return None
        found = self._take(latest._replace(first=self.offset, pieces=tail.after(self.offset)))
        self._seen = latest
        return found

    def _take(self, found: LogRange) -> LogRange:
        self.offset, self._seen = found.next, found
        return found if found.next >= found.entries else found._replace(decision=None)
