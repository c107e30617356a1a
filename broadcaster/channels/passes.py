"""One pass over a channel's subscribers, which may be interrupted and go on later."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from .subscriber import Subscriber

    Write = Callable[[bytes], None]
    Ways = dict[Subscriber, Write]


def write_each(writes: Iterable[Write], data: bytes, failed: Callable[[Write, Exception], None]) -> None:
    """Call each of them; one that fails is told, and keeps nobody behind it waiting."""
    left = iter(writes)
    while True:
        try:
            for write in left:
                write(data)
        except Exception as error:  # noqa: BLE001 - whatever it is, the others get theirs
            failed(write, error)
        else:
            return


class Pass:
    """Writes the same frames once to each of those who were subscribed when it began.

    Whoever leaves meanwhile gets nothing more, though it may come back; who becomes slow or fast is written
    to as it stands then. As long as neither happens there is nothing to look at but the list of writes.

    :param targets: who gets all of ``frames``, and how; this pass keeps it.
    :param shares: who gets some of them only, and which.
    """

    __slots__ = (
        "_changed",
        "_data",
        "_gone",
        "_places",
        "_position",
        "_receivers",
        "_writes",
        "frames",
        "shares",
    )

    def __init__(
        self, frames: list[bytes], data: bytes, targets: Ways, shares: dict[Subscriber, list[bytes]]
    ) -> None:
        self.frames = frames
        self.shares = shares
        self._data = data
        self._receivers = list(targets)
        self._writes = list(targets.values())
        self._position = 0
        self._changed = False
        self._gone: set[Subscriber] = set()
        self._places: dict[Subscriber, int] = {}

    @property
    def over(self) -> bool:
        """Whether everybody has been written to."""
        return self._position >= len(self._receivers) and not self.shares

    def go_on(
        self, limit: int, fast: Ways, slow: Ways, failed: Callable[[Write, Exception], None]
    ) -> tuple[int, int]:
        """Write to the next few, at most ``limit``.

        :param fast: how those are written to who are subscribed now; with ``slow``, all of them.
        :param failed: called with a write that has failed.
        :returns: how many were written to, and the frames that these got in all.
        """
        start = self._position
        # Moved first: a write that closes its own connection has been made; one that fails is not repeated.
        self._position = start + limit
        if self._changed:
            writes = [
                write
                for receiver in self._receivers[start : start + limit]
                if receiver not in self._gone
                and (write := fast.get(receiver) or slow.get(receiver)) is not None
            ]
        else:
            writes = self._writes[start : start + limit]
        write_each(writes, self._data, failed)
        written, frames = len(writes), len(writes) * len(self.frames)
        room = min(limit, start + limit - len(self._receivers))
        while room > 0 and self.shares:
            room -= 1
            receiver = next(iter(self.shares))
            share = self.shares.pop(receiver)
            write_each((fast.get(receiver) or slow[receiver],), b"".join(share), failed)
            written, frames = written + 1, frames + len(share)
        return written, frames

    def change(self) -> None:
        """Somebody is written to in another way than when the pass began."""
        self._changed = True

    def leave(self, receiver: Subscriber) -> None:
        """It gets nothing more. Idempotent."""
        if self.shares.pop(receiver, None) is None:
            self._gone.add(receiver)
            self._changed = True

    def owed(self, receiver: Subscriber) -> list[bytes]:
        """The frames that it has not got yet; it gets no more by the pass."""
        share = self.shares.pop(receiver, None)
        if share is not None:
            return share
        if not self._places:
            self._places = {one: place for place, one in enumerate(self._receivers)}
        if self._places.get(receiver, -1) < self._position or receiver in self._gone:
            return []
        self.leave(receiver)
        return self.frames


class Pending:
    """What has been published and not been written yet, and who does not get which of it.

    ``excluded`` are positions in ``frames`` by socket id; ``late`` has the first position that somebody gets
    who came when others were there already. Both are None while everybody gets everything.
    """

    __slots__ = ("excluded", "frames", "late")

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.excluded: dict[str, set[int]] | None = None
        self.late: dict[Subscriber, int] | None = None

    @property
    def partial(self) -> bool:
        """Whether anybody, of whom it is not known whether they are there, does not get all."""
        return self.late is not None or self.excluded is not None

    def exclude(self, *socket_ids: str) -> None:
        """The next frame is not for these."""
        if self.excluded is None:
            self.excluded = {}
        for socket_id in socket_ids:
            self.excluded.setdefault(socket_id, set()).add(len(self.frames))

    def begin(self, receiver: Subscriber) -> None:
        """It gets none of the frames up to now."""
        if self.late is None:
            self.late = {}
        self.late[receiver] = len(self.frames)

    def share(self, receiver: Subscriber) -> list[bytes]:
        """What it gets of it."""
        first = (self.late or {}).get(receiver, 0)
        excluded: Collection[int] = (self.excluded or {}).get(receiver.socket_id, ())
        if not excluded:
            return self.frames[first:]
        return [
            frame
            for position, frame in enumerate(self.frames)
            if position >= first and position not in excluded
        ]

    def partial_of(self, receivers: Mapping[Subscriber, object]) -> list[Subscriber]:
        """Those of ``receivers`` who do not get all."""
        late, excluded = self.late or {}, self.excluded
        found = [receiver for receiver in late if receiver in receivers]
        if excluded:
            found += [
                receiver for receiver in receivers if receiver.socket_id in excluded and receiver not in late
            ]
        return found
