"""Reloads agents when their files change, for development."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from legato.worker.importing import text_of
from legato.worker.limits import AGENT_RELOAD_POLL_SECONDS

from .loading import own_modules

if TYPE_CHECKING:
    from .loading import Agents

log: Final = logging.getLogger("legato.worker")


async def watch(agents: Agents) -> None:
    """Forever: reload the agents when a module of the working directory has changed, or one beside it."""
    known = await _looked({})
    while True:
        await asyncio.sleep(AGENT_RELOAD_POLL_SECONDS)
        now = await _looked(known)
        if any(known.get(path) != time for path, time in now.items()):
            _reload(agents)
            now = {**await _looked(now), **now}  # a new version may import from other folders
        known = now


async def _looked(before: dict[Path, int]) -> dict[Path, int]:
    """The times; those of ``before`` if they cannot be had, such as while the working directory is gone."""
    try:
        return await asyncio.to_thread(_times)
    except Exception as error:  # whatever it is, the next look may succeed
        log.debug("agents: cannot look for changes", exc_info=error)
        return before


def _reload(agents: Agents) -> None:
    try:
        agents.reload()
    except Exception as error:  # noqa: BLE001 - whatever the new code does, later changes are to be noticed
        log.warning("%s: the version before is used on", " ".join(text_of(error).split()))
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
