"""The newest entries of a running reply, read from its log once for all readers on this node."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

from legato.broadcaster.bus.base import BusError
from legato.broadcaster.door_limits import (
    LOG_READ_ENTRIES,
    LOG_READ_PATIENCE_SECONDS,
    LOG_SILENCE_SECONDS,
    LOG_TAIL_ENTRIES,
)
from legato.broadcaster.replies.logs import ExpiredError
from legato.protocol.redis.retry import Backoff

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from legato.broadcaster.replies.logs import LogRange
    from legato.protocol.transcript import Piece

    Read = Callable[[int, int], Awaitable[LogRange | None]]

_NOTHING: Final[Sequence[Piece]] = ()


class Tail:
    """The newest entries of one reply. Readers that are further behind read the log themselves.

    It knows nothing before the first :meth:`offer`. From then on each :meth:`wake` reads what is new.

    :param read: reads the log from an offset on, at most so many entries.
    :ivar latest: the newest reading; None before the first.
    :ivar failure: why there will be no further reading.
    """

    def __init__(self, read: Read) -> None:
        self._read = read
        self._pieces: deque[Piece] = deque()
        self._changed = asyncio.Event()
        self._due = False
        self._reading: asyncio.Task[None] | None = None
        self._silence: asyncio.TimerHandle | None = None
        self.next = -1
        self.latest: LogRange | None = None
        self.failure: Exception | None = None

    @property
    def first(self) -> int:
        """The offset of the oldest entry that is kept."""
        return self.next - len(self._pieces)

    def covers(self, offset: int) -> bool:
        """Whether everything from this offset on is here, or will be."""
        return self.next >= 0 and self.first <= offset <= self.next

    def after(self, offset: int) -> Sequence[Piece]:
        """The pieces from an offset on that :meth:`covers` covers."""
        if offset == self.next:
            return _NOTHING
        skipped = offset - self.first
        return [piece for at, piece in enumerate(self._pieces) if at >= skipped]

    def offer(self, found: LogRange) -> None:
        """Take a reading of a reader that has caught up, if it is newer than what is here."""
        if self.ended or found.next < found.entries:
            return
        if self.next < 0:
            self.next = found.first
        if found.first <= self.next <= found.next:
            self._append(found)
            self._watch_silence()
            if self._due:
                self.wake()

    def wake(self) -> None:
        """Something may be new: read it. Also while a reading is under way, which may have missed it."""
        self._due = True
        if self.next >= 0 and self._reading is None and not self.ended:
            self._reading = asyncio.get_running_loop().create_task(self._read_on())

    @property
    def ended(self) -> bool:
        """Whether there will be nothing new."""
        return self.failure is not None or (self.latest is not None and self.latest.decision is not None)

    async def changed(self) -> None:
        """Wait until something is new, or :attr:`failure` is set."""
        if not self.ended:
            await self._changed.wait()

    def close(self) -> None:
        """Read nothing more."""
        if self._reading is not None:
            self._reading.cancel()
        if self._silence is not None:
            self._silence.cancel()

    def _watch_silence(self) -> None:
        """Look at the log after a silence, too: the bus may have lost the last message."""
        if self._silence is not None:
            self._silence.cancel()
        self._silence = asyncio.get_running_loop().call_later(LOG_SILENCE_SECONDS, self.wake)

    def _append(self, found: LogRange) -> None:
        pieces = found.pieces[self.next - found.first :] if found.next > self.next else _NOTHING
        self._pieces.extend(pieces)
        self.next += len(pieces)
        while len(self._pieces) > LOG_TAIL_ENTRIES:
            self._pieces.popleft()
        self.latest = found
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _read_on(self) -> None:
        try:
            while self._due and not self.ended:
                self._due = False
                found = await self._insist()
                self._append(found)
                self._due = self._due or found.next < found.entries
        except (BusError, ExpiredError, ValueError) as error:
            self.failure = error
            self._changed.set()
        finally:
            self._reading = None
        if not self.ended:
            self._watch_silence()

    async def _insist(self) -> LogRange:
        """Read on, for a while also if Redis does not answer."""
        waits, now = Backoff(), asyncio.get_running_loop().time
        until = now() + LOG_READ_PATIENCE_SECONDS
        while True:
            try:
                found = await self._read(self.next, LOG_READ_ENTRIES)
            except BusError:
                if now() >= until:
                    raise
                await waits.wait()
                continue
            if found is None:
                raise ExpiredError
            return found
