"""What is refused to an address because of a limit: counted, and told to the log."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from legato.protocol import refusals

if TYPE_CHECKING:
    from legato.broadcaster.observability.refusals import Refused


class AddressRefusals:
    """Counts and logs refusals.

    :ivar by_limit: refusals since the start, by the setting's name without ``server.``.
    """

    def __init__(self, refused: Refused) -> None:
        self.by_limit: Counter[str] = Counter()
        self._refused = refused

    def note(self, limit: str, address: str) -> None:
        """Something is refused to the address."""
        self.by_limit[limit] += 1
        self._refused(refusals.ADDRESS_LIMIT, setting=f"server.{limit}", address=address)
