"""What is refused to an address because of a limit: counted, and named in a few log lines."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING, Final

from legato.broadcaster.address_limits import ADDRESS_LOG_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

logger: Final = logging.getLogger("legato.connections")


class AddressRefusals:
    """Counts and logs refusals.

    :param now: a clock in seconds.
    :ivar by_limit: refusals since the start, by the setting's name without ``server.``.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self.by_limit: Counter[str] = Counter()
        self._now = now
        self._quiet_until = float("-inf")
        self._suppressed = 0

    def note(self, limit: str, address: str) -> None:
        """Something is refused to the address. At most one line per :data:`ADDRESS_LOG_SECONDS`."""
        self.by_limit[limit] += 1
        now = self._now()
        if now < self._quiet_until:
            self._suppressed += 1
            return
        suppressed, self._suppressed, self._quiet_until = self._suppressed, 0, now + ADDRESS_LOG_SECONDS
        more = f"; {suppressed} more refusals since the last such line" if suppressed else ""
        logger.warning("%s has reached server.%s and is refused%s", address, limit, more)
