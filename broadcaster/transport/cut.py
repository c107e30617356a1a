"""Cut a connection that fails, so that nobody but its own client has anything of it."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

logger: Final = logging.getLogger("legato.connections")

SECONDS: Final = 10.0
"""How long nothing more is logged after a line: one fault may hit thousands of connections."""


class Cuttable(Protocol):
    """A connection."""

    def abort(self) -> None:
        """End it now, whatever is still to be read or written."""


class Cutter:
    """Aborts connections, and logs the first of many.

    :param clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._silent_until = 0.0
        self._unsaid = 0

    def __call__(self, connection: Cuttable, doing: str, error: Exception) -> None:
        """Abort it, since ``doing`` something with it has failed. Never raises."""
        self._log(doing, error)
        try:
            connection.abort()
        except Exception as another:  # noqa: BLE001 - whatever it is, the others go on
            self._log("aborting it", another)

    def _log(self, doing: str, error: Exception) -> None:
        now = self._clock()
        if now < self._silent_until:
            self._unsaid += 1
            return
        unsaid, self._unsaid, self._silent_until = self._unsaid, 0, now + SECONDS
        more = f"; {unsaid} more since the last such line" if unsaid else ""
        logger.error("a connection is cut: %s failed%s", doing, more, exc_info=error)


cut: Final = Cutter()
"""The process' own."""
