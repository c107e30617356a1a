"""Logging for every command: ``TIME level name  message`` on standard error, or JSON.

On a terminal the time is ``HH:MM:SS``. Elsewhere, as in a service, it has date and zone: ISO 8601.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from typing import TYPE_CHECKING, Final

from legato.protocol.settings import PREFIX, SettingsError

from .console import Console, wants_colour
from .json_console import JsonConsole
from .log_format import Format, JsonFormat
from .log_rate_limit import LogRateLimit

if TYPE_CHECKING:
    from legato.protocol.settings import Log

LEVELS: Final = ("debug", "info", "warning", "error")

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
    begin = rf'(?:[0-9]\S* |\{{"time":"[^"]*","level":")(?:{hidden})[ "]'
    return {f"{PREFIX}LOG_LEVEL": "info"}, re.compile(rf"^{begin}")


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


def terminal(fd: int, names: list[str], log: Log) -> Console:
    """What writes the lines of the processes ``names`` to ``fd``."""
    kind = JsonConsole if log.format == "json" else Console
    return kind(fd, names, colour=wants_colour(fd, os.environ))


def configure(log: Log) -> None:
    """Log ``log.level`` and above. Only Legato's loggers use debug, because others may log secrets there."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(LogRateLimit())
    fd = sys.stderr.fileno()
    console = Format(colour=wants_colour(fd, os.environ), short=is_short(log.time, fd))
    handler.setFormatter(JsonFormat() if log.format == "json" else console)
    logging.basicConfig(handlers=[handler], force=True)
    use_level(log.level)


def use_level(level: str) -> None:
    """Log ``level`` and above from now on; see :func:`configure`."""
    number = logging.getLevelNamesMapping()[level.upper()]
    logging.getLogger().setLevel(max(number, logging.INFO))
    logging.getLogger("legato").setLevel(number)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))
