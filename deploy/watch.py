"""Watches broadcaster processes, and kills and restarts one whose event loop hangs."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from legato.broadcaster import notify

from .console import OWN_NAME
from .heartbeats import HeartbeatSockets, StallClock

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .children import Child, ProcessTree, Spec
    from .heartbeats import ChildStatus

TICK: Final = 0.5
"""Interval between two checks, in seconds."""


class Watch:
    """Receives the heartbeats of the children's event loops.

    :param seconds: longest silence. Before a child is ready, the time-out of its start applies.
    """

    def __init__(self, specs: Sequence[Spec], seconds: float) -> None:
        self._seconds = seconds
        self._sockets = HeartbeatSockets()
        self._statuses = [self._sockets.listen(lambda: None) for _ in specs]
        self._specs = [_told(spec, status) for spec, status in zip(specs, self._statuses, strict=True)]

    async def run(self, tree: ProcessTree) -> None:
        """Start all children, and watch them until cancelled.

        :raises CommandError: one of them was not ready in time.
        """
        try:
            children = tree.start(*self._specs)
            await tree.ready()
            clock = StallClock(TICK)
            while True:
                await asyncio.sleep(TICK)
                self._look(children, clock.look(), lambda text: tree.console.line(OWN_NAME, text))
        finally:
            for status in self._statuses:
                status.close()
            self._sockets.close()

    def _look(self, children: Sequence[Child], gap: float, say: Callable[[str], None]) -> None:
        for child, status in zip(children, self._statuses, strict=True):
            status.excuse(gap)
            if not child.has_ended and status.silent(self._seconds, child.spec.ready_seconds):
                say(f"{child.spec.name} has given no sign of life for {self._seconds:g} s and is killed")
                status.forget()
                child.restart()


def _told(spec: Spec, status: ChildStatus) -> Spec:
    """Pass the socket to the child, and reset the status at each restart."""

    def starts() -> None:
        status.forget()
        if spec.starts is not None:
            spec.starts()

    return replace(spec, environ={**spec.environ, notify.ADDRESS: status.address}, starts=starts)
