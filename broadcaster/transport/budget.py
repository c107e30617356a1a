"""The read budget: a fair scheduler for reading from clients, one per process.

uvloop passes on up to 256 KB at once, which may be 43,000 messages. Reading all of it in one go would block
all other clients. So a transport reads one *slice*, keeps the rest, and continues in later turns of the loop.

A transport uses it as follows in ``data_received``:

1. If it has unread bytes, it appends the data and returns. (Reading is paused, but some data may still come.)
2. Otherwise, if :meth:`Budget.spend` is true, it reads one slice at once. This is the path of quiet clients.
3. If bytes are left, or :meth:`Budget.spend` was false, it keeps them, calls ``transport.pause_reading()``
   and :meth:`Budget.put`.

:meth:`Reader.go_on` then reads one slice per call. When no bytes are left, it resumes reading on the
transport and returns False. It also returns False while it cannot continue, for example because its peer is
slow. The code that changes this calls :meth:`Budget.put` again. A closed transport drops its unread bytes and
returns False.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

from legato.broadcaster.limits import READ_SLICE_BYTES, READ_SLICE_MESSAGES, READ_TURN_SECONDS

from .cut import cut

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

COST_SHIFT: Final = 7
"""Data that is read at once counts as one more message per 2 ** 7 bytes."""


class Reader(Protocol):
    """A transport with unread bytes. Hashable by identity."""

    def go_on(self) -> bool:
        """Read one slice. Returns whether more can be read at once."""

    def abort(self) -> None:
        """Cut the connection: :meth:`go_on` has failed."""


class Budget:
    """Lets the readers read one slice each, in rotation, until the time of the loop turn is used up.

    :param call_soon: runs a function in the next turn of the loop.
    :param clock: a clock in seconds. Not the loop's: uvloop updates its clock only once per turn.
    :param seconds: as :data:`READ_TURN_SECONDS`.
    :ivar left: messages that may be read at once before the clock is read again.
    """

    def __init__(
        self,
        call_soon: Callable[[Callable[[], None]], object],
        clock: Callable[[], float] = time.monotonic,
        seconds: float = READ_TURN_SECONDS,
    ) -> None:
        self._seconds = seconds
        self._call_soon = call_soon
        self._clock = clock
        self._queue: deque[Reader] = deque()
        self._queued: set[Reader] = set()
        self.left = READ_SLICE_MESSAGES
        self._began: float | None = None
        self._scheduled = False

    def __len__(self) -> int:
        """Readers that wait for a slice."""
        return len(self._queue)

    def spend(self, size: int = 0) -> bool:
        """Whether a transport without unread bytes may read one slice at once.

        The clock is read only once in several calls, to keep this cheap.

        :param size: the number of bytes received.
        """
        self.left -= 1 + (size >> COST_SHIFT)
        return self.left >= 0 or self.refill()

    def refill(self) -> bool:
        """The second half of :meth:`spend`, for a caller that has decremented ``left`` below 0 itself."""
        now = self._clock()
        if self._began is None:
            self._began = now
            self._schedule()  # so that the next turn starts with a new budget
        elif now - self._began >= self._seconds:
            self.left = 0
            return False
        self.left = READ_SLICE_MESSAGES - 1
        return True

    def put(self, reader: Reader) -> None:
        """Queue a reader for its next slice. Idempotent."""
        if reader not in self._queued:
            self._queued.add(reader)
            self._queue.append(reader)
            self._schedule()

    async def in_turn(self, call: Callable[[], T], size: int) -> T:
        """Run ``call``: at once if its input is small, else as a slice of its own when its turn comes.

        For input that cannot be read in slices, such as the body of a request.

        :param size: the size of the input in bytes.
        """
        if size <= READ_SLICE_BYTES and self.spend(size):
            return call()
        queued = _Call(call)
        self.put(queued)
        try:
            return await queued.result
        finally:
            del queued  # else an error's traceback keeps it in a reference cycle

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
        except Exception as error:  # noqa: BLE001 - an error of one must not stop the others
            cut(reader, "reading from it", error)
            return
        if more:
            self.put(reader)


class _Call(Generic[T]):
    """A single call as a slice of its own. Satisfies :class:`Reader`."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self.result: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    def go_on(self) -> bool:
        """Run the call, unless its caller was cancelled."""
        if self.result.done():
            return False
        try:
            self.result.set_result(self._call())
        except Exception as error:  # noqa: BLE001 - raised to the caller
            self.result.set_exception(error.with_traceback(None))  # else a reference cycle with this object
        return False

    def abort(self) -> None:
        """Cancel the caller."""
        self.result.cancel()
