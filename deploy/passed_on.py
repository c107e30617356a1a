"""SIGHUP for several broadcasters: the parent checks the settings, and passes it on if they are valid."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from legato.broadcaster.reloading import differences
from legato.protocol.settings import SettingsError

from . import logs
from .console import OWN_NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from legato.broadcaster.config import Settings

    from .children import ProcessTree

OF_PARENT: Final = frozenset(
    {
        *("server.port", "server.processes", "server.stall_seconds", "server.reuse_port"),
        *("metrics.port", "log.time"),
    }
)
"""Settings that the processes have from their parent, not from the file. They cannot tell of a change."""


class PassedOnReloads:
    """Called on SIGHUP.

    :param in_force: the settings with which the processes were started.
    :param read: reads and checks them; raises SettingsError.
    """

    def __init__(self, in_force: Settings, read: Callable[[], Settings]) -> None:
        self._in_force = in_force
        self._read = read
        self._task: asyncio.Task[None] | None = None
        self._again = False

    def __call__(self, tree: ProcessTree) -> None:
        """Begin a reload; if one is under way, there is one more after it."""
        self._again = True
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(tree))

    async def _run(self, tree: ProcessTree) -> None:
        while self._again:
            self._again = False
            await self.reload(tree)

    async def reload(self, tree: ProcessTree) -> None:
        """Pass the signal on, and name what needs a restart of the parent; one line if a setting is wrong."""
        try:
            new = await asyncio.to_thread(self._read)
        except SettingsError as error:
            tree.console.line(OWN_NAME, f"not reloaded, the settings stay as they were: {error}")
            return
        if kept := sorted(self._kept(new)):
            text = "changed settings that need a restart, and stay as they were"
            tree.console.line(OWN_NAME, f"{text}: {', '.join(kept)}")
        await tree.hang_up()

    def _kept(self, new: Settings) -> Iterator[str]:
        old = self._in_force
        for name in differences(old, new):
            if name in OF_PARENT:
                yield name
        if logs.of_child(old.log.level) != logs.of_child(new.log.level):
            yield "log.level"  # it hides lines of its processes
