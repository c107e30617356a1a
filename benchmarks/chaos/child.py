"""A process that is restarted whenever it ends, as by a service manager."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from typing import TYPE_CHECKING, Final

import legato.deploy.leash

from .errors import ChaosError

if TYPE_CHECKING:
    import re
    from collections.abc import Mapping, Sequence
    from pathlib import Path

POLL: Final = 0.05
PAUSE: Final = 0.3
"""Seconds before a process that ended by itself is restarted."""

START_SECONDS: Final = 60.0
PATIENCE: Final = 10.0
"""Seconds that a process may take to end in order."""


class ClusterProcess:
    """One process, with one log file for all of its starts.

    :ivar exits: exit statuses with which it ended by itself.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environ: Mapping[str, str],
        directory: Path,
        ready: re.Pattern[str],
    ) -> None:
        self.name = name
        self.log = directory / f"{name.replace(' ', '-')}.log"
        self.exits: list[int] = []
        self._command = [sys.executable, legato.deploy.leash.__file__, str(os.getpid()), *command]
        self._environ = environ
        self._ready_pattern = ready
        self._ready: re.Match[str] | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._wanted = asyncio.Event()
        self._started = asyncio.Event()  # or ended in the attempt
        self._gone = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """The pid of the current process, 0 without one."""
        return self._process.pid if self._process else 0

    @property
    def ready(self) -> re.Match[str] | None:
        """The match of the current process' ready line; None before that."""
        return self._ready

    async def start(self) -> None:
        """Start it, and wait until it is ready.

        :raises ChaosError: it does not become ready.
        """
        self._wanted.set()
        self._task = asyncio.create_task(self._keep())
        try:
            async with asyncio.timeout(START_SECONDS):
                await self._started.wait()
        except TimeoutError:
            raise ChaosError(f"{self.name} does not get ready: {self._last_line()}") from None
        if self.exits:
            raise ChaosError(f"{self.name} cannot be started: {self._last_line()}")

    async def close(self) -> None:
        """End it for good."""
        if self._task is not None:
            self._wanted.clear()
            await self._end(signal.SIGTERM)
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    # --- faults

    async def restart(self, number: signal.Signals, seconds: float) -> None:
        """End it with a signal, and restart it after some seconds."""
        await self.down(number)
        await asyncio.sleep(seconds)
        self.up()

    async def down(self, number: signal.Signals) -> None:
        """End it with a signal, until :meth:`up`."""
        self._wanted.clear()
        await self._end(number)

    def up(self) -> None:
        """Start it again."""
        self._wanted.set()

    async def freeze(self, seconds: float) -> None:
        """Stop it (SIGSTOP), and continue it after some seconds."""
        process = self._process
        _signal(process, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            _signal(process, signal.SIGCONT)

    async def _end(self, number: signal.Signals) -> None:
        process = self._process
        if process is None:
            return
        _signal(process, number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await process.wait()
        _signal(process, signal.SIGKILL)
        await self._gone.wait()

    # --- keeping it up

    async def _keep(self) -> None:
        while True:
            await self._wanted.wait()
            begin = self.log.stat().st_size if self.log.exists() else 0
            with self.log.open("ab") as log:
                self._process = process = await asyncio.create_subprocess_exec(
                    *self._command,
                    env=dict(self._environ),
                    process_group=0,  # Ctrl-C is for this process, which ends the others
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            self._gone.clear()
            await self._follow(process, begin)
            status = await process.wait()
            self._process = self._ready = None
            self._gone.set()
            if self._wanted.is_set():
                self.exits.append(status)
                self._started.set()
                await asyncio.sleep(PAUSE)

    async def _follow(self, process: asyncio.subprocess.Process, begin: int) -> None:
        while process.returncode is None:
            self._ready = self._ready_pattern.search(self._printed(begin))
            if self._ready:
                self._started.set()
                return
            await asyncio.sleep(POLL)

    def _printed(self, begin: int) -> str:
        with self.log.open("rb") as log:
            log.seek(begin)
            return log.read().decode(errors="replace")

    def _last_line(self) -> str:
        lines = self._printed(0).strip().splitlines()
        return lines[-1] if lines else "it says nothing"


def _signal(process: asyncio.subprocess.Process | None, number: signal.Signals) -> None:
    if process is not None and process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
