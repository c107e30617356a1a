"""The error that ends a ``legato`` command with one line on standard error."""

from __future__ import annotations

from typing import Final

FAILED: Final = 1
"""Exit status: a failure outside the command (a port is in use, Redis does not answer)."""

BAD_USAGE: Final = 2
"""Exit status: an option, an environment variable or a configuration file is invalid."""


class CommandError(Exception):
    """One line for the user; ``status`` is the command's exit status."""

    def __init__(self, line: str, status: int = FAILED) -> None:
        super().__init__(line)
        self.status = status
