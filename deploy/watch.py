"""Watches broadcaster processes, and kills and restarts one whose event loop hangs."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from legato.broadcaster import notify

from .children import OWN_NAME
from .signs import Ears, Gaps

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .children import Child, Family, Spec
    from .signs import Signs

TICK: Final = 0.5
"""Interval between two checks, in seconds."""


class Watch:
    """Receives the heartbeats of the children's event loops.

    :param seconds: longest silence. Before a child is ready, the time-out of its start applies.
    """

    def __init__(self, specs: Sequence[Spec], seconds: float) -> None:
        self._seconds = seconds
        self._ears = Ears()
        self._signs = [self._ears.listen(lambda: None) for _ in specs]
        self._specs = [_told(spec, signs) for spec, signs in zip(specs, self._signs, strict=True)]

    async def run(self, family: Family) -> None:
        """Start all children, and watch them until cancelled.

        :raises CommandError: one of them was not ready in time.
        """
        try:
            children = family.start(*self._specs)
            await family.ready()
            gaps = Gaps(TICK)
            while True:
                await asyncio.sleep(TICK)
                self._look(children, gaps.look(), lambda text: family.console.line(OWN_NAME, text))
        finally:
            for signs in self._signs:
                signs.close()
            self._ears.close()

    def _look(self, children: Sequence[Child], gap: float, say: Callable[[str], None]) -> None:
        for child, signs in zip(children, self._signs, strict=True):
            signs.excuse(gap)
            if not child.has_ended and signs.silent(self._seconds, child.spec.ready_seconds):
                say(f"{child.spec.name} has given no sign of life for {self._seconds:g} s and is killed")
                signs.forget()
                child.restart()


def _told(spec: Spec, signs: Signs) -> Spec:
    """Pass the socket to the child, and reset the status at each restart."""

    def starts() -> None:
        signs.forget()
        if spec.starts is not None:
            spec.starts()

    return replace(spec, environ={**spec.environ, notify.ADDRESS: signs.address}, starts=starts)
