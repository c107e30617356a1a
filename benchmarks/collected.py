"""Runs ``legato`` and records its garbage collections; started by :mod:`.garbage`.

``python -m legato.benchmarks.collected FILE SETTLED COMMAND``. When COMMAND has ended, FILE contains the
:class:`Collections` after its start, as JSON. With SETTLED ``no`` the broadcaster keeps Python's settings.
"""

from __future__ import annotations

import gc
import sys
import time
from array import array
from pathlib import Path
from typing import Any

import msgspec

import legato.broadcaster.process
import legato.deploy.cli


class Collections(msgspec.Struct):
    """One entry for each collection, in order.

    :ivar at: when it began, in seconds of the monotonic clock, which all processes of a machine share.
    :ivar seconds: duration of the pause.
    :ivar collected: number of freed objects.
    """

    at: list[float]
    seconds: list[float]
    generation: list[int]
    collected: list[int]


class Recorder:
    """A callback of :data:`gc.callbacks`. Stores numbers in arrays, which the collector does not traverse."""

    def __init__(self) -> None:
        self._at, self._seconds = array("d"), array("d")
        self._generation, self._collected = array("q"), array("q")
        self._begun = 0.0

    def __call__(self, phase: str, info: dict[str, Any]) -> None:
        """Record the begin or the end of a collection."""
        now = time.monotonic()
        if phase == "start":
            self._begun = now
            return
        self._at.append(self._begun)
        self._seconds.append(now - self._begun)
        self._generation.append(info["generation"])
        self._collected.append(info["collected"])

    def collections(self) -> Collections:
        """All recorded collections."""
        return Collections(
            self._at.tolist(), self._seconds.tolist(), self._generation.tolist(), self._collected.tolist()
        )


def main(file: str, settled: str, *command: str) -> int:
    """Run the command and return its exit status."""
    recorder, settle = Recorder(), legato.broadcaster.process._settle_garbage  # noqa: SLF001 - what is compared

    def begin() -> None:
        if settled == "yes":
            settle()
        gc.callbacks.append(recorder)

    legato.broadcaster.process._settle_garbage = begin  # noqa: SLF001 - as above
    try:
        return legato.deploy.cli.main(command)
    finally:
        Path(file).write_bytes(msgspec.json.encode(recorder.collections()))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
