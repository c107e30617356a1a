"""Cuts a history that is too long: by whole turns, oldest first, never within a text."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .jobs import Turn


def cut(history: Sequence[Turn], *, turns: int, characters: int) -> tuple[Turn, ...]:
    """The newest turns that keep to both limits.

    A history within the limits stays as it is. What remains of a longer one begins with a user's turn, as
    models expect; nothing remains if the newest turns alone are too long.
    """
    first = _first_within(history, max(0, len(history) - turns), characters)
    if first > 0:
        while first < len(history) and history[first].role != "user":
            first += 1
    return tuple(history[first:])


def _first_within(history: Sequence[Turn], first: int, characters: int) -> int:
    """The least index, from ``first`` on, from which the texts together are within ``characters``."""
    for index in range(len(history) - 1, first - 1, -1):
        characters -= len(history[index].content)
        if characters < 0:
            return index + 1
    return first
