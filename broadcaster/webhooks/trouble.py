"""Rate-limited log lines about a failing receiver and dropped events."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from legato.broadcaster.limits import WARNING_SECONDS, WEBHOOK_DROP_REPORT_SECONDS

from .requests import NotAcceptedError

logger: Final = logging.getLogger("legato.webhooks")


class TroubleLog:
    """The log of one webhook. ``name`` begins each line."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._reason = ""
        self._quiet_until = 0.0
        self._dropped = 0
        self._reported = 0
        self._timer: asyncio.TimerHandle | None = None

    def overridden(self, headers: tuple[str, ...]) -> None:
        """Headers are configured that Legato sets itself."""
        if headers:
            logger.warning("%s: set by Legato, whatever is configured: %s", self._name, ", ".join(headers))

    def failed(self, error: Exception) -> None:
        """A request was not accepted, and is retried."""
        # Texts of other errors may contain the URL, which may hold a password.
        self._reason = str(error) if isinstance(error, NotAcceptedError) else type(error).__name__
        now = self._loop.time()
        if now >= self._quiet_until:
            self._quiet_until = now + WARNING_SECONDS
            logger.warning("%s: a request was not accepted (%s), trying again", self._name, self._reason)

    def dropped(self, total: int) -> None:
        """Note how many events have been dropped in total; the line follows soon."""
        self._dropped = total
        if total > self._reported and self._timer is None:
            self._timer = self._loop.call_later(WEBHOOK_DROP_REPORT_SECONDS, self._report)

    def close(self) -> None:
        """Flush pending log lines."""
        if self._timer is not None:
            self._timer.cancel()
            self._report()

    def _report(self) -> None:
        self._timer = None
        count = self._dropped - self._reported
        self._reported = self._dropped
        reason = f"; last failure: {self._reason}" if self._reason else ""
        logger.error("%s: %d events dropped%s", self._name, count, reason)
