"""The turns of a request's conversation, as every model takes them.

They begin with the user, their roles alternate, as many chat templates require, and none is blank. To go on,
turns are added behind: those before them stay the same, and so in the provider's prompt cache.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from legato.protocol.jobs import Turn
from legato.protocol.text import well_formed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .base import ProviderRequest


def opening(request: ProviderRequest) -> list[Turn]:
    """The history and, last, the message to answer. Successive turns of one role are joined."""
    turns = [turn for turn in request.history if turn.content.strip()]
    while turns and turns[0].role == "assistant":  # its question was cut off by the limit of the history
        turns.pop(0)
    return list(_joined([*turns, Turn("user", request.message)]))


def continued(request: ProviderRequest) -> list[Turn]:
    """The unfinished reply, and the user's turn that asks for the rest; none at first.

    An unfinished assistant turn at the end (prefill) would be refused by current models.
    """
    if not request.continuation:
        return []
    return [
        Turn("assistant", well_formed(request.so_far)),
        Turn("user", well_formed(request.continuation)),
    ]


def _joined(turns: Iterable[Turn]) -> Iterable[Turn]:
    for role, group in groupby(turns, key=lambda turn: turn.role):
        yield Turn(role, well_formed("\n\n".join(turn.content for turn in group)))
