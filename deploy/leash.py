"""Runs a program that dies with its parent: ``python leash.py PARENT_PID PROGRAM [ARGUMENT...]``.

It asks the kernel to kill this process as soon as the parent ends, and then becomes PROGRAM by exec, which
keeps the request. The alternative, ``preexec_fn``, runs Python between fork and exec, where a lock that
another thread holds is never released.

It imports nothing of Legato, so that it starts in a few milliseconds.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Final

PR_SET_PDEATHSIG: Final = 1
"""From ``<linux/prctl.h>``. On other systems a killed parent leaves its children running."""

NOT_STARTED: Final = 127
"""Exit status if PROGRAM cannot be started, as in a shell."""


def die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when ``parent`` ends; exit now if it has already ended."""
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415 - costs more than all else here, and only Linux has use for it

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(NOT_STARTED)


def main() -> None:
    """Read the command line and become the program that it names."""
    parent, *command = sys.argv[1:]
    die_with_parent(int(parent))
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores these, and exec would keep that
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)  # noqa: S606 - no shell is wanted
    except OSError as error:
        sys.stderr.write(f"{command[0]} cannot be started: {error.strerror}\n")
        sys.exit(NOT_STARTED)


if __name__ == "__main__":
    main()
