"""Raises the limit of open files of this process. Every connection needs one."""

from __future__ import annotations

import contextlib
import logging
import resource
from typing import Final

from legato.protocol import advice

logger: Final = logging.getLogger("legato.broadcaster")


def make_room(max_connections: int) -> None:
    """Raise the soft limit to the hard limit, and warn if that is too low.

    :param max_connections: the maximum number of connections; 0 for no limit.
    """
    limit, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit != hard:
        with contextlib.suppress(OSError, ValueError):  # macOS has a further limit
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return
    if warning := advice.files(limit, max_connections):
        logger.warning("%s", warning)
    elif not max_connections:
        room = max(limit - advice.RESERVED_FILES, 0)
        logger.info("up to %d connections: the limit of open files is %d", room, limit)
