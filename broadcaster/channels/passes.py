"""A pass: an interruptible write of the same frames to all subscribers of a channel."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from .subscriber import Subscriber

    Write = Callable[[bytes], None]
    Ways = dict[Subscriber, Write]


def write_each(writes: Iterable[Write], data: bytes, failed: Callable[[Write, Exception], None]) -> None:
    """Call every write. A failing one is reported to ``failed`` and does not stop the others."""
    left = iter(writes)
    while True:
        try:
            for write in left:
                write(data)
        except Exception as error:  # noqa: BLE001 - an error of one must not stop the others
            failed(write, error)
        else:
            return


class Pass:
    """Writes the same frames once to each subscriber that was there when the pass began.

    A subscriber that leaves meanwhile gets nothing more of the pass, even if it comes back. One that becomes
    slow or fast is written to accordingly. Until either happens, the pass needs only its list of writes.

    :param targets: the receivers of all ``frames``, with their writes. The pass owns the dict.
    :param shares: the receivers of only some frames, with these.
    """

    __slots__ = (
        "_changed",
        "_data",
        "_left",
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
        self._left: set[Subscriber] = set()
        self._places: dict[Subscriber, int] = {}

    @property
    def over(self) -> bool:
        """Whether all receivers have been written to."""
        return self._position >= len(self._receivers) and not self.shares

    def go_on(
        self, limit: int, fast: Ways, slow: Ways, failed: Callable[[Write, Exception], None]
    ) -> tuple[int, int]:
        """Write to the next receivers, at most ``limit``.

        :param fast: the current writes of fast subscribers; ``slow`` has those of the others.
        :param failed: called with a write that has failed.
        :returns: the number of receivers written to, and the number of frames they got in total.
        """
        start = self._position
        # Advance first: a write may close its own connection, and a failed write must not be repeated.
        self._position = start + limit
        if self._changed:
            writes = [
                write
                for receiver in self._receivers[start : start + limit]
                if receiver not in self._left
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
        """Note that a subscriber has become slow or fast since the pass began."""
        self._changed = True

    def leave(self, receiver: Subscriber) -> None:
        """Exclude a receiver from the rest of the pass. Idempotent."""
        if self.shares.pop(receiver, None) is None:
            self._left.add(receiver)
            self._changed = True

    def owed(self, receiver: Subscriber) -> list[bytes]:
        """Take the frames that a receiver has not got yet, and exclude it from the rest of the pass."""
        share = self.shares.pop(receiver, None)
        if share is not None:
            return share
        if not self._places:
            self._places = {one: place for place, one in enumerate(self._receivers)}
        if self._places.get(receiver, -1) < self._position or receiver in self._left:
            return []
        self.leave(receiver)
        return self.frames


class Pending:
    """Frames that were published and not written yet, and who does not get which of them.

    ``excluded`` has positions in ``frames`` by socket id. ``late`` has the first position that a subscriber
    gets which joined after the first frame. Both are None while every subscriber gets every frame.
    """

    __slots__ = ("excluded", "frames", "late")

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.excluded: dict[str, set[int]] | None = None
        self.late: dict[Subscriber, int] | None = None

    @property
    def partial(self) -> bool:
        """Whether any subscriber, who may have left by now, gets only some of the frames."""
        return self.late is not None or self.excluded is not None

    def exclude(self, *socket_ids: str) -> None:
        """Exclude sockets from the next frame."""
        if self.excluded is None:
            self.excluded = {}
        for socket_id in socket_ids:
            self.excluded.setdefault(socket_id, set()).add(len(self.frames))

    def begin(self, receiver: Subscriber) -> None:
        """Exclude a receiver from all frames so far."""
        if self.late is None:
            self.late = {}
        self.late[receiver] = len(self.frames)

    def share(self, receiver: Subscriber) -> list[bytes]:
        """The frames for one receiver."""
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
        """Those of ``receivers`` that get only some of the frames."""
        late, excluded = self.late or {}, self.excluded
        found = [receiver for receiver in late if receiver in receivers]
        if excluded:
            found += [
                receiver for receiver in receivers if receiver.socket_id in excluded and receiver not in late
            ]
        return found
