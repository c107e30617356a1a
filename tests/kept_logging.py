"""Keeps what a test does to the configuration of logging, which is the process's, from those that follow."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator


SET_BY_IMPORTS: Final = frozenset({"httpx2", "httpcore2"})
"""Loggers whose level a module of ours sets when it is imported: once, and perhaps within a test."""


@contextlib.contextmanager
def kept_logging() -> Iterator[None]:
    """After the block, levels and the root's handlers are what they were. A new logger has no level."""
    root = logging.getLogger()
    handlers, levels = list(root.handlers), dict(_levels())
    try:
        yield
    finally:
        root.handlers[:] = handlers
        for name, level in _levels():
            if level != (before := levels.get(name, logging.NOTSET)):
                logging.getLogger(name or None).setLevel(before)


def _levels() -> Iterator[tuple[str, int]]:
    yield "", logging.getLogger().level
    for name, logger in list(logging.getLogger().manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and name not in SET_BY_IMPORTS:
            yield name, logger.level
