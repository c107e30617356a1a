"""Logging for every command: ``TIME level name  message`` on standard error.

On a terminal the time is ``HH:MM:SS``. Elsewhere, as in a service, it has date and zone: ISO 8601.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from datetime import UTC, datetime
from typing import Final

from legato.protocol.settings import PREFIX, SettingsError

from .console import wants_colour
from .log_rate_limit import LogRateLimit

LEVELS: Final = ("debug", "info", "warning", "error")

_COLOURS: Final = {"debug": 2, "warning": 33, "error": 31, "critical": 31}

# They log every request at info, and at debug its content.
_QUIET: Final = ("anthropic", "asyncio", "httpcore2", "httpx2", "sqlalchemy", "aiosqlite")


def check_level(level: str) -> None:
    """Check that it is one of :data:`LEVELS`.

    :raises SettingsError: it is not.
    """
    if level not in LEVELS:
        expected = ", ".join(LEVELS)
        raise SettingsError(f"log.level (LEGATO_LOG_LEVEL): expected one of {expected}, got {level!r}")


def of_child(level: str) -> tuple[dict[str, str], re.Pattern[str] | None]:
    """How to run a child that reports at info that it is ready, if only ``level`` and above is to be shown.

    Returns settings for its environment, and a pattern of the lines to hide.
    """
    if level not in ("warning", "error"):
        return {}, None
    hidden = "|".join(LEVELS[: LEVELS.index(level)])
    return {f"{PREFIX}LOG_LEVEL": "info"}, re.compile(rf"^\S+ (?:{hidden}) ")


def is_short(time: str, fd: int) -> bool:
    """Whether lines to ``fd`` have the time of day only.

    :param time: ``log.time``.
    """
    return time == "short" or (time == "auto" and os.isatty(fd))


def time_of_child(time: str, fd: int) -> dict[str, str]:
    """The settings of a child whose lines go to ``fd`` through its parent.

    :param time: ``log.time`` of the parent.
    """
    return {f"{PREFIX}LOG_TIME": "short" if is_short(time, fd) else "full"}


class Format(logging.Formatter):
    """Formats a record as one line, with a coloured level if ``colour``.

    :param short: the time of day instead of date, time and zone.
    """

    def __init__(self, *, colour: bool, short: bool) -> None:
        super().__init__("%(asctime)s %(level)s %(name)s  %(message)s", "%H:%M:%S")
        self._colour = colour
        self._short = short

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 - logging's
        """Format the record's time in this machine's zone."""
        if self._short:
            return super().formatTime(record, datefmt)
        return datetime.fromtimestamp(record.created, UTC).astimezone().isoformat(timespec="milliseconds")

    def format(self, record: logging.LogRecord) -> str:
        """Format with ``%(level)s`` as the level in lower case, padded."""
        name = record.levelname.lower()
        code = _COLOURS.get(name) if self._colour else None
        record.level = f"\x1b[{code}m{name:<7}\x1b[0m" if code else f"{name:<7}"
        return super().format(record)


def configure(level: str, time: str = "auto") -> None:
    """Log ``level`` and above. Only Legato's own loggers use debug, because others may log secrets there.

    :param level: one of :data:`LEVELS`.
    :param time: ``log.time``.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(LogRateLimit())
    fd = sys.stderr.fileno()
    handler.setFormatter(Format(colour=wants_colour(fd, os.environ), short=is_short(time, fd)))
    logging.basicConfig(handlers=[handler], force=True)
    use_level(level)


def use_level(level: str) -> None:
    """Log ``level`` and above from now on; see :func:`configure`."""
    number = logging.getLevelNamesMapping()[level.upper()]
    logging.getLogger().setLevel(max(number, logging.INFO))
    logging.getLogger("legato").setLevel(number)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))
