"""Snapshots of running replies: the token log, plus the tokens delivered while it was read."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from legato.broadcaster.limits import MAX_OBSERVED_FRAMES
from legato.protocol import stream
from legato.protocol.wire import END

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from legato.protocol.wire import Envelope

    from .store import StoredReply


class OutrunError(Exception):
    """More was delivered than the observer knows: the log has to be read again."""


class Observer:
    """Records the tokens delivered on a channel while the logs of its replies are read.

    It starts when the hub begins to buffer frames for the new subscriber, before Redis is asked. A token is
    logged before it is published, so the log as read plus the tokens delivered since are complete. One read
    is enough, however slow Redis is. Tokens that are healed meanwhile are not recorded.
    """

    def __init__(self) -> None:
        self._tokens: dict[str, dict[int, bytes]] = {}
        self._ends: dict[str, tuple[str, int]] = {}
        self._room = MAX_OBSERVED_FRAMES

    @property
    def messages(self) -> Iterable[str]:
        """The messages of which anything was delivered."""
        return {*self._tokens, *self._ends}

    def see(self, envelope: Envelope) -> None:
        """Record a delivered frame."""
        if envelope.stream is None:
            return
        message_id, index = envelope.stream
        if envelope.command == END:
            self.end(message_id, envelope.detail, index)
        elif not envelope.command and self._room:
            self._room -= 1
            self._tokens.setdefault(message_id, {})[index] = envelope.payload

    def end(self, message_id: str, state: str, count: int) -> None:
        """Record the delivered end of a reply, with its number of tokens."""
        self._ends[message_id] = state, count

    def forget(self) -> None:
        """Forget the tokens, which the log has when it is read again."""
        self._tokens = {message_id: {} for message_id in self._tokens}
        self._room = MAX_OBSERVED_FRAMES

    def snapshot(self, message_id: str, reply: StoredReply, count: int | None) -> stream.Snapshot | None:
        """Make a snapshot of what the channel has delivered of a reply; None if that is nothing.

        :param count: the number of tokens delivered; None if the reply is not being forwarded.
        :raises OutrunError: some of these tokens are unknown.
        """
        status: stream.State = "streaming"
        if count is None:
            ended = self._ends.get(message_id)
            if ended is None:  # ended earlier, or could not be healed
                return None
            status, count = cast("stream.State", ended[0]), ended[1]
        tokens = self._first(message_id, reply.tokens, count)
        return stream.Snapshot(message_id, "".join(tokens), len(tokens), status)

    def _first(self, message_id: str, known: Sequence[str], count: int) -> Sequence[str]:
        seen = self._tokens.get(message_id, {})
        rest = [seen.get(index) for index in range(len(known), count)]
        frames = [frame for frame in rest if frame is not None]
        if len(frames) < len(rest):
            raise OutrunError
        return [*known[:count], *map(stream.token_of, frames)]
