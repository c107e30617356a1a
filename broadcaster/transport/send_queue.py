"""The frames that wait for a slow client, as they came or with tokens merged."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from legato.protocol.merging import MergingQueue

from .frames import is_text, split, text_frame

if TYPE_CHECKING:
    from legato.broadcaster.clients.figures import ConnectionFigures
    from legato.protocol.session import Session

EVERYTHING: Final = 2**63


class SendQueue:
    """A queue of frames. They wait as they came, and are shared by all clients that wait for them.

    :ivar size: bytes that wait.
    :ivar limit: the size above which the caller has to do something.
    :cvar merges: whether tokens are merged.
    """

    __slots__ = ("_waiting", "limit", "size")

    merges = False

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        self._waiting: deque[bytes] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, data: bytes) -> int:
        """Queue whole frames. Returns the new size."""
        self._waiting.append(data)
        self.size += len(data)
        return self.size

    def take(self, limit: int = EVERYTHING) -> bytes:
        """Take frames from the front until they have at least ``limit`` bytes."""
        batch, size = [], 0
        while self._waiting and size < limit:
            batch.append(self._waiting.popleft())
            size += len(batch[-1])
        self.size -= size
        return b"".join(batch)


class MergingSendQueue(SendQueue):
    """A queue in which tokens are merged on the channels for which the client has asked.

    :param session: has these channels.
    :param earlier: the queue so far, whose frames are taken.
    """

    __slots__ = ("_figures", "_merging", "_session")

    merges = True

    def __init__(self, session: Session, figures: ConnectionFigures, earlier: SendQueue) -> None:
        super().__init__(earlier.limit)
        self._session = session
        self._figures = figures
        self._merging = MergingQueue(session.merging, text_frame)
        self.put(earlier.take())

    def __len__(self) -> int:
        return len(self._merging)

    def put(self, data: bytes) -> int:
        """See the base class."""
        merging = self._merging
        if merging.channels is not self._session.merging:
            merging.change(self._session.merging)
        self._figures.merged_tokens += sum(
            merging.put(frame, payload if is_text(frame) else b"") for frame, payload in split(data)
        )
        self.size = merging.size
        return self.size

    def take(self, limit: int = EVERYTHING) -> bytes:
        """See the base class."""
        taken = self._merging.take(limit)
        self.size = self._merging.size
        return b"".join(taken)
