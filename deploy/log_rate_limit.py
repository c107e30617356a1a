"""Limits repeated warnings and errors, so that clients or a flapping Redis cannot fill the log."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

LINES: Final = 20
SECONDS: Final = 60.0
"""Largest number of warnings and errors of one kind within a period. A kind is a format string."""

KINDS: Final = 512
"""Largest number of counted kinds. Beyond it, all counts restart."""


_UNLIMITED: Final = ("legato.worker", "legato.refused")


class LogRateLimit(logging.Filter):
    """Passes :data:`LINES` lines of a kind per :data:`SECONDS`.

    The last line says that more are omitted; the first line of the next period says how many were.

    Lines of workers are not limited, because each is about another reply; nor are those of refusals, which
    have a limit of their own.

    :param clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._kinds: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to write the line."""
        if record.levelno < logging.WARNING or record.name.startswith(_UNLIMITED):
            return True
        kind, now = (record.name, str(record.msg)), self._clock()
        since, count = self._kinds.get(kind, (now, 0))
        if now - since >= SECONDS:
            if count > LINES:
                record.msg = f"{record.msg} ({count - LINES} more like it were left out)"
            since, count = now, 0
        elif len(self._kinds) >= KINDS:
            self._kinds.clear()
        self._kinds[kind] = since, count + 1
        if count + 1 == LINES:
            record.msg = f"{record.msg} (more like it are left out for up to {SECONDS:g} s)"
        return count < LINES
