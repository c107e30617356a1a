"""One broadcaster as a process: its signs of life, its garbage collector and its event loop."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
from typing import TYPE_CHECKING, Final

from legato.protocol.redis.cancellation import end_task

from . import notify
from .composition import StartError, running
from .limits import GC_YOUNG_OBJECTS, HEARTBEAT_SECONDS
from .notify import Notifier
from .transport import open_files

if TYPE_CHECKING:
    from .config import Settings

__all__ = ["StartError", "run", "serve"]

logger: Final = logging.getLogger("legato.broadcaster")


async def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT.

    :raises StartError: a port is taken, or Redis or the applications' database cannot be used.
    :raises SettingsError: ``[auth]`` or an address cannot be used, or there is no application.
    """
    notifier = Notifier(os.environ)
    beating = asyncio.create_task(_give_signs_of_life(notifier))
    try:
        async with running(settings) as server:
            open_files.make_room(settings.server.max_connections)
            _settle_garbage()
            notifier.send(notify.READY)
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


def run(settings: Settings) -> None:
    """:func:`serve` on uvloop."""
    import uvloop  # noqa: PLC0415 - not needed for --help

    uvloop.run(serve(settings))
