"""Become a program that dies with its parent: ``python leash.py PARENT_PID PROGRAM [ARGUMENT...]``.

The kernel is asked to kill this process as soon as its parent ends, however that ends, and then the
process becomes PROGRAM by exec, which keeps the request. It is a program of its own because the other
way, ``preexec_fn``, runs Python between fork and exec, where a lock held by another thread never opens.

It imports nothing of Legato, so that it starts in a few milliseconds.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Final

PR_SET_PDEATHSIG: Final = 1
"""From ``<linux/prctl.h>``. Elsewhere there is no such request, and a killed parent leaves its children."""

NOT_STARTED: Final = 127
"""Exit status when PROGRAM could not be started, as a shell has it."""


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when ``parent`` ends; end it now if that has happened already."""
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415 - costs more than all else here, and only Linux has use for it

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(NOT_STARTED)


def main() -> None:
    """Read the command line and become what it names."""
    parent, *command = sys.argv[1:]
    die_with_parent(int(parent))
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores these, and exec would hand that on
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)  # noqa: S606 - no shell is wanted
    except OSError as error:
        sys.stderr.write(f"{command[0]} cannot be started: {error.strerror}\n")
        sys.exit(NOT_STARTED)


if __name__ == "__main__":
    main()
