"""What a new subscriber is told of replies that stream: the log, and what went by while it was read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from legato.protocol import stream
from legato.protocol.wire import END

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from legato.protocol.wire import Envelope

    from .store import Reply

MOST: Final = 10_000
"""Frames that are remembered. With more, the log has to be read once more."""


class OutrunError(Exception):
    """What was delivered meanwhile is not known: the log has to be read once more."""


class Observer:
    """What goes by on a channel while the log of its replies is read for somebody.

    It begins when frames are kept for the new subscriber, before Redis is asked. Tokens are published behind
    their entry in the log: what the log had when Redis answered, and what is delivered after that, are all
    there are. One reading is enough, however slow Redis is. Tokens that are read up meanwhile are not seen.
    """

    def __init__(self) -> None:
        self._tokens: dict[str, dict[int, bytes]] = {}
        self._ends: dict[str, tuple[str, int]] = {}
        self._room = MOST

    @property
    def messages(self) -> Iterable[str]:
        """Those of which anything went by."""
        return {*self._tokens, *self._ends}

    def see(self, envelope: Envelope) -> None:
        """A frame of a reply is delivered."""
        if envelope.stream is None:
            return
        message_id, index = envelope.stream
        if envelope.command == END:
            self.end(message_id, envelope.detail, index)
        elif not envelope.command and self._room:
            self._room -= 1
            self._tokens.setdefault(message_id, {})[index] = envelope.payload

    def end(self, message_id: str, state: str, count: int) -> None:
        """The channel has been told the end of a reply of so many tokens."""
        self._ends[message_id] = state, count

    def forget(self) -> None:
        """The tokens, which the log has when it is read again."""
        self._tokens = {message_id: {} for message_id in self._tokens}
        self._room = MOST

    def snapshot(self, message_id: str, reply: Reply, count: int | None) -> stream.Snapshot | None:
        """Of what the channel was told of a reply up to now; None if that is nothing.

        :param count: how many tokens that is; None if the reply is not being forwarded.
        :raises OutrunError: not all of them are known.
        """
        status: stream.State = "streaming"
        if count is None:
            ended = self._ends.get(message_id)
            if ended is None:  # before that, or the channel has given it up
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
