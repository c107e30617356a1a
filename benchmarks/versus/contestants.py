"""The servers that are compared: their names, and one that runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from legato.benchmarks.load.orders import Target

LEGATO: Final = "legato"
OVER_REDIS: Final = "legato over Redis"
BASELINE: Final = "C baseline"
SOKETI: Final = "soketi"


class Server(NamedTuple):
    """One that runs.

    :ivar redis: processes behind it, which are not counted as its own.
    :ivar metrics: where it has figures for Prometheus; empty if nowhere.
    """

    name: str
    target: Target
    pids: Sequence[int]
    redis: Sequence[int] = ()
    metrics: str = ""
