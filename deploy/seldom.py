"""Keeps what strangers, or a flapping Redis, can cause at any rate from filling the log."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

LINES: Final = 20
SECONDS: Final = 60.0
"""How many warnings and errors of one kind, which is one text before its values are put in, there may be in
how long a time.
"""

KINDS: Final = 512
"""Kinds that are counted at the same time. Few texts hold values; if they do, all are counted anew."""


class Seldom(logging.Filter):
    """Lets :data:`LINES` lines of a kind through in :data:`SECONDS`.

    The last of them says that more are left out, and the first one after them how many were.

    A worker's lines are each about another reply, and all are kept.

    :param clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._kinds: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is written."""
        if record.levelno < logging.WARNING or record.name.startswith("legato.worker"):
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
