"""Cuts a failing connection, so that the failure affects no other client."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final, Protocol

from legato.broadcaster.log_limits import CUT_LOG_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

logger: Final = logging.getLogger("legato.connections")


class Cuttable(Protocol):
    """A connection."""

    def abort(self) -> None:
        """Close it at once, and drop unread and unwritten data."""


class Cutter:
    """Aborts connections, and logs at most one failure per :data:`CUT_LOG_SECONDS`.

    :param clock: a clock in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._quiet_until = 0.0
        self._suppressed = 0

    def __call__(self, connection: Cuttable, doing: str, error: Exception) -> None:
        """Abort a connection because ``doing`` something with it has failed. Never raises."""
        self._log(doing, error)
        try:
            connection.abort()
        except Exception as another:  # noqa: BLE001 - must never raise
            self._log("aborting it", another)

    def _log(self, doing: str, error: Exception) -> None:
        now = self._clock()
        if now < self._quiet_until:
            self._suppressed += 1
            return
        suppressed, self._suppressed, self._quiet_until = self._suppressed, 0, now + CUT_LOG_SECONDS
        more = f"; {suppressed} more since the last such line" if suppressed else ""
        logger.error("a connection is cut: %s failed%s", doing, more, exc_info=error)


cut: Final = Cutter()
"""The shared instance of this process."""
