"""What ends a benchmark early."""

from __future__ import annotations

BAD_USAGE = 2
FAILED = 1


class BenchmarkError(Exception):
    """One line for the user. ``status``: 2 when an option is wrong, else 1."""

    def __init__(self, text: str, status: int = FAILED) -> None:
        super().__init__(text)
        self.status = status
