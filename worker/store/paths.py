"""The path from a turn to the beginning of its conversation. Each turn names the one that it follows.

A user's turn follows a reply, and a reply answers a user's turn, so a message id and a role name a turn. What
it follows was stored before it, so positions only decrease on the way.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

from legato.worker.limits import PATH_MAX_READS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

HISTORY_STATES: Final = ("complete", "cancelled")
"""States of a reply whose exchange belongs to the history that is sent to the model."""

_OTHER_ROLE: Final = {"user": "assistant", "assistant": "user"}


class TurnName(NamedTuple):
    """What names a turn."""

    message_id: str
    role: str


class StoredTurn(NamedTuple):
    """A turn without its text.

    :ivar parent_id: the message of the turn before; empty: there is none; None: it is the one before it by
       position, for a worker stored it that knew no branches.
    :ivar said: whether there is text.
    """

    position: int
    message_id: str
    role: str
    parent_id: str | None
    status: str
    said: bool

    @property
    def name(self) -> TurnName:
        """Its name."""
        return TurnName(self.message_id, self.role)


class StoredExchange(NamedTuple):
    """A reply, and the turn that it answers."""

    user: StoredTurn
    reply: StoredTurn


class Turns:
    """The turns of one conversation, read as they are needed, many at once.

    :param read: answers the turn of a name and some of those before it by position; some of those below a
       position; or the last ones of all (None). The last one comes first, none is left out in between.
    """

    def __init__(self, read: Callable[[TurnName | int | None], Sequence[StoredTurn]]) -> None:
        self._read = read
        self._reads = 0
        self._known: dict[TurnName, StoredTurn] = {}
        self._below: dict[int, StoredTurn] = {}

    def last(self) -> StoredTurn | None:
        """The turn that was stored last."""
        turns = self._fetch(None)
        return turns[0] if turns else None

    def find(self, name: TurnName) -> StoredTurn | None:
        """The turn of this name."""
        if name not in self._known:
            self._fetch(name)
        return self._known.get(name)

    def path(self, turn: StoredTurn | None) -> Iterator[StoredTurn]:
        """The turn, the one that it follows, and so on to the first.

        It ends early where a turn is missing, and after too many reads.
        """
        while turn is not None:
            yield turn
            before = self._before(turn)
            turn = before if before is not None and before.position < turn.position else None

    def _before(self, turn: StoredTurn) -> StoredTurn | None:
        if turn.parent_id:
            return self.find(TurnName(turn.parent_id, _OTHER_ROLE[turn.role]))
        if turn.parent_id is not None:
            return None
        if turn.position not in self._below and (turns := self._fetch(turn.position)):
            self._below[turn.position] = turns[0]
        return self._below.get(turn.position)

    def _fetch(self, start: TurnName | int | None) -> Sequence[StoredTurn]:
        if self._reads == PATH_MAX_READS:
            return ()
        self._reads += 1
        turns = self._read(start)
        self._known.update((turn.name, turn) for turn in turns)
        self._below.update((turn.position, below) for turn, below in pairwise(turns))
        return turns


def exchanges(turns: Iterable[StoredTurn]) -> Iterator[StoredExchange]:
    """The exchanges on a path that the model is told of, the newest first.

    A reply without text or a failed one is left out together with the turn that it answers.
    """
    reply: StoredTurn | None = None
    for turn in turns:
        if turn.role == "assistant":
            reply = turn
        elif reply is not None and reply.said and reply.status in HISTORY_STATES:
            yield StoredExchange(turn, reply)
