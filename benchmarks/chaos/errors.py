"""The error that ends a run with one line."""

from __future__ import annotations

from typing import Final

FAILED: Final = 1
BAD_USAGE: Final = 2


class ChaosError(Exception):
    """One line for the user; ``status`` is the exit status."""

    def __init__(self, line: str, status: int = FAILED) -> None:
        super().__init__(line)
        self.status = status
