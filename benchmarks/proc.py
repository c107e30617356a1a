"""Reads processor time and memory of a process from Linux's ``/proc``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, NamedTuple

from .errors import BenchmarkError

_TICK: Final = os.sysconf("SC_CLK_TCK")
_PAGE_KIB: Final = os.sysconf("SC_PAGE_SIZE") // 1024


class Use(NamedTuple):
    """Usage of a process. ``cpu``: seconds since its start, user and system. ``resident``: KiB now."""

    cpu: float
    resident: int


def use(pid: int) -> Use:
    """The usage of one process with all its threads.

    :raises BenchmarkError: there is no such process, or no ``/proc``.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError as error:
        raise BenchmarkError(f"/proc/{pid}/stat cannot be read: {error.strerror}") from error
    user, system, pages = int(fields[11]), int(fields[12]), int(fields[21])
    return Use((user + system) / _TICK, pages * _PAGE_KIB)
