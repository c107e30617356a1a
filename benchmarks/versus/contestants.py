"""The servers that are compared: their names, and the addresses of a running one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from legato.benchmarks.load.orders import LoadTarget

LEGATO: Final = "legato"
OVER_REDIS: Final = "legato over Redis"
BASELINE: Final = "C baseline"
SOKETI: Final = "soketi"


class RunningServer(NamedTuple):
    """A running server.

    :ivar redis: processes of its Redis, which are not counted as its own.
    :ivar metrics: URL of its Prometheus metrics; empty without any.
    """

    name: str
    target: LoadTarget
    pids: Sequence[int]
    redis: Sequence[int] = ()
    metrics: str = ""
