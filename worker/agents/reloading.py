"""Reloads agents when their files change, for development."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from legato.protocol.settings import SettingsError
from legato.worker.limits import AGENT_RELOAD_POLL_SECONDS

from .loading import own_modules

if TYPE_CHECKING:
    from .loading import Agents

log: Final = logging.getLogger("legato.worker")


async def watch(agents: Agents) -> None:
    """Forever: reload the agents when a module of the working directory has changed, or one beside it."""
    known = await asyncio.to_thread(_times)
    while True:
        await asyncio.sleep(AGENT_RELOAD_POLL_SECONDS)
        now = await asyncio.to_thread(_times)
        if any(known.get(path) != time for path, time in now.items()):
            _reload(agents)
            now = {**await asyncio.to_thread(_times), **now}  # a new version may import from other folders
        known = now


def _reload(agents: Agents) -> None:
    try:
        agents.reload()
    except SettingsError as error:
        log.warning("%s: the version before is used on", error)
    else:
        log.info("agents reloaded")


def _times() -> dict[Path, int]:
    """When each module was last changed, in ns: those in use, and all beside them.

    One that cannot be imported is not in use, and yet its mending is waited for.
    """
    found = {}
    for folder in {Path.cwd(), *(path.parent for path in own_modules().values())}:
        for path in folder.glob("*.py"):
            with suppress(OSError):
                found[path] = path.stat().st_mtime_ns
    return found
