"""``--processes N``: several broadcasters on one port, or several workers, under one parent."""

from __future__ import annotations

import asyncio
import logging
import re
import sys
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Final

from legato.broadcaster.reloading import hung_up_by_terminal

from . import logs, metrics, ports
from .children import STOP_SECONDS, ProcessTree, Spec
from .console import OWN_NAME, Console
from .passed_on import PassedOnReloads
from .up import LEGATO
from .watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import legato.broadcaster.config
    import legato.worker.config
    from legato.protocol.settings import Log

    from .console import Console

logger: Final = logging.getLogger("legato.metrics")

BROADCASTER_STOP_SECONDS: Final = 15.0
"""Time after the drain for webhooks and pending commands to Redis."""

_BROADCASTER_READY: Final = re.compile(r"\blistening on ")


def run_broadcasters(
    argv: Sequence[str],
    settings: legato.broadcaster.config.Settings,
    environ: Mapping[str, str],
    read: Callable[[], legato.broadcaster.config.Settings],
) -> int:
    """Run ``settings.server.processes`` broadcasters that share the port. Returns the exit status.

    The parent holds the port as long as any of them runs, so that no other program takes it during a restart.

    :param argv: the options of ``legato broadcaster``.
    :param read: reads the settings again, on SIGHUP; raises SettingsError.
    :raises CommandError: a port is in use; a process did not become ready, or a restart cannot fix it.
    """
    server = settings.server
    figures = _metrics_ports(settings)
    sources = [metrics.Source(metrics.reader(settings.metrics.host, port)) for port in figures]
    with ports.reserve(server.host, server.port) as reserved:
        port = reserved.getsockname()[1]
        verbose, hide = logs.of_child(settings.log.level)
        timed = logs.time_of_child(settings.log.time, sys.stderr.fileno())
        specs = [
            Spec(
                name=f"broadcaster.{index}",
                command=(
                    *(*LEGATO, "broadcaster", *argv, "--processes", "1", "--port", str(port)),
                    *("--metrics-port", str(figures[index])),
                ),
                environ={**environ, **verbose, **timed, "LEGATO_SERVER_REUSE_PORT": "true"},
                ready=_BROADCASTER_READY,
                hide=hide,
                starts=sources[index].begins,
            )
            for index in range(server.processes)
        ]
        hang_up = None if hung_up_by_terminal() else PassedOnReloads(settings, read)
        asyncio.run(_run(specs, settings, sources, hang_up))
    return 0


def _metrics_ports(settings: legato.broadcaster.config.Settings) -> list[int]:
    """The metrics ports of the processes: those after the parent's port, which serves the sum.

    Another one for each that is taken: the sum must not contain the metrics of another program.
    """
    host, port, count = settings.metrics.host, settings.metrics.port, settings.server.processes
    if not settings.metrics.enabled:
        return [0] * count
    return [_metrics_port(host, port and port + 1 + index) for index in range(count)]


def _metrics_port(host: str, wanted: int) -> int:
    if wanted and wanted <= ports.LAST and ports.is_free(host, wanted):
        return wanted
    chosen = ports.any_free(host)
    if wanted:
        logger.warning("port %d of %s is taken: a process has its metrics on port %d", wanted, host, chosen)
    return chosen


def run_workers(
    argv: Sequence[str], settings: legato.worker.config.Settings, environ: Mapping[str, str]
) -> int:
    """Run worker processes under a :class:`.supervisor.Supervisor`. Returns the exit status.

    :param argv: the options of ``legato worker``.
    :raises CommandError: a process did not become ready at the start, or a restart cannot fix it.
    """
    asyncio.run(_supervise(argv, settings, environ))
    return 0


async def _supervise(
    argv: Sequence[str], settings: legato.worker.config.Settings, environ: Mapping[str, str]
) -> None:
    from .supervisor import Supervisor  # noqa: PLC0415 - the broadcaster has no use for it

    supervisor = Supervisor(argv, settings, environ)
    with _terminal([OWN_NAME, *supervisor.names], settings.log) as terminal:
        tree = ProcessTree(terminal, stop_seconds=settings.worker.drain_seconds + STOP_SECONDS)
        await tree.run(supervisor.run)


async def _run(
    specs: list[Spec],
    settings: legato.broadcaster.config.Settings,
    sources: Sequence[metrics.Source],
    hang_up: PassedOnReloads | None,
) -> None:
    server, figures = settings.server, settings.metrics

    total = metrics.served(figures.host, figures.port, sources) if figures.enabled else nullcontext()
    with _terminal([OWN_NAME, *(spec.name for spec in specs)], settings.log) as terminal, total as port:
        if port:
            terminal.line(OWN_NAME, f"metrics of all on http://{figures.host}:{port}/metrics")
        seconds = server.notice_seconds + server.drain_seconds + BROADCASTER_STOP_SECONDS
        watch = Watch(specs, server.stall_seconds)
        await ProcessTree(terminal, stop_seconds=seconds, hang_up=hang_up).run(watch.run)


@contextmanager
def _terminal(names: list[str], log: Log) -> Iterator[Console]:
    terminal = logs.terminal(sys.stderr.fileno(), names, log)
    try:
        yield terminal
    finally:
        terminal.close()
