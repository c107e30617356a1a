"""``--processes N``: several broadcasters on one port, or several workers on one queue, under one parent."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from . import logs, ports
from .children import OWN_NAME, STOP_SECONDS, Family, Spec
from .console import Console, wants_colour
from .up import LEGATO

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import broadcaster.config
    import worker.config


_BROADCASTER_READY: Final = re.compile(r"\blistening on ")


def run_broadcasters(
    argv: Sequence[str], settings: broadcaster.config.Settings, environ: Mapping[str, str]
) -> int:
    """Run ``settings.server.processes`` broadcasters that share the port. Returns the exit status.

    The port is held here for as long as any of them runs, so that nobody takes it between two restarts.

    :param argv: the options that ``legato broadcaster`` was given.
    :raises CommandError: the port is taken; a copy did not get ready, or cannot be helped by a restart.
    """
    server, metrics = settings.server, settings.metrics
    with ports.reserve(server.host, server.port) as reserved:
        port = reserved.getsockname()[1]
        verbose, hide = logs.of_child(settings.log.level)
        specs = [
            Spec(
                name=f"broadcaster.{index}",
                command=(
                    *(*LEGATO, "broadcaster", *argv, "--processes", "1", "--port", str(port)),
                    *("--metrics-port", str(metrics.port and metrics.port + index)),
                ),
                environ={**environ, **verbose, "LEGATO_SERVER_REUSE_PORT": "true"},
                ready=_BROADCASTER_READY,
                hide=hide,
            )
            for index in range(server.processes)
        ]
        asyncio.run(_run(specs, server.drain_seconds))
    return 0


def run_workers(argv: Sequence[str], settings: worker.config.Settings, environ: Mapping[str, str]) -> int:
    """Run worker processes under a :class:`.supervisor.Supervisor`. Returns the exit status.

    :param argv: the options that ``legato worker`` was given.
    :raises CommandError: a process did not get ready at the start, or cannot be helped by a restart.
    """
    asyncio.run(_supervise(argv, settings, environ))
    return 0


async def _supervise(
    argv: Sequence[str], settings: worker.config.Settings, environ: Mapping[str, str]
) -> None:
    from .supervisor import Supervisor  # noqa: PLC0415 - the broadcaster has no use for it

    supervisor = Supervisor(argv, settings, environ)
    with _terminal([OWN_NAME, *supervisor.names]) as terminal:
        family = Family(terminal, stop_seconds=settings.worker.drain_seconds + STOP_SECONDS)
        await family.run(supervisor.run)


async def _run(specs: list[Spec], drain_seconds: float) -> None:
    async def begin(family: Family) -> None:
        family.start(*specs)
        await family.ready()

    with _terminal([OWN_NAME, *(spec.name for spec in specs)]) as terminal:
        await Family(terminal, stop_seconds=drain_seconds + STOP_SECONDS).run(begin)


@contextmanager
def _terminal(names: list[str]) -> Iterator[Console]:
    fd = sys.stderr.fileno()
    terminal = Console(fd, names, colour=wants_colour(fd, os.environ))
    try:
        yield terminal
    finally:
        terminal.close()
