"""Observes a running phase: a timeline for the report, and live figures on the terminal."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING, Any, Final, Self, TextIO

from . import probe
from .histogram import BucketCounts
from .result import Moment, shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .agents import Generators
    from .orders import GeneratorCounts
    from .probe import ProcessUsage

EVERY: Final = 0.5
MIB: Final = 1024 * 1024
LINES_EVERY: Final = 2.0
"""Seconds between two lines of progress without a terminal."""


class Live:
    """The line of progress on standard error.

    :param of: number of phases of the whole run; 0 if it is not known.
    """

    def __init__(self, out: TextIO | None = None, *, quiet: bool = False, of: int = 0) -> None:
        self._out = out or sys.stderr
        self._quiet = quiet
        self._over = self._out.isatty()
        self._said = 0.0
        self._of = of
        self._number = 0

    def begin(self) -> None:
        """The next phase begins."""
        self._number += 1

    def show(self, title: str, moment: Moment) -> None:
        """Figures of the latest interval."""
        if self._quiet or (not self._over and time.monotonic() - self._said < LINES_EVERY):
            return
        self._said = time.monotonic()
        number = f"phase {self._number} of {self._of}  " if self._of else ""
        parts = [f"{number}{title:<18} {moment.at:5.1f} s"]
        parts += [
            f"{name} {shown(value)}/s"
            for name, value in (
                ("sent", moment.sent),
                ("delivered", moment.received),
                ("joined", moment.joined),
            )
            if value
        ]
        if moment.received:
            parts.append(f"p50 {moment.p50:.1f} p99 {moment.p99:.1f} ms")
        parts.append(f"server {moment.server_cpu:.0%} {moment.server_mib:.0f} MiB")
        parts.append(f"generator {moment.generator_cpu:.0%}")
        text = "  ".join(parts)
        self._out.write(f"\r\x1b[K{text}" if self._over else f"{text}\n")
        self._out.flush()

    def say(self, text: str) -> None:
        """Write a permanent line."""
        if not self._quiet:
            self._out.write(f"\r\x1b[K{text}\n" if self._over else f"{text}\n")
            self._out.flush()


class PhaseWatch:
    """Observes a phase within a block.

    :ivar seconds: duration of the phase.
    :ivar server: usage of the server; None if its processes are not known.
    :ivar generators: usage of each generator.
    :ivar peak: the server's peak memory, in MiB.
    """

    def __init__(self, generators: Generators, pids: Sequence[int], live: Live, title: str) -> None:
        self._generators, self._pids, self._live, self._title = generators, pids, live, title
        self.timeline: list[Moment] = []
        self.seconds = self.peak = 0.0
        self.server: ProcessUsage | None = None
        self.generators: list[ProcessUsage] = []

    async def __aenter__(self) -> Self:
        self._live.begin()
        self._begun, self._before = time.monotonic(), self._look()
        self._ticking = asyncio.create_task(self._tick())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._ticking.cancel()
        await asyncio.wait({self._ticking})
        after = self._look()
        self.seconds = time.monotonic() - self._begun
        spent = [_spent(now, then) for now, then in zip(after, self._before, strict=True)]
        self.server = spent[0] if self._pids else None
        self.generators = spent[1:]
        self.peak = max(self.peak, after[0].resident / MIB)

    def _look(self) -> list[ProcessUsage]:
        """The usage of the server, then that of each generator."""
        return [probe.usage(self._pids)] + [probe.usage([agent.pid]) for agent in self._generators.everyone]

    async def _tick(self) -> None:
        then, uses, counts = self._begun, self._before, await self._generators.figures()
        while True:
            await asyncio.sleep(EVERY)
            now, latest, told = time.monotonic(), self._look(), await self._generators.figures()
            spent = [_spent(after, before) for after, before in zip(latest, uses, strict=True)]
            moment = self._moment(now - then, spent, counts, told)
            moment.at = round(now - self._begun, 3)
            moment.server_mib = round(latest[0].resident / MIB, 1)
            self.peak = max(self.peak, latest[0].resident / MIB)
            self.timeline.append(moment)
            self._live.show(self._title, moment)
            then, uses, counts = now, latest, told

    @staticmethod
    def _moment(
        seconds: float, spent: Sequence[ProcessUsage], old: GeneratorCounts, new: GeneratorCounts
    ) -> Moment:
        latency = BucketCounts(_between(new.histograms, old.histograms))
        return Moment(
            at=0,
            sent=round((new.sent - old.sent) / seconds, 1),
            received=round((new.received - old.received) / seconds, 1),
            joined=round((new.joined - old.joined) / seconds, 1),
            p50=round(latency.percentile(50) / 1000, 3),
            p99=round(latency.percentile(99) / 1000, 3),
            server_cpu=round(spent[0].cpu / seconds, 3),
            server_mib=0,
            generator_cpu=round(max((usage.cpu for usage in spent[1:]), default=0) / seconds, 3),
        )


def _between(new: Mapping[str, Any], old: Mapping[str, Any]) -> dict[int, int]:
    before = old.get("latency", {})
    return {
        number: count - before.get(number, 0)
        for number, count in new.get("latency", {}).items()
        if count > before.get(number, 0)
    }


def _spent(after: ProcessUsage, before: ProcessUsage) -> ProcessUsage:
    return probe.ProcessUsage(
        after.cpu - before.cpu, after.waited - before.waited, after.resident - before.resident
    )
