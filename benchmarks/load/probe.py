"""Measures CPU and memory of server and generators, from ``/proc``."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from legato.benchmarks import proc

if TYPE_CHECKING:
    from collections.abc import Sequence

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


class ProcessUsage(NamedTuple):
    """Usage of some processes. ``cpu`` and ``waited`` are seconds, ``resident`` is bytes.

    ``waited``: time in which they were ready to run, but had no core.
    """

    cpu: float
    waited: float
    resident: int


class Kernel(NamedTuple):
    """Memory of the kernel in bytes: buffers of TCP sockets, and its own objects (slab)."""

    tcp: int
    slab: int


def usage(pids: Sequence[int]) -> ProcessUsage:
    """The usage of the processes since their start.

    :raises BenchmarkError: one has ended.
    """
    uses = [proc.use(pid) for pid in pids]
    return ProcessUsage(
        sum(use.cpu for use in uses),
        sum(_waited(pid) for pid in pids),
        sum(use.resident for use in uses) * 1024,
    )


def _waited(pid: int) -> float:
    """The wait of the main thread, which runs the event loop; 0 if the kernel does not count it."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


def kernel() -> Kernel:
    """The kernel's memory now; zeros without ``/proc``."""
    return Kernel(
        _number(r"^TCP:.* mem (\d+)", "/proc/net/sockstat") * _PAGE,
        _number(r"^Slab:\s+(\d+)", "/proc/meminfo") * 1024,
    )


def _number(pattern: str, path: str) -> int:
    try:
        found = re.search(pattern, Path(path).read_text(encoding="ascii"), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) if found else 0
