"""Logging for every command: ``HH:MM:SS level name  message`` on standard error."""

from __future__ import annotations

import logging
import os
import re
import sys
from typing import Final

from legato.protocol.settings import PREFIX

from .console import wants_colour
from .log_rate_limit import LogRateLimit

LEVELS: Final = ("debug", "info", "warning", "error")

_COLOURS: Final = {"debug": 2, "warning": 33, "error": 31, "critical": 31}

# They log every request at info, and at debug its content.
_QUIET: Final = ("anthropic", "asyncio", "httpcore2", "httpx2", "sqlalchemy", "aiosqlite")


def of_child(level: str) -> tuple[dict[str, str], re.Pattern[str] | None]:
    """How to run a child that reports at info that it is ready, if only ``level`` and above is to be shown.

    Returns settings for its environment, and a pattern of the lines to hide.
    """
    if level not in ("warning", "error"):
        return {}, None
    hidden = "|".join(LEVELS[: LEVELS.index(level)])
    return {f"{PREFIX}LOG_LEVEL": "info"}, re.compile(rf"^\d\d:\d\d:\d\d (?:{hidden}) ")


class Format(logging.Formatter):
    """Formats a record as one line, with a coloured level if ``colour``."""

    def __init__(self, *, colour: bool) -> None:
        super().__init__("%(asctime)s %(level)s %(name)s  %(message)s", "%H:%M:%S")
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        """Format with ``%(level)s`` as the level in lower case, padded."""
        name = record.levelname.lower()
        code = _COLOURS.get(name) if self._colour else None
        record.level = f"\x1b[{code}m{name:<7}\x1b[0m" if code else f"{name:<7}"
        return super().format(record)


def configure(level: str) -> None:
    """Log ``level`` and above. Only Legato's own loggers use debug, because others may log secrets there.

    :param level: one of :data:`LEVELS`.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(LogRateLimit())
    handler.setFormatter(Format(colour=wants_colour(sys.stderr.fileno(), os.environ)))
    number = logging.getLevelNamesMapping()[level.upper()]
    logging.basicConfig(level=max(number, logging.INFO), handlers=[handler], force=True)
    logging.getLogger("legato").setLevel(number)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))
