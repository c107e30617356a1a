"""The error that ends a benchmark."""

from __future__ import annotations

BAD_USAGE = 2
FAILED = 1


class BenchmarkError(Exception):
    """One line for the user. ``status``: 2 if an option is invalid, else 1."""

    def __init__(self, text: str, status: int = FAILED) -> None:
        super().__init__(text)
        self.status = status
