"""Says when the process has no more files, which every connection needs one of.

The loop then closes new connections at once, and says nothing.
"""

from __future__ import annotations

import errno
import logging
import os
import resource
from typing import Final

logger: Final = logging.getLogger("legato.broadcaster")


class FileLimit:
    """Tries now and then to open one more file."""

    def __init__(self) -> None:
        self._reached = False

    def look(self) -> None:
        """Say once that the limit is reached, and once that it is no more."""
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
                logger.warning("there are files for new connections again")
            self._reached = False
