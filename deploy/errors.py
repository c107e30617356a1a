"""What ends a command of ``legato`` with one line on standard error."""

from __future__ import annotations

from typing import Final

FAILED: Final = 1
"""Exit status: something outside is not as it must be (a port is taken, Redis does not answer)."""

BAD_USAGE: Final = 2
"""Exit status: an option, an environment variable or a configuration file is wrong."""


class CommandError(Exception):
    """One line for the user; ``status`` is the command's exit status."""

    def __init__(self, line: str, status: int = FAILED) -> None:
        super().__init__(line)
        self.status = status
