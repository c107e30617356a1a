"""How much of what clients have sent is read in one turn of the loop: a fair scheduler, one per process.

uvloop hands over up to 256 KB at once, which may be 43,000 messages. Reading all of it in one piece would
hold up everybody else. So a transport reads a *slice*, keeps the rest, and goes on in later turns.

How a transport uses it, in ``data_received``:

1. While it has unread bytes: append, and return. (Reading is paused then; a little may come nevertheless.)
2. Otherwise, if :meth:`Budget.spend` is true: read one slice at once. That is the path of quiet connections.
3. If anything is left of the bytes, or :meth:`Budget.spend` was false: keep it, call
   ``transport.pause_reading()`` and :meth:`Budget.put`.

:meth:`Reader.go_on` then reads one slice at a time. When nothing is left it resumes the transport's reading
and returns False. It also returns False when it cannot go on by itself now, as while its peer is slow:
whoever changes that calls :meth:`Budget.put` again. A transport that has closed drops what it has not read,
and its ``go_on`` returns False.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

from .cut import cut

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

SLICE: Final = 8
"""Messages, frames or requests of one slice. The dearest, subscriptions, take 0.3 ms each."""

SLICE_BYTES: Final = 65_536
"""Bytes after which a slice should end, even with fewer messages."""

COST_SHIFT: Final = 7
"""What is read at once counts as one more message for each 2 ** 7 bytes."""

TURN_SECONDS: Final = 0.003
"""How long all slices of one turn of the loop may take together, give or take one slice. The slices that are
read at once have as much again.
"""


class Reader(Protocol):
    """A transport with unread bytes. Hashable by identity."""

    def go_on(self) -> bool:
        """Read one slice. Whether there is more that can be read right away."""

    def abort(self) -> None:
        """Cut the connection: :meth:`go_on` has failed."""


class Budget:
    """Gives each reader one slice after another, in turn, until the time of the loop's turn is used up.

    :param call_soon: runs a function in the next turn of the loop.
    :param clock: seconds. Not the loop's: uvloop's stands still in a turn.
    :param seconds: as :data:`TURN_SECONDS`.
    :ivar left: how many messages may be read at once before the next look at the clock.
    """

    def __init__(
        self,
        call_soon: Callable[[Callable[[], None]], object],
        clock: Callable[[], float] = time.monotonic,
        seconds: float = TURN_SECONDS,
    ) -> None:
        self._seconds = seconds
        self._call_soon = call_soon
        self._clock = clock
        self._queue: deque[Reader] = deque()
        self._queued: set[Reader] = set()
        self.left = SLICE
        self._began: float | None = None
        self._scheduled = False

    def __len__(self) -> int:
        """Readers that wait for a slice."""
        return len(self._queue)

    def spend(self, size: int = 0) -> bool:
        """Whether a transport without unread bytes may read one slice at once.

        The clock is looked at once in a few calls, so that a quiet connection pays next to nothing.

        :param size: of what has come, in bytes.
        """
        self.left -= 1 + (size >> COST_SHIFT)
        return self.left >= 0 or self.refill()

    def refill(self) -> bool:
        """As :meth:`spend`, for who has taken it off ``left`` itself, and that is below 0."""
        now = self._clock()
        if self._began is None:
            self._began = now
            self._schedule()  # the next turn has time of its own
        elif now - self._began >= self._seconds:
            self.left = 0
            return False
        self.left = SLICE - 1
        return True

    def put(self, reader: Reader) -> None:
        """Have it go on, behind those who wait already. Idempotent."""
        if reader not in self._queued:
            self._queued.add(reader)
            self._queue.append(reader)
            self._schedule()

    async def in_turn(self, call: Callable[[], T], size: int) -> T:
        """What ``call`` returns or raises: at once if it is a small thing, otherwise in its turn, as a slice.

        For what is read as a whole, such as the body of a request, and so cannot be read in slices.

        :param size: of what it reads, in bytes.
        """
        if size <= SLICE_BYTES and self.spend(size):
            return call()
        piece = _Piece(call)
        self.put(piece)
        try:
            return await piece.result
        finally:
            del piece  # an error would keep it by its traceback, and itself, until cycles are looked for

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        self._began = None
        if not self._queue:
            return
        self._schedule()
        until = self._clock() + self._seconds
        while self._queue:
            self._give_slice(self._queue.popleft())
            if self._clock() >= until:
                return

    def _give_slice(self, reader: Reader) -> None:
        self._queued.discard(reader)
        try:
            more = reader.go_on()
        except Exception as error:  # noqa: BLE001 - whatever it is, the other readers go on
            cut(reader, "reading from it", error)
            return
        if more:
            self.put(reader)


class _Piece(Generic[T]):
    """One call that is a slice of its own. Satisfies :class:`Reader`."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self.result: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    def go_on(self) -> bool:
        """Make the call, if anybody still waits for it."""
        if self.result.done():
            return False
        try:
            self.result.set_result(self._call())
        except Exception as error:  # noqa: BLE001 - whatever it is, it is for who waits
            self.result.set_exception(error.with_traceback(None))  # which has this piece, that has the error
        return False

    def abort(self) -> None:
        """Nobody gets a result."""
        self.result.cancel()
