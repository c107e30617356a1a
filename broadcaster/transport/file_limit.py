"""Warns when the process has reached its limit of open files. Every connection needs one.

At the limit the event loop closes new connections at once, without a message.
"""

from __future__ import annotations

import errno
import logging
import os
import resource
from typing import Final

logger: Final = logging.getLogger("legato.broadcaster")


class FileLimit:
    """Tests whether one more file can be opened."""

    def __init__(self) -> None:
        self._reached = False

    def look(self) -> None:
        """Log once when the limit is reached, and once when it no longer is."""
        try:
            os.close(os.open(os.devnull, os.O_RDONLY))
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE) or self._reached:
                return
            self._reached = True
            limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            logger.warning(
                "the limit of open files is reached (%d): new connections are refused; raise LimitNOFILE",
                limit,
            )
        else:
            if self._reached:
                logger.warning("below the limit of open files again: new connections are accepted")
            self._reached = False
