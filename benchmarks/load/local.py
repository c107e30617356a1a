"""The measured Legato on this machine, and the pinning of processes to cores."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from legato.benchmarks import stage
from legato.benchmarks.errors import BAD_USAGE, BenchmarkError

from .orders import LoadTarget

if TYPE_CHECKING:
    from collections.abc import Sequence

CONFIG: Final = f"""\
[[apps]]
id = "{stage.APP_ID}"
key = "{stage.APP_KEY}"
secret = "from the environment"
max_presence_members = 20000
max_event_bytes = 102400
"""


def legato(on: stage.BenchmarkStage, *, over_redis: bool) -> LoadTarget:
    """The broadcaster of a stage whose configuration is :data:`CONFIG`."""
    where = ("127.0.0.1", on.port)
    redis_url = on.redis_url if over_redis else ""
    return LoadTarget("legato", *where, *where, stage.APP_ID, stage.APP_KEY, on.secret, redis_url=redis_url)


def cores(pin: int | None) -> dict[str, list[int]]:
    """The cores of server and generators.

    :raises BenchmarkError: no core is left for the generators, or the core does not exist.
    """
    if pin is None:
        return {}
    found = os.sched_getaffinity(0)
    if pin not in found or len(found) < 2:
        raise BenchmarkError(f"--pin {pin}: expected one of {sorted(found)}, and a second core", BAD_USAGE)
    return {"server": [pin], "generators": sorted(found - {pin})}


def keep(pid: int, to: Sequence[int]) -> None:
    """Pin all threads of a process to some cores.

    :raises BenchmarkError: it belongs to another user, or has ended.
    """
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), to)
    except OSError as error:
        raise BenchmarkError(f"--pin: process {pid}: {error.strerror}") from error
