"""One broadcaster as a process: its signs of life, its garbage collector and its event loop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
from typing import TYPE_CHECKING, Final

from legato.protocol.redis.cancellation import end_task

from . import notify
from .composition import StartError, running
from .limits import GC_YOUNG_OBJECTS, HEARTBEAT_SECONDS
from .notify import Notifier
from .reloading import Reloadable, Reloader, hung_up_by_terminal
from .transport import open_files

if TYPE_CHECKING:
    from collections.abc import Generator

    from legato.protocol.apps import App

    from .composition import Running
    from .config import Settings, SettingsSource

__all__ = ["StartError", "run", "serve"]

logger: Final = logging.getLogger("legato.broadcaster")


async def serve(settings: Settings, source: SettingsSource | None = None) -> None:
    """Run until SIGTERM or SIGINT.

    :param source: where SIGHUP reads the settings again; None if it does not.
    :raises StartError: a port is taken, or Redis or the applications' database cannot be used.
    :raises SettingsError: ``[auth]`` or an address cannot be used, or there is no application.
    """
    notifier = Notifier(os.environ)
    beating = asyncio.create_task(_give_signs_of_life(notifier))
    try:
        with _reloads(settings, source) as reloader:
            async with running(settings) as server:
                open_files.make_room(settings.server.max_connections)
                _settle_garbage()
                notifier.send(notify.READY)
                if reloader is not None:
                    reloader.start(reloadable(server))
                await server.ended
                notifier.send(notify.STOPPING)
    finally:
        await end_task(beating)
        notifier.close()
    logger.info("stopped")


async def _give_signs_of_life(notifier: Notifier) -> None:
    """Send them while the event loop runs: a parent replaces a process that sends none."""
    while True:
        notifier.send(notify.ALIVE)
        await asyncio.sleep(HEARTBEAT_SECONDS)


def _settle_garbage() -> None:
    """Exempt what exists now from garbage collection, and look for cycles less often.

    The objects of connections and requests are freed by their reference counts; few of them are in cycles.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_YOUNG_OBJECTS, 20, 20)


@contextlib.contextmanager
def _reloads(settings: Settings, source: SettingsSource | None) -> Generator[Reloader | None, None, None]:
    """Within the block, SIGHUP reads the settings again. None where it has another meaning."""
    if source is None or hung_up_by_terminal():
        yield None
        return
    reloader, loop = Reloader(settings, source), asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, reloader.ask)
    try:
        yield reloader
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # what comes now is too late; it ends nothing


def reloadable(server: Running) -> Reloadable:
    """The parts of a running server that settings can change."""
    node = server.node

    async def use_apps(apps: tuple[App, ...]) -> None:
        if node.source is None:
            await node.app_changes.apply(apps)
        else:
            await node.source.change_own(apps, node.app_changes.apply)

    tls = server.uvicorn.config.ssl
    return Reloadable(use_apps, node.clients, node.subscriptions, node.addresses, tls)


def run(settings: Settings, source: SettingsSource) -> None:
    """:func:`serve` on uvloop."""
    import uvloop  # noqa: PLC0415 - not needed for --help

    if not hung_up_by_terminal():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # for the moment until it is obeyed
    uvloop.run(serve(settings, source))
