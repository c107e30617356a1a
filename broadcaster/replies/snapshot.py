"""Snapshots of running replies: the log, plus what was delivered while it was read."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from legato.broadcaster.limits import MAX_OBSERVED_BYTES
from legato.protocol import transcript
from legato.protocol.doors.laravel_ai import LaravelSnapshot
from legato.protocol.healing import EMPTY_BYTES
from legato.protocol.wire import END, MANY, SKIP

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from legato.protocol.doors.base import Opening
    from legato.protocol.stream import State
    from legato.protocol.transcript import Piece
    from legato.protocol.wire import Envelope

    from .logs import StoredReply


class OutrunError(Exception):
    """More was delivered than the observer knows: the log has to be read again."""


class Observer:
    """Records the entries delivered on a channel while the logs of its replies are read.

    It starts when the hub begins to buffer frames for the new subscriber, before Redis is asked. An entry is
    logged before it is published, so the log as read plus the entries delivered since are complete. One read
    is enough, however slow Redis is. Entries that are healed meanwhile are not recorded.
    """

    def __init__(self) -> None:
        self._frames: dict[str, dict[int, bytes]] = {}
        self._ends: dict[str, tuple[str, int]] = {}
        self._room = MAX_OBSERVED_BYTES

    @property
    def messages(self) -> Iterable[str]:
        """The messages of which anything was delivered."""
        return {*self._frames, *self._ends}

    def see(self, envelope: Envelope) -> None:
        """Record a delivered frame, or that of an entry that readers do not see."""
        if envelope.stream is None:
            return
        message_id, offset = envelope.stream
        if envelope.command == END:
            self.end(message_id, envelope.detail, offset)
        elif envelope.command in ("", MANY, SKIP) and self._room > 0:
            self._room -= len(envelope.payload) or EMPTY_BYTES
            self._frames.setdefault(message_id, {})[offset] = envelope.payload

    def end(self, message_id: str, state: str, count: int) -> None:
        """Record the delivered end of a reply, with the number of its entries."""
        self._ends[message_id] = state, count

    def forget(self) -> None:
        """Forget the frames, whose entries the log has when it is read again."""
        self._frames = {message_id: {} for message_id in self._frames}
        self._room = MAX_OBSERVED_BYTES

    def snapshot(self, channel: str, message_id: str, reply: StoredReply, count: int | None) -> bytes:
        """Make a snapshot of what the channel has delivered of a reply; empty if that is nothing.

        :param count: the number of entries delivered; None if the reply is not being forwarded.
        :raises OutrunError: some of these entries are unknown.
        """
        status: State = "streaming"
        if count is None:
            ended = self._ends.get(message_id)
            if ended is None:  # ended earlier, or could not be healed
                return b""
            status, count = cast("State", ended[0]), ended[1]
        elif reply.status == "waiting" and count <= reply.offset:  # nothing has been delivered since
            status = "waiting"
        known, seen = reply.pieces[:count], self._recorded(message_id, len(reply.pieces), count)
        if reply.opening is not None:
            return _in_dialect(channel, reply.opening, known, seen, status)
        pieces = [*known, *(transcript.of_frame(frame, at) for at, frame in enumerate(seen, len(known)))]
        return transcript.snapshot(message_id, pieces, status).frame(channel)

    def _recorded(self, message_id: str, first: int, count: int) -> Sequence[bytes]:
        """The recorded frames of the entries from offset ``first`` on, up to ``count`` entries."""
        seen = self._frames.get(message_id, {})
        try:
            return [seen[offset] for offset in range(first, count)]
        except KeyError:
            raise OutrunError from None


def _in_dialect(
    channel: str, opening: Opening, known: Sequence[Piece], seen: Sequence[bytes], status: State
) -> bytes:
    snapshot = LaravelSnapshot(channel, opening, known)
    for payload in seen:
        snapshot.add(payload)
    return snapshot.frame(status)
