"""The event loop of tests that decide themselves when a turn begins."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def run_turn(scheduled: list[Callable[[], None]]) -> None:
    """Call what is scheduled now; what that schedules stays for the next turn."""
    due, scheduled[:] = list(scheduled), []
    for function in due:
        function()
