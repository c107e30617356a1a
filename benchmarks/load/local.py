"""Servers on this machine: the Legato that is measured, and who is kept to which core."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from legato.benchmarks import stage
from legato.benchmarks.errors import BAD_USAGE, BenchmarkError

from .orders import Target

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


def legato(on: stage.Stage, *, over_redis: bool) -> Target:
    """The broadcaster of a stage that was set with :data:`CONFIG`."""
    where = ("127.0.0.1", on.port)
    redis_url = on.redis_url if over_redis else ""
    return Target("legato", *where, *where, stage.APP_ID, stage.APP_KEY, on.secret, redis_url=redis_url)


def cores(pin: int | None) -> dict[str, list[int]]:
    """Who is kept to which core.

    :raises BenchmarkError: there is none left for the generators, or no such core.
    """
    if pin is None:
        return {}
    found = os.sched_getaffinity(0)
    if pin not in found or len(found) < 2:
        raise BenchmarkError(f"--pin {pin}: expected one of {sorted(found)}, and a second core", BAD_USAGE)
    return {"server": [pin], "generators": sorted(found - {pin})}


def keep(pid: int, to: Sequence[int]) -> None:
    """Keep all threads of a process to some cores.

    :raises BenchmarkError: it is not ours, or gone.
    """
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), to)
    except OSError as error:
        raise BenchmarkError(f"--pin: process {pid}: {error.strerror}") from error
